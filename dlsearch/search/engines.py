"""Launchers whose jobs this process cannot reach: what they are given, how they are recalled, what their ends mean."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import AWAY, DatabaseAwayError
from dlsearch.search.outage import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dlsearch.search.study import Study

INTERRUPTED = 130
RECALL_S = 9.0
_STOPPED = "dlsearch:stopped:"
#: Launchers of Hydra's whose jobs share the machine of the command.
_HERE = ("hydra._internal.core_plugins.basic_launcher", "hydra_plugins.hydra_joblib_launcher")


def is_reached(launcher: Any) -> bool:
    """Whether a signal to the command, or its end, reaches the launcher's jobs."""
    return hasattr(launcher, "workers") or type(launcher).__module__.startswith(_HERE)


def is_elsewhere(launcher: Any) -> bool:
    """Whether the launcher's jobs have machines, or shares of machines, of their own."""
    kind = type(launcher)
    to_try = kind.__module__.startswith("hydra_plugins.hydra_submitit") and kind.__name__ == "LocalLauncher"
    return not is_reached(launcher) and not to_try


def slots_of_a_job(launcher: Any, config: Mapping[str, Any]) -> Any:
    """``worker.slots`` of a launched job: all that its engine gives it, or one where jobs share this machine."""
    wanted = config["worker"]["slots"]
    return wanted if is_elsewhere(launcher) or wanted != "auto" else 1


def notices(url: str, config: Mapping[str, Any]) -> list[str]:
    """What a user should know of a place that not every machine reaches."""
    found = []
    if url.startswith("sqlite"):
        found.append(
            "the study's database is a file: workers on other machines need study.storage=postgresql+psycopg://…"
        )
    if config["tracking"]["enabled"] and not config["tracking"]["uri"] and config["worker"].get("own_paths"):
        found.append("runs of other machines reach MLflow through a server alone: tracking.uri=http://…")
    return found


def is_done(study: Study) -> bool:
    """Whether nothing is left of the study."""
    from dlsearch.search.rounds import Rounds

    return not study.searching() and Rounds(study).done()


def interrupted(returns: Sequence[Any], done: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Whether jobs that have ended were told to.

    Args:
        returns: Of the launcher. The return value of each is an exit code, or raises what ended it.
        done: Whether the study is.
        patience_s: How long they waited for the database.

    Raises:
        DatabaseAwayError: It was away for longer.
        RuntimeError: No job served the study to its end.
    """
    codes, failure = [], None
    for each in returns:
        try:
            codes.append(int(each.return_value or 0))
        except Exception as error:  # what others did counts nevertheless
            codes.append(AWAY if isinstance(error, DatabaseAwayError) else 1)
            failure = error
    if 0 in codes:  # a worker leaves when nothing is left to do
        return False
    if AWAY in codes:
        raise DatabaseAwayError(patience_s, "as its workers say")
    if INTERRUPTED in codes:
        return not done()
    if failure is not None and len(codes) == 1:
        raise failure
    if not done():
        ended = ", ".join(str(code) for code in sorted(set(codes)))
        raise RuntimeError(f"no worker served the study to its end: exit codes {ended}; what they said is above")
    return False


# -- a word to workers that no signal reaches --------------------------------------------------------------------------
def recall(study: Study, session: str) -> None:
    """Have every worker of `session` give its trials back and end, and wait for that a while.

    It is written into the study's storage, where workers look every few seconds.
    """
    study.storage.optuna.set_study_system_attr(study.optuna._study_id, _STOPPED + session, value=True)
    until = time.monotonic() + RECALL_S
    while study.others_running() and time.monotonic() < until:
        time.sleep(0.2)


def recalled(study: Study, session: str) -> bool:
    """Whether the workers of `session` were told to stop."""
    return _STOPPED + session in study.storage.optuna.get_study_system_attrs(study.optuna._study_id)
