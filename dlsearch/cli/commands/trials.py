"""``trials``: the trials of a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.cli.arguments import parser, place, print_json, print_lines, split
from dlsearch.cli.columns import print_table
from dlsearch.cli.reading import look_at_study, run_id_of_trial
from dlsearch.core.json_model import JsonModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.cli.arguments import Place
    from dlsearch.core.types import Params
    from dlsearch.records.models import StudyRecord, TrialRecord
    from dlsearch.study.states import RecordedTrialState
    from dlsearch.study.study import Study


#: Trials that are named with one cause.
_MAX_LISTED = 12


@dataclass(frozen=True)
class _TrialRow(JsonModel):
    """A trial as it is listed.

    Args:
        number: From 0.
        state: Whether it waits, runs, or how it ended.
        reason: Why it failed.
        params: Searched values.
        value: The first objective.
        seconds: Of all attempts.
        values: All objectives.
        error: Why it failed, in a line.
        silent: Why nobody may be at work on it, though it runs.
        attempt: The last one; 0 before the first.
        duplicate_of: The trial whose result it took over.
        run_id: Its run in MLflow.
    """

    number: int
    state: RecordedTrialState
    reason: str | None
    params: Params
    value: float | None
    seconds: float | None
    values: list[float] | None
    error: str | None
    silent: str | None
    attempt: int
    duplicate_of: int | None
    run_id: str | None


def trials(words: list[str]) -> int:
    """List the trials of a study."""
    overrides, rest = split(words)
    arguments = parser("trials", "The trials of a study.")
    arguments.add_argument("name")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    where = place(overrides)
    study = look_at_study(where, options.name)
    record, silent = study.storage.surely(lambda: _read_record(study, where))
    study.storage.close()
    rows = [_row_of(each, where, options.name, silent.get(each.number)) for each in record.trials]
    if options.json:
        print_json([row.to_json() for row in rows])
        return 0
    searched = [dimension["name"] for dimension in record.study.space]
    lines = [_cells_of(row, searched) for row in rows]
    print_table(("trial", "state", "value", "s", *searched), lines, left=("state",))
    print_lines(*_failure_lines(rows))
    return 0


def _failure_lines(rows: Sequence[_TrialRow]) -> list[str]:
    """A line for each cause of which trials failed, with their numbers."""
    from dlsearch.app.phrases import shorten_cause

    numbers: dict[str, list[int]] = {}
    for row in rows:
        if row.error is not None:
            numbers.setdefault(row.error, []).append(row.number)
    lines = []
    for error, failed in numbers.items():
        listed = ", ".join(map(str, failed[:_MAX_LISTED]))
        more = ", …" if len(failed) > _MAX_LISTED else ""
        noun = "trial" if len(failed) == 1 else "trials"
        lines.append(f"{noun} {listed}{more}: {shorten_cause(error)}")
    return lines


def _read_record(study: Study, where: Place) -> tuple[StudyRecord, dict[int, str]]:
    """The record, and of each running trial that is silent for how long it has been."""
    from dlsearch.records.record import read_record
    from dlsearch.records.silence import silent_attempts
    from dlsearch.study.states import AttemptKind

    live = [each for each in study.leases.live() if each.kind == AttemptKind.TRIAL]
    silent = silent_attempts(study, live, where.store)
    by_number = {each.number: silent[each.token] for each in live if each.token in silent}
    return read_record(study), by_number


def _row_of(trial: TrialRecord, where: Place, name: str, silent: str | None) -> _TrialRow:
    last = len(trial.attempts)
    return _TrialRow(
        number=trial.number,
        state=trial.state,
        reason=trial.reason,
        params=trial.params,
        value=trial.value,
        seconds=trial.seconds,
        values=trial.values,
        error=trial.error,
        silent=silent,
        attempt=last,
        duplicate_of=trial.duplicate_of,
        run_id=run_id_of_trial(where, name, trial.number, last) if last else None,
    )


def _cells_of(row: _TrialRow, searched: Sequence[str]) -> list[str]:
    from dlsearch.app.phrases import format_value

    why = row.reason or row.silent
    values = [row.params.get(name, "") for name in searched]
    return [
        str(row.number),
        f"{row.state}({why})" if why else row.state,
        "" if row.value is None else f"{row.value:.4f}",
        "" if row.seconds is None else f"{row.seconds:.1f}",
        *(format_value(value) for value in values),
    ]
