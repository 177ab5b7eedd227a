"""A real tracking server behind a proxy that fails in every way: in the end each row is there, once."""

from __future__ import annotations

import http.client
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dlsearch.tracking.journal import Journal, rows, run_id
from dlsearch.tracking.mlflow import sender as module
from dlsearch.tracking.mlflow import ui
from dlsearch.tracking.mlflow.pump import Pump
from dlsearch.tracking.mlflow.sender import Sender
from tests.tracking.conftest import EXPERIMENT
from tests.tracking.proxy import Proxy

pytestmark = pytest.mark.storm

TIMEOUT_S = 4


class Server:
    """A tracking server on the store's database.

    Args:
        store: The store.
    """

    def __init__(self, store: Path) -> None:
        self.store, self.port = store, ui.free_port(0)
        self._command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        self._command += ["--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
        self._command += ["--artifacts-destination", str(store / "art")]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        with (self.store / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while not _up(self.port):
            assert self._process is not None
            assert self._process.poll() is None, (self.store / "server.log").read_text()
            assert time.monotonic() < deadline, (self.store / "server.log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


@pytest.fixture
def server(store: Path) -> Iterator[Server]:
    server = Server(store)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """Before a server on the store's database."""
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def _up(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False


def written(store: Path) -> Counter[tuple[str, str, int, int]]:
    """What the journals hold: run's key, metric, time and step."""
    found: Counter[tuple[str, str, int, int]] = Counter()
    for path in store.rglob("journal*.jsonl"):
        key = next(row["key"] for row in rows(path) if row["row"] == "open")
        for row in rows(path):
            if row["row"] == "metrics":
                found.update((key, name, row["t"], row["step"]) for name in row["values"])
    return found


def arrived(store: Path) -> Counter[tuple[str, str, int, int]]:
    """The same, counted in the server's database, in all of its runs."""
    query = (
        "SELECT tags.value, metrics.key, metrics.timestamp, metrics.step FROM metrics "
        "JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'dlsearch.key'"
    )
    with closing(sqlite3.connect(store / "mlflow.db", timeout=30)) as database:
        return Counter(database.execute(query).fetchall())


def active(store: Path) -> Counter[str]:
    """How many runs there are of each key."""
    query = (
        "SELECT tags.value FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'dlsearch.key' "
        "WHERE lifecycle_stage = 'active'"
    )
    with closing(sqlite3.connect(store / "mlflow.db", timeout=30)) as database:
        return Counter(key for (key,) in database.execute(query))


def drain(pump: Pump, timeout: float = 120) -> bool:
    """Send until all is sent; whether a round failed in between."""
    deadline, failed = time.monotonic() + timeout, False
    pump.round(full=True)
    while not pump.idle or pump.failing:
        failed = failed or pump.failing
        pump.round(full=True)
        assert time.monotonic() < deadline, "it never got through"
    return failed


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_whatever_the_server_does(
    store: Path,
    write: Callable[..., Path],
    server: Server,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(module._ENVIRONMENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT_S))
    parent = write("s", trials=2, steps=8, status=None)
    folder = store / "studies/s/t00000"
    (folder / "config.yaml").write_text("a: 1\n")
    with Journal(folder / "journal.a1.jsonl") as journal:
        journal.artifact(folder / "config.yaml", "")
        journal.dataset("digits", "ab" * 32, "train", "scikit-learn")
        journal.tags({"after": "1"})
    pump = Pump(store, Sender(store, proxy.address))

    for mode in ("cut", "500", "404"):  # nothing gets through, and nothing is taken for an answer
        proxy.mode = mode
        assert pump.round(full=True) == 0
        assert pump.failing
    assert arrived(store) == Counter()

    proxy.mode = "lose"  # each kind of request arrives, and its answer does not: it is made again
    drain(pump)
    kinds = {kind.rsplit("/", 1)[-1] for kind in proxy.lost}
    assert {"create", "search", "log-batch", "update", "log-inputs", "config.yaml"} <= kinds, kinds
    assert arrived(store) == written(store)
    assert set(active(store).values()) == {1}

    # what was given up arrives later, when it has been repeated
    proxy.mode, proxy.delay = "pass", 2.0 * TIMEOUT_S
    with Journal(store / "runs/late/journal.jsonl") as journal:
        journal.open("train", "late", EXPERIMENT)
        journal.metrics({"a": 1.0}, 0)
    before = pump.rows
    create = pump.sender.client._tracking_client.store.create_run

    def late(*args: object, **kwargs: object) -> object:
        proxy.mode = "late"
        try:
            return create(*args, **kwargs)
        finally:
            proxy.mode = "pass"

    monkeypatch.setattr(pump.sender.client._tracking_client.store, "create_run", late)
    pump.round(full=True)
    assert pump.failing
    monkeypatch.undo()
    drain(pump)
    assert pump.rows > before
    deadline = time.monotonic() + 60
    while max(active(store).values()) < 2:
        assert time.monotonic() < deadline, "the late request never arrived"
        time.sleep(0.1)
    with Journal(store / "runs/late/journal.jsonl") as journal:
        journal.status("FINISHED")
    drain(pump)
    assert set(active(store).values()) == {1}, "its twin is deleted"

    proxy.mode = "404"  # somebody else's page: the run is not gone
    with Journal(parent) as journal:
        journal.metrics({"best/objective": 0.5}, 1)
        journal.status("FINISHED")
    known = run_id(parent)
    pump.round(full=True)
    assert pump.failing
    proxy.mode, proxy.delay = "slow", 0.5
    drain(pump)
    assert run_id(parent) == known
    assert arrived(store) == written(store)
    assert sum(arrived(store).values()) == 2 * 8 * 2 + 2
    assert set(active(store).values()) == {1}
    assert len(active(store)) == 4

    write("t", trials=3, steps=40)  # killed in the middle of it, and started again
    before, sent = len(active(store)), sum(proxy.seen.values())
    proxy.mode = "pass"
    killer = threading.Thread(
        target=_kill_and_start, args=(server, lambda: sum(proxy.seen.values()) > sent + 5)
    )
    killer.start()
    failed = drain(pump)
    killer.join()
    assert failed, "it was away meanwhile"
    assert arrived(store) == written(store)
    assert set(active(store).values()) == {1}
    assert len(active(store)) == before + 4

    with Journal(parent) as journal:  # two seconds late, each answer
        journal.metrics({"best/objective": 0.75}, 2)
    proxy.mode, proxy.delay, sent = "slow", 2.0, sum(proxy.seen.values())
    started = time.monotonic()
    drain(pump)
    assert time.monotonic() - started >= 2.0 * (sum(proxy.seen.values()) - sent) > 0
    assert arrived(store) == written(store)
    assert set(active(store).values()) == {1}


def _kill_and_start(server: Server, now: Callable[[], bool]) -> None:
    while not now():
        time.sleep(0.002)
    server.kill()
    server.start()
