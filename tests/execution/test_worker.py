"""A worker with many slots: its trials are processes of a real fork server, which only pretend to train.

The study lives in memory, but for one test: a worker knows it by its client alone.
"""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from dlsearch.execution.clients.in_memory import InMemoryClient
from dlsearch.execution.clients.in_memory_files import InMemoryFiles
from dlsearch.execution.processes.forkserver import ForkServer
from dlsearch.execution.processes.warm_server import WarmServer
from dlsearch.execution.resources.slots import Slot
from dlsearch.execution.worker import Worker, WorkerSettings
from dlsearch.planning.open_study import document_of
from dlsearch.storage.availability import ConnectionLostError
from dlsearch.study.states import AttemptState, FailureReason, RecordedTrialState
from dlsearch.study.study import Study
from dlsearch.tracking.journal import rows
from tests.execution.workers import worker_of_study
from tests.study.studies import draft, opened

TRIALS = """
import time
from pathlib import Path

def run_trial(channel, payload):
    while len(list(Path(payload["folder"]).parent.glob("t*"))) < 8:
        time.sleep(0.02)
    for epoch in range(2):
        channel.send({"type": "report", "epoch": epoch, "step": epoch, "metrics": {"val/accuracy": 0.5}})
        channel.receive()
    result = {"state": "complete", "reason": None, "error": None, "values": [0.5], "epochs": 2, "summary": {}}
    channel.send({"type": "done", "result": result})
"""
SLOTS, LEASE_S, CLAIM_S = 8, 1.0, 0.4


class PretendServer(ForkServer):
    """Forks the trials of this file in place of the real ones."""

    def spawn(self, target, payload, *, env, log):
        assert target == "dlsearch.execution.trial_main:run_trial"
        return super().spawn("trials:run_trial", payload, env=env, log=log)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "trials.py").write_text(TRIALS)
    server = PretendServer.start(
        ["trials"], env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    )
    yield server
    server.stop()


@pytest.fixture
def study(tmp_path):
    study = opened(tmp_path, draft(2 * SLOTS, study={"finalize": False}), lease_s=LEASE_S)
    yield study
    study.storage.close()


def slots(count=SLOTS):
    return [Slot(index, f"cpu:{index}", 1) for index in range(count)]


def document(n_trials):
    given = draft(n_trials, study={"finalize": False})
    return document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})


def worker_in_memory(client, server, folder, *, count=SLOTS):
    files = InMemoryFiles(client.given, folder)
    servers = WarmServer(lambda: server, server)
    return Worker(client, files, slots(count), servers, settings=WorkerSettings())


class Memory(InMemoryClient):
    """A study in memory, of so many trials."""

    def __init__(self, n_trials, *, lease_s=30.0):
        self.given = document(n_trials)
        super().__init__(self.given, lease_s=lease_s)


class SlowMemory(Memory):
    """One whose sampler takes its time."""

    def claim(self, request, watcher=None):
        time.sleep(CLAIM_S)
        return super().claim(request, watcher)


class LosingMemory(Memory):
    """One that goes away while it is claimed from: it has the attempt, and its answer is lost."""

    def __init__(self, n_trials):
        super().__init__(n_trials)
        self.is_away = threading.Event()
        self.lost = set()

    def claim(self, request, watcher=None):
        self.lost.add(super().claim(request, watcher).token)
        self.is_away.set()
        raise ConnectionLostError

    def unconfirmed(self):
        return set(self.lost)

    def _reach(self):
        if self.is_away.is_set():
            raise ConnectionLostError

    def forget_unconfirmed(self, tokens):
        self._reach()
        super().forget_unconfirmed(tokens)

    def release(self, claim, *args, **kwargs):
        self._reach()
        return super().release(claim, *args, **kwargs)

    def live_attempts(self):
        self._reach()
        return super().live_attempts()

    def is_overdue(self):
        self._reach()
        return super().is_overdue()


