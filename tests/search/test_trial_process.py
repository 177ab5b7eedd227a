"""A trial's process, told to end at whatever moment."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException

from dlsearch.search import inputs
from dlsearch.search.endings import INTERRUPTED
from dlsearch.search.forkserver import Channel
from dlsearch.search.trial_process import run_trial
from dlsearch.train import fit as fitting


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a trial whose training is `act`; what it sent."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(inputs, "met", lambda _: {})
    ours, theirs = socket.socketpair()

    def run(act):
        monkeypatch.setattr(fitting, "fit", lambda cfg, run: act())
        payload = {
            "cfg": {"tracking": {"system_metrics_s": None}}, "folder": str(tmp_path), "journal": str(tmp_path / "j"),
            "objectives": ["a"], "directions": ["maximize"], "threads": 1, "epochs": None, "params": {}, "origin": {},
        }  # fmt: skip
        run_trial(Channel(theirs), payload)
        return Channel(ours).receive()["result"]

    yield run
    signal.signal(signal.SIGTERM, before)
    ours.close()
    theirs.close()


def test_lightnings_own_end_at_a_sigterm_gives_the_trial_back(run):
    def told():
        signal.raise_signal(signal.SIGTERM)
        raise SIGTERMException

    with pytest.raises(SystemExit) as end:
        run(told)
    assert end.value.code == INTERRUPTED


def test_an_exit_that_nobody_asked_for_is_no_interruption(run):
    def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit) as end:
        run(leave)
    assert end.value.code == 3


def test_memory_that_runs_out_before_the_first_step_is_oom_too(run):
    def build():
        import torch

        torch.empty(1 << 55, dtype=torch.uint8)

    result = run(build)
    assert (result["state"], result["reason"], result["halve"]) == ("failed", "oom", False)
    assert "can't allocate memory" in result["error"]
