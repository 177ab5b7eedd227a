"""A search, from ``-m`` to its report. Start reading here.

Order matters: what is cheap and may be wrong comes first, what is slow starts early and beside it
(the fork server imports torch while the database is opened), and nothing is written before
everything has been checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.app.finish import report_and_ship, settle_study
from dlsearch.app.opening import find_existing_study, open_or_resume
from dlsearch.app.prepare import prepare
from dlsearch.app.processes import SearchProcesses
from dlsearch.app.rehearse import rehearse
from dlsearch.app.run_workers import run_workers
from dlsearch.app.session import Session
from dlsearch.app.view import TerminalView
from dlsearch.launch.others import search_launcher
from dlsearch.planning.draft import make_draft

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from hydra.plugins.launcher import Launcher

    from dlsearch.app.session import SearchOutcome
    from dlsearch.planning.options import Compose


def search(
    compose: Compose,
    launcher: Launcher,
    overrides: Sequence[str],
    *,
    params: Mapping[str, Any],
    groups: set[str],
    session: Session | None = None,
) -> SearchOutcome:
    """Open or resume a study, have it served to its end, and report.

    Args:
        compose: Composes overrides without sweeps.
        launcher: A Hydra launcher that was set up.
        overrides: As typed after ``-m``.
        params: ``hydra.sweeper.params``.
        groups: Config groups that may be searched.
        session: Of the command.

    Returns:
        What the search came to; the session has it too.

    Raises:
        ConfigError: Something is wrong; nothing was written.
        DatabaseAwayError: The database was away for too long.
        RuntimeError: No worker served the study to its end.
    """
    session = session or Session()
    view = session.view or TerminalView()

    # Nothing is written until the study is opened.
    draft = make_draft(compose, overrides, params=params, groups=groups)
    draft.argv = session.argv
    prepared = prepare(draft, search_launcher(launcher))
    with SearchProcesses(prepared, session) as processes:
        # Imported while the fork server imports torch beside it.
        from dlsearch.app.monitor import Monitor
        from dlsearch.app.study_run import StudyRun

        existing = find_existing_study(prepared)
        rehearsal = rehearse(prepared, existing, processes.server)
        opened = open_or_resume(prepared, rehearsal, existing)
        study = opened.study
        processes.start_shipping()
        run = StudyRun(study, prepared.store)
        monitor = study.storage.surely(
            lambda: Monitor(
                study,
                prepared.store,
                run,
                view,
                total_slots=prepared.share.local_slots,
            )
        )
        with monitor.log.shown_in(view):
            study.storage.surely(
                lambda: monitor.announce(
                    draft.notices,
                    resumed=opened.resumed,
                    seal=rehearsal.seal,
                )
            )
            run.open(draft.config, opened.diff)

            # The workers search, confirm the finalists on fresh seeds, and open the test set once.
            interrupted = run_workers(prepared, monitor, processes.server, session)
            end = settle_study(monitor, view, interrupted=interrupted)

    session.outcome = report_and_ship(
        prepared,
        study,
        run,
        end,
        shipper=processes.shipper,
        view=view,
        interrupted=interrupted,
    )
    return session.outcome
