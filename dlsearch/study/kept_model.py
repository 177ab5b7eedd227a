"""Where the model of a study lies: the kept one, or that of one trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import inside
from dlsearch.study.states import AttemptKind, OpeningKind, RecordedTrialState, StudyState
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.core.types import JsonObject, Params


@dataclass(frozen=True)
class Kept:
    """A trained model on disk.

    Args:
        study: The study's name.
        kind: ``confirm`` for the kept model of a finished study, ``trial`` for that of one trial.
        number: The trial's number; None where the default configuration, which no trial ran, was
            kept.
        config: The configuration that it was trained with.
        checkpoint: Its weights.
        about: What is said of it in ``model.json``: study, parameters, objective, test metrics.
    """

    study: str
    kind: str
    number: int | None
    config: Path
    checkpoint: Path
    about: JsonObject = field(default_factory=dict)

    @property
    def title(self) -> str:
        """In a few words."""
        which = "the default configuration" if self.number is None else f"trial {self.number}"
        if self.kind == AttemptKind.CONFIRM:
            which = f"{which}, confirmed"
        return f"{self.study}, {which}"


@dataclass(frozen=True)
class _Found:
    """What a record says of a model that was kept.

    Args:
        kind: ``confirm`` or ``trial``.
        number: The trial's number; None for the default configuration that no trial ran.
        params: Searched values.
        value: The first objective.
        checkpoint: Its weights, relative to the store.
        test: What the test set showed; None where it was not opened for it.
    """

    kind: AttemptKind
    number: int | None
    params: Params
    value: float | None
    checkpoint: str
    test: JsonObject | None = None


def kept_model(
    record: JsonObject,
    store: Path,
    number: int | None = None,
) -> Kept:
    """The model that a study kept in the end, or that of trial `number`.

    Args:
        record: The study record.
        store: The folder that the studies of this machine write to.
        number: A trial; None for the kept model.

    Raises:
        ConfigError: The study is not finalised, has no such trial, or its files are not here.
    """
    name = record["study"]["name"]
    found = _find_confirmed(record) if number is None else _find_trial(record, number)
    checkpoint = inside(store, found.checkpoint)
    checkpoint = inside(store, layout.weights_beside(checkpoint))
    config = inside(store, checkpoint.parent.parent / "config.yaml")
    for path in (checkpoint, config):
        if not path.is_file():
            raise ConfigError(
                "study.name",
                f"the model of {name!r} is not in this store: {path} does not exist",
                "paths.store=… names the store of the machine that trained it; "
                "of trials, study.keep.top_k stay",
            )
    return Kept(
        study=name,
        kind=found.kind,
        number=found.number,
        config=config,
        checkpoint=checkpoint,
        about=_describe(record["study"], found),
    )


def _describe(
    study: JsonObject,
    found: _Found,
) -> JsonObject:
    """What is said of a model in ``model.json``."""
    digests = study.get("sha") or {}
    return {
        "study": {"name": study["name"], "uuid": study["uuid"]},
        "trial": found.number,
        "kind": found.kind,
        "params": found.params,
        "objective": {
            "name": study["objectives"][0],
            "direction": study["directions"][0],
            "value": found.value,
        },
        "test": found.test,
        "sha": {key: value for key, value in sorted(digests.items()) if value},
    }


def _find_confirmed(record: JsonObject) -> _Found:
    """The model that a finished study kept.

    Raises:
        ConfigError: It is not finished, or keeps none.
    """
    final = record.get("finalization")
    if not final or final["state"] != StudyState.COMPLETE or not final.get("checkpoint"):
        raise _make_refusal(record)
    winner = record["winner"] or {}
    return _Found(
        kind=AttemptKind.CONFIRM,
        number=final["kept"]["trial_number"],
        params=winner.get("params", {}),
        value=winner.get("value"),
        checkpoint=final["checkpoint"],
        test=_find_test(record),
    )


def _find_test(record: JsonObject) -> JsonObject | None:
    """What the test set showed of the model that was confirmed last."""
    for row in reversed(record["test"]):
        if row["kind"] != OpeningKind.CONFIRM:
            continue
        metrics = row.get("metrics", {})
        if row.get("refit"):  # what was kept is then the training on train + validation
            metrics = row["refit"]["metrics"]
        return {"n": row.get("n"), "metrics": metrics}
    return None


def _make_refusal(record: JsonObject) -> ConfigError:
    """Why a study has no model to use yet."""
    name = record["study"]["name"]
    if record.get("pareto") is not None:
        some = ", ".join(f"{name}/{number}" for number in record["pareto"][:3])
        return ConfigError(
            "study.name",
            f"{name!r} has several objectives and keeps no one model",
            f"name a trial: {some}",
        )
    winner = record["winner"]
    if winner is None:
        return ConfigError(
            "study.name",
            f"no trial of {name!r} is complete yet",
            f"dlsearch status {name}",
        )
    number = winner.get("number")
    instead = ""
    if number is not None:
        instead = f", or take the best trial's model: {name}/{number}"
    return ConfigError(
        "study.name",
        f"{name!r} is not finalised: its winner has not been confirmed",
        f"finish it with the command that began it{instead}",
    )


def _find_trial(
    record: JsonObject,
    number: int,
) -> _Found:
    """The model of a trial, or of the one whose result it took over.

    Raises:
        ConfigError: There is no such trial, or it left none.
    """
    name = record["study"]["name"]
    trials = {trial["number"]: trial for trial in record["trials"]}
    if number not in trials:
        raise ConfigError(
            "study.name",
            f"{name!r} has no trial {number}",
            f"dlsearch trials {name}",
        )
    trial = trials[number]
    # it took over another's result, and trained nothing itself
    while trial["duplicate_of"] is not None:
        trial = trials[trial["duplicate_of"]]
    if trial["state"] not in (RecordedTrialState.COMPLETE, RecordedTrialState.PRUNED):
        raise ConfigError(
            "study.name",
            f"trial {number} of {name!r} is {trial['state']} and left no model to use",
        )
    folder = layout.trial_folder(name, trial["number"])
    return _Found(
        kind=AttemptKind.TRIAL,
        number=trial["number"],
        params=trial["params"],
        value=trial["value"],
        checkpoint=f"{folder}/ckpt/best.ckpt",
    )
