"""Forks of a process whose other threads are inside SQLite."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from dlsearch.core.machine.fork_gate import ForkGate, inside
from dlsearch.storage.schema import open_engine

FORKS = 30
PATIENCE_S = 20.0


def _use(path: Path) -> None:
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT count(*) FROM numbers")).scalar_one()
    engine.dispose()


def _wait_for(pid: int) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -1


def test_a_child_that_is_forked_beside_busy_threads_can_use_the_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE numbers (n INTEGER)")
        made.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(50)])
    made.close()
    _use(path)  # imports SQLAlchemy's dialect; forks beside imports are another matter
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            _use(path)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(FORKS):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    _use(path)
                    code = 0
                finally:
                    os._exit(code)
            assert _wait_for(pid) == 0
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_a_fork_waits_for_a_thread_that_is_inside() -> None:
    gate = ForkGate()
    gate.enter()
    closed = threading.Event()

    def close() -> None:
        gate.close()
        closed.set()
        gate.open()

    thread = threading.Thread(target=close)
    thread.start()
    assert not closed.wait(0.1)
    gate.leave()
    thread.join(PATIENCE_S)
    assert closed.is_set()


def test_a_thread_goes_in_again_although_another_waits_to_fork() -> None:
    gate = ForkGate()
    gate.enter()
    thread = threading.Thread(target=lambda: (gate.close(), gate.open()))
    thread.start()
    time.sleep(0.05)
    gate.enter()
    gate.leave()
    gate.leave()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_fork_goes_on_although_a_call_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlsearch.core.machine.fork_gate.PATIENCE_S", 0.05)
    gate = ForkGate()
    gate.enter()
    thread = threading.Thread(target=lambda: (gate.close(), gate.open()))
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    gate.leave()


def test_the_thread_that_is_inside_may_fork() -> None:
    with inside():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
    assert _wait_for(pid) == 0
