"""A ``report.json`` that a study is run again from: what is read of it, and the checks of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, cast

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.regular import read_json
from dlsearch.core.names import is_name
from dlsearch.study.documents import check_document

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.core.types import ConfigTree, JsonObject, Params

#: What a study in a report must have to be run again.
_NEEDED = ("config", "options", "space", "sampler", "seed", "objectives")
_SHOWN_LETTERS = 60
#: What a report leaves out of a trial to run again where it is null or false.
ABSENT: Mapping[str, object] = {
    "reason": None,
    "values": None,
    "intermediate": [],
    "epochs": None,
    "best_epoch": None,
    "duplicate_of": None,
    "default": False,
    "enqueued": False,
    "infeasible": False,
    "resumed_epoch": None,
    "state_sha256": None,
    "metrics_sha256": None,
    "split_sha256": None,
    "inputs": None,
    "seen": None,
    "verdict": None,
}


class ReplayRow(TypedDict):
    """A trial of a report, exactly as it was recorded; the keys are those of the record.

    `seen` and `verdict` are JSON of :mod:`dlsearch.study.seen`.
    """

    number: int
    state: str
    reason: str | None
    params: Params
    values: list[float] | None
    intermediate: list[tuple[int, float | None]]
    seed: int
    epochs: int | None
    best_epoch: int | None
    duplicate_of: int | None
    default: bool
    enqueued: bool
    infeasible: bool
    resumed_epoch: int | None
    state_sha256: str | None
    metrics_sha256: str | None
    split_sha256: JsonObject | None
    inputs: JsonObject | None
    seen: JsonObject | None
    verdict: JsonObject | None


class ReportedStudy(TypedDict):
    """The study of a report, as far as it is run again."""

    name: str
    uuid: str
    objectives: list[str]
    directions: list[str]
    seed: int
    sampler: ConfigTree
    pruner: ConfigTree | None
    config: ConfigTree
    options: dict[str, dict[str, ConfigTree]]
    space: list[JsonObject]
    overrides: list[str]
    command: Any
    data: JsonObject
    model: JsonObject
    sha: dict[str, str]
    provenance: JsonObject


class ConfirmedAgain(TypedDict):
    """What a report has of the confirmation, to compare a repetition with."""

    winner: JsonObject | None
    finalization: JsonObject | None


class ReplayReport(TypedDict):
    """What is read of a report."""

    study: ReportedStudy
    replay: list[ReplayRow]
    again: ConfirmedAgain


def load(path: Path) -> ReplayReport:
    """A ``report.json`` that carries enough to run its study again.

    Raises:
        ConfigError: It is none.
    """
    try:
        report = read_json(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError("report.json", f"{path} cannot be read: {reason}") from error
    study = report.get("study") if isinstance(report, dict) else None
    if not isinstance(study, dict) or report.get("schema") != 1:
        raise ConfigError("report.json", f"{path} is no report of a study")
    _check_study(path, report, study)
    _check_trials(path, report["replay"])
    rows = [{**ABSENT, **row} for row in report["replay"]]
    return cast("ReplayReport", {**report, "replay": rows})


def _check_study(path: Path, report: Mapping[str, Any], study: Mapping[str, Any]) -> None:
    """Refuse a report that lacks what its study is run from.

    Raises:
        ConfigError: It does.
    """
    lacking = [key for key in _NEEDED if key not in study]
    if lacking or "replay" not in report:
        listed = ", ".join(lacking or ["replay"])
        raise ConfigError("report.json", f"{path} lacks {listed}", "dlsearch report NAME")
    if not report["replay"]:
        raise ConfigError("report.json", f"{path} holds no trial to run again")
    if not is_name(study.get("name")):  # it becomes a folder's, and a word of a command
        name = str(study.get("name"))[:_SHOWN_LETTERS]
        raise ConfigError(
            "report.json",
            f"{path} names its study {name!r}: expected letters, digits, '.', '_' and '-'",
        )
    check_document(study, str(path))


def _check_trials(path: Path, rows: object) -> None:
    """Refuse trials that are not numbered from 0, one after the other.

    Raises:
        ConfigError: They are not.
    """
    if not isinstance(rows, list):
        raise ConfigError("report.json", f"{path} lists no trials")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ConfigError("report.json", f"{path} lists no trials")
        if row.get("number") != number:
            last = len(rows) - 1
            raise ConfigError(
                "report.json",
                f"the trials of {path} are not numbered from 0 to {last}",
            )
        if not _is_well_formed(row):
            raise ConfigError("report.json", f"trial {number} of {path} is no record of one")


def _is_well_formed(row: Mapping[str, Any]) -> bool:
    """Whether what a trial is rebuilt from has its types."""
    params = row.get("params")
    state = row.get("state")
    values = row.get("values") or []
    reports = row.get("intermediate") or []
    if not isinstance(params, dict) or not isinstance(state, str):
        return False
    if not isinstance(values, list) or not isinstance(reports, list):
        return False
    return all(map(_is_number, values)) and all(map(_is_report, reports))


def _is_report(report: object) -> bool:
    """Whether it is a step with its value; null stands for a value that is no number."""
    if not isinstance(report, list) or len(report) != 2:
        return False
    step, value = report
    return type(step) is int and (value is None or _is_number(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
