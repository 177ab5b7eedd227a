"""A trial's process, told to end at whatever moment."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException

from dlsearch.execution.outcome import INTERRUPTED
from dlsearch.execution.processes.forkserver import Channel
from dlsearch.execution.trial_main import run_trial
from dlsearch.training import fit as fitting
from dlsearch.training import inputs


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a trial whose training is `act`; what it sent."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
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
    for number, handler in before.items():
        signal.signal(number, handler)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_lightnings_own_end_at_a_sigterm_gives_the_trial_back(run, number):
    def told():
        signal.raise_signal(number)
        raise SIGTERMException

    with pytest.raises(SystemExit) as end:
        run(told)
    assert end.value.code == INTERRUPTED


@pytest.mark.parametrize(("codes", "said"), [
    ([0], "0"), ([1], "1"), ([3], "3"), ([INTERRUPTED], "75"), (["text\nmore"], "text"), ([], None),
])  # fmt: skip
def test_an_exit_that_nobody_asked_for_is_a_failure_of_the_code_that_called_it(
    run, tmp_path, codes, said
):
    def leave():
        sys.exit(*codes)

    result = run(leave)
    line = "SystemExit" if said is None else f"SystemExit: {said}"
    assert (result["state"], result["reason"]) == ("failed", "exception")
    assert result["error"].startswith(f"{line} (")  # and where
    assert "sys.exit(*codes)" in (tmp_path / "error" / "traceback.txt").read_text()


def test_an_exit_after_the_worker_told_it_to_stop_is_an_interruption(run):
    def told():
        signal.raise_signal(signal.SIGTERM)
        sys.exit(3)

    with pytest.raises(SystemExit) as end:
        run(told)
    assert end.value.code == INTERRUPTED


def test_memory_that_runs_out_before_the_first_step_is_oom_too(run):
    def build():
        import torch

        torch.empty(1 << 55, dtype=torch.uint8)

    result = run(build)
    assert (result["state"], result["reason"], result["halve"]) == ("failed", "oom", False)
    assert "can't allocate memory" in result["error"]


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class MuteRuntime(RuntimeError):
    """What is looked at for words like "out of memory"."""

    def __str__(self):
        raise TypeError("no text")


class Numeric(Exception):
    def __str__(self):
        return 3


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\ud800"), "ValueError: \\ud800"),
        (ValueError("a\0b"), "ValueError: a\\x00b"),
        (ValueError("x" * 50_000_000), "… [50,000,000 characters]"),
        (Mute(), "Mute: (its text cannot be made)"),
        (MuteRuntime(), "MuteRuntime: (its text cannot be made)"),
        (Numeric(), "Numeric: (its text cannot be made)"),
    ],
    ids=["surrogate", "nul", "huge", "raises", "raises-as-runtime-error", "no-text"],
)
def test_any_exception_of_a_training_is_a_failure_with_a_line_and_a_traceback(
    run, tmp_path, error, line
):
    def fails():
        raise error

    result = run(fails)
    assert (result["state"], result["reason"]) == ("failed", "exception")
    assert line in result["error"]
    assert len(result["error"]) < 5000
    written = (tmp_path / "error/traceback.txt").read_text(encoding="utf-8")
    assert "fails" in written
    assert len(written) < 2_000_000


def test_a_result_that_json_does_not_know_is_sent_as_text(run):
    """Data modules describe themselves, and tasks report about the test set, with whatever they like."""
    from dlsearch.training.run import FitResult

    result = run(
        lambda: FitResult(
            "complete", values=[0.5], split_sha256={"train": b"\0", "v\ud800": {1, 2}}
        )
    )
    assert (result["state"], result["values"]) == ("complete", [0.5])
    assert result["split_sha256"] == {"train": "b'\\x00'", "v\\ud800": "{1, 2}"}


def test_a_breach_that_was_half_written_costs_no_trial(run, tmp_path):
    from dlsearch.training.run import FitResult
    from dlsearch.training.test_guard import FILE

    (tmp_path / FILE).write_text('{"how": "open", "what": "test", "stopped": true}\n{"how": "op')
    result = run(lambda: FitResult("complete", values=[0.5]))
    assert [breach["what"] for breach in result["breaches"]] == ["test"]


def test_a_failure_says_where_in_the_users_code_it_is(run):
    def fails():
        raise ValueError("here")

    line = fails.__code__.co_firstlineno + 1
    assert run(fails)["error"].endswith(f"(tests/execution/test_trial_main.py:{line})")


def test_a_failure_within_a_library_is_where_the_user_called_it(run):
    def fails():
        import json

        json.loads("{")

    line = fails.__code__.co_firstlineno + 3
    assert run(fails)["error"].endswith(f"(tests/execution/test_trial_main.py:{line})")
