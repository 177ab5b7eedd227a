"""Where the model of a study lies: the kept one, or that of one trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import inside
from dlsearch.study.states import AttemptKind, OpeningKind, RecordedTrialState, StudyState
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from pathlib import Path


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
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """In a few words."""
        which = "the default configuration" if self.number is None else f"trial {self.number}"
        return f"{self.study}, {which}" + (
            ", confirmed" if self.kind == AttemptKind.CONFIRM else ""
        )


def kept_model(record: dict[str, Any], store: Path, number: int | None = None) -> Kept:
    """The model that a study kept in the end, or that of trial `number`.

    Args:
        record: The study record.
        store: The folder that the studies of this machine write to.
        number: A trial; None for the kept model.

    Raises:
        ConfigError: The study is not finalised, has no such trial, or its files are not here.
    """
    name = record["study"]["name"]
    if number is None:
        kind, number, checkpoint = _confirmed(record)
        row = next((r for r in reversed(record["test"]) if r["kind"] == OpeningKind.CONFIRM), None)
        # what was kept is then the training on train + validation
        if row is not None and row.get("refit"):
            row = {**row, "metrics": row["refit"]["metrics"]}
        params = (record["winner"] or {}).get("params", {})
        value = (record["winner"] or {}).get("value")
    else:
        kind = AttemptKind.TRIAL
        row = None
        trial = _trial(record, number)
        number = trial["number"]
        params = trial["params"]
        value = trial["value"]
        checkpoint = _checkpoint(name, number)
    path = inside(store, checkpoint)
    config = inside(store, path.parent.parent / "config.yaml")
    absent = next((p for p in (path, config) if not p.is_file()), None)
    if absent is not None:
        raise ConfigError(
            "study.name",
            f"the model of {name!r} is not in this store: {absent} does not exist",
            "paths.store=… names the store of the machine that trained it; of trials, study.keep.top_k stay",
        )
    study = record["study"]
    about = {
        "study": {"name": name, "uuid": study["uuid"]},
        "trial": number,
        "kind": kind,
        "params": params,
        "objective": {
            "name": study["objectives"][0],
            "direction": study["directions"][0],
            "value": value,
        },
        "test": None if row is None else {"n": row.get("n"), "metrics": row.get("metrics", {})},
        "sha": {key: value for key, value in sorted((study.get("sha") or {}).items()) if value},
    }
    return Kept(name, kind, number, config, path, about)


def _confirmed(record: dict[str, Any]) -> tuple[str, int | None, str]:
    """Kind, trial and checkpoint (relative to the store) of what was kept."""
    name = record["study"]["name"]
    final = record.get("finalization")
    if final and final["state"] == StudyState.COMPLETE and final.get("checkpoint"):
        return AttemptKind.CONFIRM, final["kept"]["trial_number"], final["checkpoint"]
    if record.get("pareto") is not None:
        some = ", ".join(f"{name}/{n}" for n in record["pareto"][:3])
        raise ConfigError(
            "study.name",
            f"{name!r} has several objectives and keeps no one model",
            f"name a trial: {some}",
        )
    winner = record["winner"]
    if winner is None:
        raise ConfigError(
            "study.name", f"no trial of {name!r} is complete yet", f"dlsearch status {name}"
        )
    number = winner.get("number")
    instead = "" if number is None else f", or take the best trial's model: {name}/{number}"
    raise ConfigError(
        "study.name",
        f"{name!r} is not finalised: its winner has not been confirmed",
        f"finish it with the command that began it{instead}",
    )


def _trial(record: dict[str, Any], number: int) -> dict[str, Any]:
    name = record["study"]["name"]
    trials = {t["number"]: t for t in record["trials"]}
    if number not in trials:
        raise ConfigError(
            "study.name", f"{name!r} has no trial {number}", f"dlsearch trials {name}"
        )
    trial = trials[number]
    # it took over another's result, and trained nothing itself
    while trial["duplicate_of"] is not None:
        trial = trials[trial["duplicate_of"]]
    if trial["state"] not in (RecordedTrialState.COMPLETE, RecordedTrialState.PRUNED):
        raise ConfigError(
            "study.name", f"trial {number} of {name!r} is {trial['state']} and left no model to use"
        )
    return trial


def _checkpoint(name: str, number: int) -> str:
    return f"{layout.trial_folder(name, number)}/ckpt/best.ckpt"
