"""The process that sends journals to MLflow: ``python -m dlsearch.tracking.mlflow.shipper``.

It, with what it starts, is the only part of a search that imports mlflow. What it has sent it notes
beside each journal, after the server has accepted it; what was sent twice because it was killed in
between, the server knows by key, step, time and value.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dlsearch.console.streams import finish_output, put_in_place
from dlsearch.core.files.inside import check_root
from dlsearch.core.files.regular import open_to_append
from dlsearch.core.masking import learn, learn_environment, mask_text
from dlsearch.tracking.destination import Routes
from dlsearch.tracking.handle import Shipper, set_share, start
from dlsearch.tracking.mlflow import database
from dlsearch.tracking.mlflow.pump import Pump
from dlsearch.tracking.mlflow.sender import LOG, Sender, load
from dlsearch.tracking.tail import StoreLock, backlog, pending_rows, server_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Sender", "Shipper", "Synced", "main", "send", "start", "sync"]

_log = logging.getLogger("dlsearch.shipper")

POLL_S = 0.5
LINGER_S = 60.0  # how long an orphan goes on trying without getting anything through
_FORMAT = "%(asctime)s %(process)d %(levelname)s %(message)s"


class MaskingFormatter(logging.Formatter):
    """A formatter whose lines have no secrets: for handlers that write to files."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, masked."""
        return mask_text(super().format(record))


@dataclass(frozen=True)
class Synced:
    """What came of sending a store's journals to one server.

    Args:
        runs: That got something.
        rows: That were sent.
        pending: Journals that are not all there yet.
        pending_rows: Rows of theirs that are not.
        error: What the server, or the way to it, said last, where something is pending.
    """

    runs: int
    rows: int
    pending: int
    pending_rows: int = 0
    error: str | None = None


def sync(
    store: Path,
    uri: str,
    *,
    timeout_s: float = 600.0,
    prefix: str = "",
) -> dict[str, int]:
    """Send, in this process, what the journals of a store hold and `uri` does not have.

    All of them.

    Returns:
        ``runs``, ``rows`` and ``pending`` of :class:`Synced`.
    """
    found = send(
        store,
        uri,
        timeout_s=timeout_s,
        prefix=prefix,
    )
    return {"runs": found.runs, "rows": found.rows, "pending": found.pending}


def send(
    store: Path,
    uri: str,
    wanted: Callable[[Path], bool] | None = None,
    *,
    timeout_s: float = 600.0,
    prefix: str = "",
) -> Synced:
    """Send, in this process, what the journals of a store hold and `uri` does not have.

    Where a shipper is at work already, it is waited for instead.

    Args:
        store: The store.
        uri: The server, or MLflow's database.
        wanted: Which journals; all by default.
        timeout_s: How long it may take.
        prefix: Put before every experiment's name.
    """
    store = Path(store)
    deadline = time.monotonic() + timeout_s
    check_root(store)
    lock = StoreLock(store)
    while not lock.acquire():
        if time.monotonic() > deadline or not backlog(
            store,
            server_id(uri),
            wanted,
        ):
            return _count_pending(
                store,
                uri,
                wanted,
                "another shipper is at work on this store",
            )
        time.sleep(POLL_S)
    sender = None
    handler = _open_log(store)
    handler.setFormatter(MaskingFormatter(_FORMAT))
    _log.addHandler(handler)
    _log.propagate = False  # the log says what is left out; the user gets the counts
    try:
        sender = Sender(store, uri, prefix, final=True)
        pump = Pump(store, sender, wanted)
        _pump_until_empty(pump, sender, deadline)
        database.tune(uri, "ANALYZE")
        found = _count_pending(
            store,
            uri,
            wanted,
            pump.error or "it took too long",
        )
        return replace(found, runs=len(pump.touched), rows=pump.rows)
    finally:
        if sender is not None:
            sender.models.close()
        _log.propagate = True
        _log.removeHandler(handler)
        handler.close()
        lock.release()


def _pump_until_empty(pump: Pump, sender: Sender, deadline: float) -> None:
    """Send until nothing is left, time is up, or three rounds in a row have failed."""
    with suppress(Exception):  # the server does not answer: the rounds below say so
        pump.verify(sender.exists)
    failed_rounds = 0
    while time.monotonic() < deadline and failed_rounds < 3:
        sent = pump.round(full=True)
        failed_rounds = failed_rounds + 1 if pump.failing and not sent else 0
        if pump.idle:
            break
        time.sleep(0.05 if sent or not pump.failing else pump.delay)


