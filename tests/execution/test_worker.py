"""A worker with many slots: its trials are processes of a real fork server, which only pretend to train."""

from __future__ import annotations

import os
import time

import pytest

from dlsearch.execution.forkserver import ForkServer
from dlsearch.execution.resources.slots import Slot
from dlsearch.execution.worker import Worker
from dlsearch.study.study import Study
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


def serve(study, server, tmp_path):
    slots = [Slot(index, f"cpu:{index}", 1) for index in range(SLOTS)]
    worker = Worker(
        study, store=tmp_path, slots=slots, server=server, revive=lambda: server, paths={}
    )
    assert worker.run()
    return {(a.number, a.attempt): a for a in study.leases.rows()}


@pytest.mark.storm
def test_no_lease_runs_out_while_the_slots_are_filled(study, server, tmp_path, monkeypatch):
    claim = Study.claim

    def slow(*args, **kwargs):  # eight of them take longer than a lease
        time.sleep(CLAIM_S)
        return claim(*args, **kwargs)

    monkeypatch.setattr(Study, "claim", slow)
    assert SLOTS * CLAIM_S > 2 * LEASE_S
    attempts = serve(study, server, tmp_path)
    assert set(attempts) == {(number, 1) for number in range(2 * SLOTS)}
    assert {each.state for each in attempts.values()} == {"complete"}
