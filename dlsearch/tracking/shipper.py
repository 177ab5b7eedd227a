"""The process that sends journals to MLflow: ``python -m dlsearch.tracking.shipper STORE --uri URI``.

It, with what it starts, is the only part of a search that imports mlflow. What it has sent it notes beside each
journal, after the server has accepted it; what was sent twice because it was killed in between, the server knows by
key, step, time and value.
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
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.tracking import database
from dlsearch.tracking.handle import Shipper, set_share, start
from dlsearch.tracking.masking import learn, learn_environment, mask_text
from dlsearch.tracking.pump import Pump
from dlsearch.tracking.sender import LOG, Sender, load
from dlsearch.tracking.tail import StoreLock, backlog, server_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Sender", "Shipper", "main", "start", "sync"]

_log = logging.getLogger("dlsearch.shipper")

POLL_S = 0.5
LINGER_S = 60.0  # how long an orphan goes on trying without getting anything through
_FORMAT = "%(asctime)s %(process)d %(levelname)s %(message)s"


def sync(store: Path, uri: str, *, timeout_s: float = 600.0, prefix: str = "") -> dict[str, int]:
    """Send, in this process, what the journals of a store hold and `uri` does not have.

    Where a shipper is at work already, it is waited for instead.

    Returns:
        ``runs`` that got something, ``rows`` sent, and ``pending`` journals that are not all there yet.
    """
    store, deadline = Path(store), time.monotonic() + timeout_s
    server, lock = server_id(uri), StoreLock(store)
    while not lock.acquire():
        if time.monotonic() > deadline or not backlog(store, server):
            return {"runs": 0, "rows": 0, "pending": len(backlog(store, server))}
        time.sleep(POLL_S)
    sender, handler = None, logging.FileHandler(store / LOG)
    handler.setFormatter(logging.Formatter(_FORMAT))
    _log.addHandler(handler)
    _log.propagate = False  # what is left out is told in the log; the user gets the counts
    try:
        sender = Sender(store, uri, prefix, final=True)
        pump = Pump(store, sender)
        with suppress(Exception):  # the server does not answer: the rounds below say so
            pump.verify(sender.exists)
        failed = 0
        while time.monotonic() < deadline and failed < 3:
            sent = pump.round(full=True)
            failed = failed + 1 if pump.failing and not sent else 0
            if pump.idle:
                break
            time.sleep(0.05 if sent or not pump.failing else pump.delay)
        database.tune(uri, "ANALYZE")
        return {"runs": len(pump.touched), "rows": pump.rows, "pending": len(backlog(store, server))}
    finally:
        if sender is not None:
            sender.models.close()
        _log.propagate = True
        _log.removeHandler(handler)
        handler.close()
        lock.release()


def main(argv: Sequence[str] | None = None) -> int:
    """Tail the journals of a store until told to stop, or until the owner is gone and nothing is left."""
    parser = argparse.ArgumentParser(prog="python -m dlsearch.tracking.shipper")
    parser.add_argument("store", type=Path)
    parser.add_argument("--uri", default=os.environ.get("MLFLOW_TRACKING_URI"))
    parser.add_argument("--experiment-prefix", default="")
    parser.add_argument("--owner", type=int, default=None, help="process id of the parent; this one ends after it")
    parser.add_argument("--wait", action="store_true", help="import mlflow, and wait for a line on standard input")
    arguments = parser.parse_args(argv)
    if not arguments.uri:
        parser.error("--uri, or MLFLOW_TRACKING_URI, is needed")
    learn_environment()
    learn(arguments.uri)
    if arguments.wait:
        _wait(arguments.store, arguments.uri)
    logging.basicConfig(format=_FORMAT, level=logging.INFO)
    logging.captureWarnings(True)
    stop, wake = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        stop.set()
        wake.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if not arguments.wait:
        _be_nice()
    if arguments.owner is not None:
        threading.Thread(target=_listen, args=(wake,), name="listen", daemon=True).start()

    def orphan() -> bool:
        return arguments.owner is not None and os.getppid() != arguments.owner

    lock = StoreLock(arguments.store)
    while not lock.acquire():
        if orphan() or stop.wait(POLL_S):
            return 0
    try:
        _serve(arguments.store, arguments.uri, arguments.experiment_prefix, stop, wake, orphan)
    finally:
        lock.release()
    return 0


def _be_nice() -> None:
    with suppress(OSError):
        os.nice(10)  # where there are no autogroups; what a process gives away it cannot take back


def _wait(store: Path, uri: str) -> None:
    """Import mlflow and wait for the owner's word; ends with an owner that gives none. Touches nothing before it."""
    word = threading.Event()

    def listen() -> None:
        if not sys.stdin.readline():
            os._exit(0)
        word.set()

    threading.Thread(target=listen, name="listen", daemon=True).start()
    _be_nice()
    with suppress(Exception):  # happens again, and is told in the log, where it is needed
        load(uri)
    word.wait()
    log = os.open(store / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


def _listen(wake: threading.Event) -> None:
    """A line on standard input: the owner wants to have everything sent."""
    for _ in sys.stdin:
        wake.set()


def _serve(
    store: Path, uri: str, prefix: str, stop: threading.Event, wake: threading.Event, orphan: Callable[[], bool]
) -> None:
    sender = Sender(store, uri, prefix)
    pump = Pump(store, sender)
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
        _log.info("ended after %d rows of %d runs", pump.rows, len(pump.touched))


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Tearing mlflow down takes most of a second, for which the search would wait; everything has been sent.
    os._exit(code)