def _count_pending(
    store: Path,
    uri: str,
    wanted: Callable[[Path], bool] | None,
    why: str,
) -> Synced:
    """What is pending, with the reason `why` where anything is."""
    server = server_id(uri)
    rows = pending_rows(store, server, wanted)
    return Synced(
        0,
        0,
        len(backlog(store, server, wanted)),
        rows,
        why if rows else None,
    )


def _open_log(store: Path) -> logging.StreamHandler[TextIO]:
    """The shipper's log, to be closed by :meth:`close`."""
    return _LogFile(
        os.fdopen(
            open_to_append(store / LOG, mode=0o666).detach(),
            "a",
            encoding="utf-8",
            errors="replace",
        )
    )


class _LogFile(logging.StreamHandler[TextIO]):
    def close(self) -> None:
        """Close the file, too."""
        super().close()
        self.stream.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Tail a store's journals until asked to stop, or the owner is gone and nothing is left."""
    parser = argparse.ArgumentParser(prog="python -m dlsearch.tracking.mlflow.shipper")
    parser.add_argument("store", type=Path)
    parser.add_argument("--uri", default=os.environ.get("MLFLOW_TRACKING_URI"))
    parser.add_argument("--experiment-prefix", default="")
    parser.add_argument(
        "--owner",
        type=int,
        default=None,
        help="process id of the parent; this one ends after it",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="import mlflow, and wait for a line on standard input",
    )
    arguments = parser.parse_args(argv)
    if not arguments.uri:
        parser.error("--uri, or MLFLOW_TRACKING_URI, is needed")
    learn_environment()
    learn(arguments.uri)
    if arguments.wait:
        _wait_for_owner(arguments.store, arguments.uri)
    put_in_place()
    logging.basicConfig(format=_FORMAT, level=logging.INFO)
    logging.captureWarnings(True)
    stop = threading.Event()
    wake = threading.Event()

    def end(*_: object) -> None:
        stop.set()
        wake.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if not arguments.wait:
        _be_nice()
    if arguments.owner is not None:
        threading.Thread(
            target=_wake_on_lines,
            args=(wake,),
            name="listen",
            daemon=True,
        ).start()

    def orphan() -> bool:
        return arguments.owner is not None and os.getppid() != arguments.owner

    lock = StoreLock(arguments.store)
    while not lock.acquire():
        if orphan() or stop.wait(POLL_S):
            return 0
    try:
        _ship_until_stopped(
            arguments.store,
            arguments.uri,
            arguments.experiment_prefix,
            stop,
            wake,
            orphan,
        )
    finally:
        lock.release()
    return 0


def _be_nice() -> None:
    with suppress(OSError):
        os.nice(10)  # where there are no autogroups; a process cannot raise its own share again


def _wait_for_owner(store: Path, uri: str) -> None:
    """Import mlflow and wait for the owner's word.

    Ends with an owner that gives none. Touches nothing before it.
    """
    word = threading.Event()

    def listen() -> None:
        if not sys.stdin.readline():
            os._exit(0)
        word.set()

    threading.Thread(
        target=listen,
        name="listen",
        daemon=True,
    ).start()
    _be_nice()
    with suppress(Exception):  # it happens again, and is logged, where mlflow is needed
        load(uri)
    word.wait()
    with open_to_append(store / LOG, mode=0o666) as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)


def _wake_on_lines(wake: threading.Event) -> None:
    """A line on standard input: the owner wants to have everything sent."""
    for _ in sys.stdin:
        wake.set()


def _ship_until_stopped(
    store: Path,
    uri: str,
    prefix: str,
    stop: threading.Event,
    wake: threading.Event,
    orphan: Callable[[], bool],
) -> None:
    sender = Sender(store, uri, prefix)
    pump = Pump(store, sender, Routes(store, uri))
    _log.info("shipping %s to %s", store, mask_text(uri))
    give_up: float | None = None
    try:
        while not stop.is_set():
            alone = orphan()
            sent = pump.round(full=alone)
            sender.models.rest()
            if alone and give_up is None:
                set_share(os.getpid(), 0)
            if alone and (give_up is None or sent or sender.models.busy):
                give_up = time.monotonic() + LINGER_S
            if give_up is not None and (pump.idle or time.monotonic() > give_up):
                break
            wake.wait(max(POLL_S, pump.delay))
            wake.clear()
    finally:
        sender.models.close()
        database.tune(uri, "PRAGMA wal_checkpoint(TRUNCATE)")
        _log.info(
            "ended after %d rows of %d runs",
            pump.rows,
            len(pump.touched),
        )


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    finish_output()
    # Tearing mlflow down takes most of a second, for which the search would wait; everything has
    # been sent.
    os._exit(code)
