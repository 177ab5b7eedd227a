"""``status``: how a study goes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from dlsearch.cli.arguments import parser, place, print_json, print_lines, split
from dlsearch.cli.reading import look_at_study, run_id_of_trial

if TYPE_CHECKING:
    from rich.console import Console

    from dlsearch.cli.arguments import Place
    from dlsearch.records.status import Status
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
        print_json(found.to_json())
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


def _read_status(study: Study, where: Place) -> Status:
    """The status, with the run in MLflow of the best trial."""
    return study.storage.surely(lambda: _read_status_once(study, where))


def _read_status_once(study: Study, where: Place) -> Status:
    from dlsearch.records.status import read_status
    from dlsearch.study.states import AttemptKind

    found = read_status(study, where.store)
    if found.best is None:
        return found
    attempts = study.leases.rows(kind=AttemptKind.TRIAL, number=found.best.number)
    if not attempts:
        return found
    last = attempts[-1]
    run_id = run_id_of_trial(where, study.name, last.number, last.attempt)
    return replace(found, best=replace(found.best, run_id=run_id))


def _follow(
    study: Study,
    where: Place,
    found: Status,
    console: Console,
) -> tuple[Study, Status]:
    """Draw the table again and again until the study ends; the study, and its last status."""
    from rich.live import Live

    from dlsearch.app.study_table import study_table
    from dlsearch.study.states import StudyState

    with Live(study_table(found), console=console, auto_refresh=False) as live:
        while found.state is StudyState.RUNNING:
            time.sleep(FOLLOW_SECONDS)
            if study.storage.is_copy:
                study.storage.close()
                study = look_at_study(where, study.name)
            found = _read_status(study, where)
            live.update(study_table(found), refresh=True)
    return study, found


def _result_lines(found: Status) -> list[str]:
    from dlsearch.app.phrases import (
        describe_confirmed_winner,
        describe_failures,
        describe_missing_result,
        describe_openings,
        explain_missing_score,
        format_scores,
        name_configuration,
    )
    from dlsearch.study.states import StudyState

    lines = []
    if found.state is StudyState.FAILED:
        lines.append(describe_missing_result(found))
    lines += describe_failures(found)
    confirmed = describe_confirmed_winner(found)
    if confirmed is not None:
        lines.append(confirmed)
    unscored = explain_missing_score(found)
    if unscored is not None:
        lines.append(unscored)
    for score in found.test:
        name = name_configuration(score.trial_number)
        lines.append(f"test set, opened for {name}: {format_scores(score.metrics)}")
    if found.openings or found.openings_of_test_set:
        lines.append(f"test set: {describe_openings(found)}")
    return lines
