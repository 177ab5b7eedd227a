"""The end of a search: the study is settled, its report written, and what is left is shipped."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from dlsearch.app.session import SearchOutcome
from dlsearch.console.terminal import shown
from dlsearch.core.errors import DatabaseAwayError
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.app.monitor import Monitor, StudyEnd
    from dlsearch.app.prepare import Prepared
    from dlsearch.app.study_run import StudyRun
    from dlsearch.app.view import View
    from dlsearch.study.study import Study
    from dlsearch.tracking.handle import Shipper

SHIPPING_SECONDS = 120.0


def settle_study(monitor: Monitor, view: View, *, interrupted: bool) -> StudyEnd:
    """Note whether the study is finished, and say how it ended.

    Args:
        monitor: It followed the study.
        view: What the user sees.
        interrupted: Whether somebody stopped it.

    Raises:
        DatabaseAwayError: The database was away for too long, and nobody stopped the search.
    """
    from dlsearch.app.monitor import StudyEnd
    from dlsearch.confirmation.rounds import Rounds

    study = monitor.study

    def settle() -> None:
        study.reap()
        study.settle(interrupted=interrupted, confirmed=Rounds(study).done())

    try:
        study.storage.surely(settle)
        return study.storage.surely(lambda: monitor.conclude(interrupted=interrupted))
    except DatabaseAwayError as error:
        if not interrupted:
            raise
        view.say(f"interrupted; {error}")
        return StudyEnd(failed=False, unscored=None)


def report_and_ship(
    prepared: Prepared,
    study: Study,
    run: StudyRun,
    end: StudyEnd,
    *,
    shipper: Shipper | None,
    view: View,
    interrupted: bool,
) -> SearchOutcome:
    """Write the report, close the study's own run, and wait until MLflow has everything.

    Ctrl-C ends the report, or the wait, alone: the study is over, and its run is closed all the
    same.
    """
    report = None
    report_interrupted = False
    if not interrupted:
        try:
            report = _write_report(prepared, view)
        except KeyboardInterrupt:
            report_interrupted = True
            view.say(f"report: interrupted; dlsearch report {study.name} writes it")
    try:
        shipped = _close_run(study, run, report, end, shipper, interrupted=interrupted)
    except KeyboardInterrupt:
        shipped = False
    if not shipped:
        view.say("tracking: not everything has reached MLflow yet; dlsearch sync ships the rest")
    return SearchOutcome(
        name=study.name,
        storage_url=prepared.storage_url,
        store=prepared.store,
        interrupted=interrupted or report_interrupted,
        failed=end.failed,
        unscored=end.unscored,
        report=report,
        shipped=shipped,
    )


def _write_report(prepared: Prepared, view: View) -> Path:
    from dlsearch.app.reporting import write_report

    folder = write_report(
        prepared.draft.name,
        prepared.storage_url,
        prepared.store,
        patience_s=prepared.patience_s,
    )
    if prepared.draft.arms is not None:
        view.say(shown(_read_headline(folder)))
    view.say(f"report: {os.path.relpath(folder / 'index.html')}")
    return folder


def _read_headline(folder: Path) -> str:
    """The first sentence of a report."""
    report = json.loads((folder / "report.json").read_text("utf-8"))
    headline: str = report["claim"]["headline"]
    return headline


def _close_run(
    study: Study,
    run: StudyRun,
    report: Path | None,
    end: StudyEnd,
    shipper: Shipper | None,
    *,
    interrupted: bool,
) -> bool:
    """Close the study's own run, and have everything shipped; False when something is left."""
    best = None
    with suppress(DatabaseAwayError):
        best = study.storage.surely(study.best)
    run.close(
        report,
        best_trial=None if best is None else best.number,
        status=_run_status(end, interrupted=interrupted),
    )
    study.storage.close()
    return shipper is None or shipper.stop(SHIPPING_SECONDS)


def _run_status(end: StudyEnd, *, interrupted: bool) -> str:
    if interrupted:
        return layout.KILLED
    return layout.FAILED if end.failed else layout.FINISHED
