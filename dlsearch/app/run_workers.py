"""Having the workers of a search serve its study, with the monitor beside them."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from dlsearch.app.worker_overrides import worker_overrides
from dlsearch.core.errors import AWAY, DatabaseAwayError
from dlsearch.study.trial_secrets import TrialSecrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dlsearch.app.monitor import Monitor
    from dlsearch.app.prepare import Prepared
    from dlsearch.app.session import Session
    from dlsearch.execution.processes.forkserver import ForkServer
    from dlsearch.study.study import Study

#: How long a database is waited for when all else is over.
LAST_PATIENCE_SECONDS = 2.0
MONITOR_JOIN_SECONDS = 20


def run_workers(
    prepared: Prepared,
    monitor: Monitor,
    server: ForkServer,
    session: Session,
) -> bool:
    """Launch the workers, and return when the study is served or somebody stops it.

    The time that it took is added to the study's.

    Args:
        prepared: The search.
        monitor: Follows the study meanwhile.
        server: The warm fork server; it is stopped where the jobs cannot use it.
        session: Holds the server for workers that are forked from this process.

    Returns:
        Whether the workers were stopped before the study was done.

    Raises:
        DatabaseAwayError: The database was away for too long.
        SystemExit: The same, and a worker of this machine has said so.
    """
    study = monitor.study
    storage = study.storage
    started = time.monotonic()
    interrupted = False
    ended = False
    is_away = False
    try:
        interrupted = _launch(prepared, monitor, server, session)
        ended = True
    except DatabaseAwayError:
        is_away = True
        if prepared.launcher.serves_all_slots:
            raise SystemExit(AWAY) from None
        raise
    finally:
        if interrupted or not ended:  # Ctrl-C and errors wait for nothing
            storage.patience_s = min(storage.patience_s, LAST_PATIENCE_SECONDS)
        if not is_away:
            with suppress(DatabaseAwayError):
                study.add_seconds(time.monotonic() - started)
        storage.close()
    return interrupted


def _launch(
    prepared: Prepared,
    monitor: Monitor,
    server: ForkServer,
    session: Session,
) -> bool:
    draft = prepared.draft
    launcher = prepared.launcher
    study = monitor.study
    storage = study.storage
    guard = session.fork_lock
    session.trial_secrets = TrialSecrets.from_config(draft.config, draft.options)
    word: str | None = None
    if launcher.serves_all_slots:
        session.warm_server = server
    else:
        server.stop()  # every job has its own machine, or starts its own
        word = launcher.new_session_word()
    overrides = worker_overrides(
        draft.name,
        draft.config,
        prepared.share.local_slots or launcher.slots_of_job(draft.config["worker"]["slots"]),
        typed=draft.overrides,
        session=word,
    )
    storage.close()
    with _watching(monitor, guard):
        try:
            returns = launcher.launch_workers(
                overrides,
                launcher.job_count(draft.study["workers"]),
                fork_guard=_QuietFork(guard, storage.close),
            )
            return launcher.was_interrupted(
                returns,
                lambda: storage.surely(lambda: is_done(study)),
                storage.patience_s,
            )
        except KeyboardInterrupt:
            if word is not None:
                storage.patience_s = min(storage.patience_s, LAST_PATIENCE_SECONDS)
                with suppress(DatabaseAwayError):
                    storage.surely(partial(launcher.recall, study, word))
            return True


def is_done(study: Study) -> bool:
    """Whether nothing is left of the study."""
    from dlsearch.confirmation.rounds import Rounds

    return not study.searching() and Rounds(study).done()


@contextmanager
def _watching(monitor: Monitor, guard: threading.Lock) -> Iterator[None]:
    """Within it, a thread follows the study."""
    stop = threading.Event()
    thread = threading.Thread(
        target=monitor.watch,
        args=(stop, guard),
        name="watch",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=MONITOR_JOIN_SECONDS)


class _QuietFork:
    """Around a fork: no other thread is in the middle of something, and no connection is inherited.

    Args:
        lock: Held by the monitor while it reads the storage.
        close: Closes this process's connections.
    """

    def __init__(self, lock: threading.Lock, close: Callable[[], None]) -> None:
        self._lock = lock
        self._close = close

    def __enter__(self) -> None:
        self._lock.acquire()
        self._close()
        sys.stdout.flush()
        sys.stderr.flush()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()
