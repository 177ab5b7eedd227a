"""``trials``: the trials of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import parser, place, print_json, split
from dlsearch.cli.columns import print_table
from dlsearch.cli.reading import look_at_study, run_id_of_trial

if TYPE_CHECKING:
    from dlsearch.cli.arguments import Place
    from dlsearch.study.study import Study

_RECORDED = ("number", "state", "reason", "params", "value", "seconds")


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
    rows = []
    for trial in record["trials"]:
        row = _row_of(trial, where, options.name)
        row["silent"] = silent.get(trial["number"])
        rows.append(row)
    if options.json:
        print_json(rows)
        return 0
    searched = [dim["name"] for dim in record["study"]["space"]]
    lines = [_cells_of(row, searched) for row in rows]
    print_table(("trial", "state", "value", "s", *searched), lines, left=("state",))
    return 0


def _read_record(study: Study, where: Place) -> tuple[dict[str, Any], dict[int, str]]:
    """The record, and of each running trial that is silent for how long it has been."""
    from dlsearch.records.record import read_record
    from dlsearch.records.silence import silent_attempts

    live = [attempt for attempt in study.leases.live() if attempt.kind == "trial"]
    silent = silent_attempts(study, live, where.store)
    by_number = {
        attempt.number: silent[attempt.token] for attempt in live if attempt.token in silent
    }
    return read_record(study), by_number


def _row_of(trial: dict[str, Any], where: Place, name: str) -> dict[str, Any]:
    attempts = len(trial["attempts"])
    run_id = run_id_of_trial(where, name, trial["number"], attempts) if attempts else None
    return {
        **{key: trial[key] for key in _RECORDED},
        "values": trial["values"],
        "error": trial["error"],
        "silent": None,
        "attempt": attempts,
        "duplicate_of": trial["duplicate_of"],
        "run_id": run_id,
    }


def _cells_of(row: dict[str, Any], searched: list[str]) -> list[str]:
    from dlsearch.app.phrases import format_value

    why = row["reason"] or row["silent"]
    return [
        str(row["number"]),
        f"{row['state']}({why})" if why else row["state"],
        "" if row["value"] is None else f"{row['value']:.4f}",
        "" if row["seconds"] is None else f"{row['seconds']:.1f}",
        *[format_value(row["params"].get(name, "")) for name in searched],
    ]
