"""``status``: how a study goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import parser, place, print_json, print_lines, split
from dlsearch.cli.reading import look_at_study, run_id_of_trial

if TYPE_CHECKING:
    from dlsearch.cli.arguments import Place
    from dlsearch.study.study import Study

FOLLOW_SECONDS = 1.0


def status(words: list[str]) -> int:
    """Show how a study goes."""
    overrides, rest = split(words)
    arguments = parser("status", "How a study goes; follows a running one in a terminal.")
    arguments.add_argument("name")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    arguments.add_argument("--follow", action="store_true", help="until it ends")
    options = arguments.parse_args(rest)
    where = place(overrides)
    study = look_at_study(where, options.name)
    found = _read_status(study, where)
    if options.json:
        study.storage.close()
        print_json(found)
        return 0
    from dlsearch.app.study_table import study_table
    from dlsearch.console.terminal import console as make_console

    console = make_console()
    if options.follow and console.is_terminal:
        study, found = _follow(study, where, found, console)
    else:
        console.print(study_table(found))
    study.storage.close()
    print_lines(*_result_lines(found))
    return 0


def _read_status(study: Study, where: Place) -> dict[str, Any]:
    """The status, with the run in MLflow of the best trial."""
    from dlsearch.records.record import read_status

    def look() -> dict[str, Any]:
        found = read_status(study, where.store)
        best = found["best"]
        if best is not None:
            attempts = study.leases.rows(kind="trial", number=best["number"])
            if attempts:
                last = attempts[-1]
                best["run_id"] = run_id_of_trial(where, study.name, last.number, last.attempt)
        return found

    return study.storage.surely(look)


def _follow(
    study: Study,
    where: Place,
    found: dict[str, Any],
    console: Any,
) -> tuple[Study, dict[str, Any]]:
    """Draw the table again and again until the study ends; the study, and its last status."""
    from rich.live import Live

    from dlsearch.app.study_table import study_table

    with Live(study_table(found), console=console, auto_refresh=False) as live:
        while found["state"] == "running":
            time.sleep(FOLLOW_SECONDS)
            if study.storage.is_copy:
                study.storage.close()
                study = look_at_study(where, study.name)
            found = _read_status(study, where)
            live.update(study_table(found), refresh=True)
    return study, found


def _result_lines(found: dict[str, Any]) -> list[str]:
    from dlsearch.app.phrases import (
        describe_missing_result,
        describe_winner,
        explain_missing_score,
        format_scores,
        name_configuration,
    )

    lines = []
    if found["state"] == "failed":
        lines.append(describe_missing_result(found))
    if found["winner"] is not None and found["winner"]["confirmed"]:
        lines.append(f"winner: {describe_winner(found)}")
    unscored = explain_missing_score(found)
    if unscored is not None:
        lines.append(unscored)
    for test in found["test"]:
        name = name_configuration(test["trial_number"])
        lines.append(f"test set, opened for {name}: {format_scores(test['metrics'])}")
    return lines
