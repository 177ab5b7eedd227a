"""The keys of Hydra's official Optuna sweeper that are none here, each with what says the same.

``hydra.sweeper.params`` is read as that sweeper wrote it; everything else belongs to the study.
Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dlsearch.core.errors import ConfigError, did_you_mean

#: What says the same here.
ANSWERS: Mapping[str, str] = {
    "custom_search_space": "space._function_=mypackage.function, which is fn(trial, cfg)",
    "direction": "study.direction=minimize",
    "max_batch_size": "leave it out: a trial starts as soon as a slot is free",
    "max_failure_rate": "leave it out: a failed trial counts, and the others go on",
    "n_jobs": "hydra.launcher.workers=2",
    "n_trials": "study.n_trials=20",
    "sampler": "sampler=tpe, and sampler.… for its arguments; the groups stand in dlsearch --help",
    "search_space": "hydra.sweeper.params takes the same entries",
    "storage": "study.storage=sqlite:///studies.db",
    "study_name": "study.name=mine",
}
_OURS = ("_target_", "params")
_PREFIX = "hydra.sweeper."


def answer_to(key: str) -> ConfigError | None:
    """The error of a key of the official sweeper; None where the key is none of it.

    Args:
        key: A dotted config key.
    """
    if not key.startswith(_PREFIX):
        return None
    name = key.removeprefix(_PREFIX).partition(".")[0]
    if name in _OURS:
        return None
    if name in ANSWERS:
        return ConfigError(
            f"{_PREFIX}{name}", "is the official sweeper's, and said elsewhere here", ANSWERS[name]
        )
    hint = did_you_mean(name, [*_OURS, *ANSWERS], "hydra.sweeper.params holds the search space")
    return ConfigError(f"{_PREFIX}{name}", "the sweeper has no such key", hint)


def check_keys(names: Iterable[str]) -> None:
    """Check the keys of our own sweeper's node.

    Raises:
        ConfigError: One of them is none of its.
    """
    for name in names:
        error = answer_to(f"{_PREFIX}{name}")
        if error is not None:
            raise error
