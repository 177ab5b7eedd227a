"""The harness of the corpus sees what it is there to see: a corpus that cannot fail would say nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.security.foreign import misdeeds
from tests.security.foreign.box import Box, changes
from tests.security.foreign.checking import faults
from tests.security.foreign.inputs.base import Input
from tests.security.foreign.runner import Outcome, Runner

_KINDS = {
    "reads": "read",
    "writes": "write",
    "deletes": "delete",
    "executes": "execute",
    "unpickles": "unpickle",
    "connects": "connect",
    "looks": "connect",
    "sets": "environment",
}
_LIMITED = ("hangs", "spins", "eats")
_ACTS = [name for name in vars(misdeeds) if name.split("_")[0] in _KINDS]


def _do(runner: Runner, name: str, **limits: Any) -> Outcome:
    runner.box.renew(runner.good)
    return runner.run([], call=f"{misdeeds.__name__}:{name}", **limits)


@pytest.mark.storm
@pytest.mark.parametrize("name", _ACTS)
def test_a_misdeed_is_seen(name: str, runner: Runner) -> None:
    outcome = _do(runner, name)
    assert _KINDS[name.split("_")[0]] in outcome.what(), (outcome.acts, outcome.err)


def test_there_are_misdeeds_of_every_kind() -> None:
    assert {_KINDS[name.split("_")[0]] for name in _ACTS} == set(_KINDS.values())
    assert len(_ACTS) > 30


@pytest.mark.storm
@pytest.mark.parametrize("name", ["hangs", "spins", "hangs_in_a_fork"])
def test_what_takes_too_long_is_ended(name: str, runner: Runner) -> None:
    outcome = _do(runner, name, seconds=0.5)
    assert outcome.killed == "time"
    assert not _do(runner, "nothing").left


@pytest.mark.storm
@pytest.mark.parametrize("name", ["eats_memory", "eats_memory_in_forks"])
def test_what_takes_too_much_is_ended(name: str, runner: Runner) -> None:
    outcome = _do(runner, name, memory_mb=200.0, seconds=20.0)
    assert outcome.killed == "memory"
    assert outcome.memory_mb > 200.0


@pytest.mark.storm
def test_what_may_be_done_is_no_misdeed(runner: Runner) -> None:
    outcome = _do(runner, "nothing")
    assert (outcome.code, outcome.acts, outcome.killed, outcome.left) == (0, [], None, 0), outcome
    assert outcome.memory_mb < 100.0


@pytest.mark.storm
def test_a_child_begins_with_nothing_of_an_earlier_one(runner: Runner) -> None:
    _do(runner, "sets_the_environment")
    assert not _do(runner, "nothing").acts
    assert not (runner.box.outside / "ran").exists()


def test_what_differs_afterwards_is_told(tmp_path: Any) -> None:
    box = Box(tmp_path)
    box.furnish()
    before = box.state(["work/mlruns"])
    (box.outside / "victim.txt").write_text("other")
    (box.work / "private.txt").unlink()
    (box.home / "new").mkdir()
    (box.store / "x").write_text("the store is no outside")
    found = {(each["what"], each["detail"]) for each in changes(before, box.state(["work/mlruns"]))}
    assert found == {
        ("write", "outside/victim.txt"),
        ("delete", "work/private.txt"),
        ("write", "home/new"),
    }


_REFUSED = Outcome(2, "", "dlsearch: x: is wrong\n", [], 0.5, 10.0, None, 0)
_INPUT = Input("x", 1, "record", ("status", "good"), lambda box: None)


def test_a_refusal_in_one_line_has_no_fault() -> None:
    assert faults(_INPUT, _REFUSED) == []
    assert faults(replace(_INPUT, harmless=True), replace(_REFUSED, code=0, err="")) == []


@pytest.mark.parametrize(
    "other",
    [
        {"code": 0},
        {"code": 1},
        {"err": ""},
        {"err": "x\n"},
        {"err": "dlsearch: a\nb\n"},
        {"err": "note\ndlsearch: a\n"},
        {"err": "dlsearch: \x1b[2J\n"},
        {"out": "\x1b[2J"},
        {"out": "\u202e"},
        {"err": "Traceback (most recent call last)\n"},
        {"killed": "time"},
        {"killed": "memory"},
        {"seconds": 11.0},
        {"memory_mb": 1100.0},
        {"err": f"dlsearch: {'x' * 2000}\n"},
        {"acts": [{"what": "read", "event": "open", "detail": "x", "at": ""}]},
    ],
    ids=repr,
)
def test_a_fault_is_named(other: dict[str, Any]) -> None:
    assert faults(_INPUT, replace(_REFUSED, **other))


@pytest.mark.parametrize(
    "other", [{"code": 2}, {"code": 1}, {"out": "\x07"}, {"killed": "time"}], ids=repr
)
def test_a_fault_of_what_is_harmless_is_named(other: dict[str, Any]) -> None:
    given = replace(_INPUT, harmless=True, says="good")
    fine = replace(_REFUSED, code=0, err="", out="good")
    assert faults(given, fine) == []
    assert faults(given, replace(fine, out=""))
    assert faults(given, replace(fine, **other))