class LateMemory(LosingMemory):
    """One that goes away when it has answered a claim that nobody wants any more."""

    def __init__(self, n_trials):
        super().__init__(n_trials)
        self.is_left = threading.Event()

    def claim(self, request, watcher=None):
        claim = Memory.claim(self, request, watcher)
        self.is_left.wait(60)
        self.is_away.set()
        return claim

    def unconfirmed(self):
        return set()


def kept(folder):
    return [json.loads(path.read_text()) for path in folder.glob("studies/s/unwritten/*.json")]


def stop_when(condition, worker):
    """Stop a worker, from another thread, once something is so."""

    def wait():
        assert condition()
        worker.stop()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_study_in_memory_is_served_to_its_end(server, tmp_path):
    client = Memory(2 * SLOTS)
    worker = worker_in_memory(client, server, tmp_path)
    assert worker.run()
    assert client.status().counts == {RecordedTrialState.COMPLETE: 2 * SLOTS}
    assert sorted(worker.service.files.ended) == list(range(2 * SLOTS))
    for number in range(2 * SLOTS):
        folder = tmp_path / f"studies/s/t{number:05d}"
        found = list(rows(folder / "journal.a1.jsonl"))
        assert [row["status"] for row in found if row["row"] == "status"] == ["FINISHED"]
        assert (folder / "config.yaml").is_file()


def test_a_stop_in_an_outage_keeps_a_claim_of_which_nothing_was_heard(server, tmp_path):
    client = LosingMemory(2)
    worker = worker_in_memory(client, server, tmp_path, count=1)
    stopping = stop_when(lambda: client.is_away.wait(60), worker)
    assert worker.run() is False
    stopping.join()
    assert client.lost
    assert {each["opened"] for each in kept(tmp_path)} == client.lost

    client.is_away.clear()
    worker.service.pending.write_kept(client)
    assert not kept(tmp_path)
    assert client.attempts() == [], "none was made at it"
    assert client.status().counts == {RecordedTrialState.WAITING: len(client.lost)}


def test_a_stop_in_an_outage_keeps_a_claim_that_came_too_late(server, tmp_path):
    client = LateMemory(2)
    worker = worker_in_memory(client, server, tmp_path, count=1)

    def is_claiming():
        while not client._live:
            time.sleep(0.01)
        return True

    stopping = stop_when(is_claiming, worker)
    leaving = threading.Timer(1.0, client.is_left.set)
    leaving.start()
    assert worker.run() is False
    stopping.join()
    leaving.join()
    (end,) = kept(tmp_path)
    assert end["end"]["state"] == "interrupted"

    client.is_away.clear()
    worker.service.pending.write_kept(client)
    assert not kept(tmp_path)
    ends = [(each.state, each.reason) for each in client.attempts()]
    assert ends == [(AttemptState.INTERRUPTED, FailureReason.INTERRUPTED)]


@pytest.mark.storm
def test_no_lease_in_memory_runs_out_while_the_slots_are_filled(server, tmp_path):
    assert SLOTS * CLAIM_S > 2 * LEASE_S
    client = SlowMemory(2 * SLOTS, lease_s=LEASE_S)
    assert worker_in_memory(client, server, tmp_path).run()
    attempts = {(each.number, each.attempt): each.state for each in client.attempts()}
    assert attempts == {(number, 1): AttemptState.COMPLETE for number in range(2 * SLOTS)}


@pytest.mark.storm
def test_no_lease_runs_out_while_the_slots_are_filled(study, server, tmp_path, monkeypatch):
    claim = Study.claim

    def slow(*args, **kwargs):  # eight of them take longer than a lease
        time.sleep(CLAIM_S)
        return claim(*args, **kwargs)

    monkeypatch.setattr(Study, "claim", slow)
    assert SLOTS * CLAIM_S > 2 * LEASE_S
    assert worker_of_study(study, tmp_path, slots(), server).run()
    attempts = {(a.number, a.attempt): a for a in study.leases.rows()}
    assert set(attempts) == {(number, 1) for number in range(2 * SLOTS)}
    assert {each.state for each in attempts.values()} == {"complete"}
