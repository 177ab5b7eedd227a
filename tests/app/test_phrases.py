"""What is said of failures, in lines that a terminal shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlsearch.app.phrases import (
    describe_failures,
    describe_missing_result,
    describe_trial_end,
    shorten_cause,
)
from dlsearch.records.failures import FailureGroup, StopRecord
from dlsearch.records.status import Status
from dlsearch.study.states import RecordedTrialState, StudyState


def status(**changes):
    counts = dict.fromkeys(RecordedTrialState, 0) | {RecordedTrialState.FAILED: 3}
    found = Status(
        name="s", state=StudyState.FAILED, failure=None, failures=[], stopped=None, direction="maximize",
        objective="val_acc", n_trials=20, counts=counts, best=None, started=None, seconds=1.0, running=[],
        confirmation=None, winner=None, openings=0, openings_of_test_set=0, test=[],
    )  # fmt: skip
    return replace(found, **changes)


def group(*trials, error="ValueError: bad (my.py:1)"):
    return FailureGroup(list(trials), "exception", error)


@pytest.mark.parametrize("line", [
    f"ValueError: {'x' * 900} (pkg/my.py:12)", "ValueError: " + "y" * 900, "z" * 300 + " (" + "p" * 300 + ":1)",
])  # fmt: skip
def test_a_long_cause_keeps_its_place(line):
    short = shorten_cause(line)
    assert len(short) <= 240
    assert short.startswith(line[:80])
    if "my.py" in line:
        assert short.endswith("… (pkg/my.py:12)")


def test_a_cause_moves_no_cursor():
    assert "\x1b" not in shorten_cause("ValueError: \x1b[2J (my.py:1)")


def test_causes_are_one_line_each():
    several = [group(0, 2, 3), group(1, error="KeyError: 'a' (my.py:9)")]
    assert describe_failures(status(failures=several)) == [
        "3 trials failed: ValueError: bad (my.py:1)",
        "1 trial failed: KeyError: 'a' (my.py:9)",
    ]
    assert describe_failures(status(failures=several[:1])) == [], "the line before says it"
    alive = status(failures=several[:1], state=StudyState.COMPLETE)
    assert describe_failures(alive) == ["3 trials failed: ValueError: bad (my.py:1)"]
    many = status(failures=[group(n, error=f"E{n}") for n in range(8)])
    assert describe_failures(many)[-1] == "3 trials failed otherwise: dlsearch trials s"


def test_a_stop_says_what_to_do():
    stopped = status(stopped=StopRecord(3, "ValueError: bad (my.py:1)"))
    assert describe_missing_result(stopped) == (
        "stopped: the first 3 trials failed alike: ValueError: bad (my.py:1); mend it, and the same command"
        " goes on with 17 more (study.max_identical_failures=0 never stops)"
    )  # fmt: skip


def test_the_cause_stands_on_the_trials_line():
    import optuna

    trial = optuna.create_trial(
        state=optuna.trial.TrialState.FAIL, user_attrs={"reason": "exception"}
    )
    said = describe_trial_end(trial, status(), "ValueError: bad (my.py:1)")
    assert said.endswith("failed    (exception)  ValueError: bad (my.py:1)")
