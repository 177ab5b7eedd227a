"""A real tracking server behind a proxy that fails in every way: in the end each row is there, once."""

from __future__ import annotations

import http.client
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dlsearch.tracking import sender as module
from dlsearch.tracking import ui
from dlsearch.tracking.journal import Journal, rows, run_id
from dlsearch.tracking.pump import Pump
from dlsearch.tracking.sender import Sender
from tests.tracking.conftest import EXPERIMENT
from tests.tracking.proxy import Proxy

TIMEOUT_S = 4


@pytest.fixture
def proxy(store: Path) -> Iterator[Proxy]:
    """Before a server on the store's database."""
    port = ui.free_port(0)
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{store / 'mlflow.db'}",
        "--artifacts-destination",
        str(store / "art"),
    ]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONDONTWRITEBYTECODE": ""}
    log = (store / "server.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    proxy = Proxy(port)
    try:
        deadline = time.monotonic() + 120
        while not _up(port):
            assert process.poll() is None, (store / "server.log").read_text()
            assert time.monotonic() < deadline, (store / "server.log").read_text()
            time.sleep(0.1)
        yield proxy
    finally:
        proxy.close()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        log.close()


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


def drain(pump: Pump, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    pump.round(full=True)
    while not pump.idle or pump.failing:
        pump.round(full=True)
        assert time.monotonic() < deadline, "it never got through"


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_whatever_the_server_does(
    store: Path, write: Callable[..., Path], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
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

    proxy.mode, proxy.delay = "pass", 2.0 * TIMEOUT_S  # what was given up arrives later, when it has been repeated
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
