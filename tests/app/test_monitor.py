"""What a user sees of a confirmation: the lines, the table, and ``status`` alike."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from optuna.trial import TrialState
from rich.console import Console

from dlsearch.app.monitor import Monitor
from dlsearch.app.phrases import describe_winner, format_times, name_configuration
from dlsearch.app.study_run import StudyRun
from dlsearch.app.study_table import study_table
from dlsearch.app.view import TerminalView
from dlsearch.config.progress import ProgressUnit
from dlsearch.confirmation.rounds import Rounds
from dlsearch.records.status import (
    ConfigurationProgress,
    ConfirmationProgress,
    progress_unit_of,
    read_status,
)
from dlsearch.study.states import StudyState
from tests.study.studies import complete, draft, failed, holder, opened


@pytest.fixture
def study(tmp_path):
    """Two trials, of which the second is the default; two seeds each, of which one failed."""
    defaults = {"optimizer.lr": 0.001, "model.dropout": 0.0}
    settings = {"top": 2, "seeds": 2, "racing": True, "refit": False}
    found = opened(
        tmp_path,
        draft(2, default=defaults, defaults=defaults, study={"confirm": settings}),
    )
    yield found
    found.storage.close()


def monitored(study, store, out):
    """A monitor, and what shows its log."""
    view = TerminalView(out)
    monitor = Monitor(study, store, StudyRun(study, store), view, total_slots=2)
    return monitor, monitor.log.shown_in(view)


def shown(status):
    out = io.StringIO()
    Console(file=out, width=120).print(study_table(status, 2))
    return " ".join(out.getvalue().split())


def test_a_confirmation_is_followed_to_its_end(study, tmp_path):
    out = io.StringIO()
    for value in (0.5, 0.9):
        study.finish(study.claim(holder()), complete(value))
    monitor, showing = monitored(study, tmp_path, out)
    with showing:
        follow_confirmation(study, monitor, out)


def follow_confirmation(study, monitor, out):
    rounds = Rounds(study)
    claim = rounds.claim(holder())
    assert "confirm 1 seed 1" in shown(read_status(study))
    assert "confirmation 0/4" in shown(read_status(study))
    study.finish(claim, complete(0.8))
    study.finish(rounds.claim(holder()), failed("nan"))
    for _ in range(2):
        study.finish(rounds.claim(holder()), complete(0.7))
    monitor.follow()
    assert out.getvalue().splitlines() == [
        "confirm trial   1  seed 1/2  complete  0.8000  4/4",
        "confirm trial   0  seed 1/2  failed    4/4",
        "confirm trial   1  seed 2/2  complete  0.7000  4/4",
        "confirm trial   0  seed 2/2  complete  0.7000  4/4",
    ]
    monitor.follow()
    assert len(out.getvalue().splitlines()) == 4, "each is told once"
    claim = rounds.claim(holder())
    assert "test 1" in shown(read_status(study))
    row = study.ledger.opened("confirm", 1, claim.seed)
    each = [{"test/accuracy": 0.7}] * 2
    assert rounds.score(
        claim, {"state": "complete", "test": {"metrics": each[0], "each": each}}, row
    )
    monitor.conclude(interrupted=False)
    said = out.getvalue()
    assert (
        "winner: trial 1, val/accuracy 0.7500 on average over 2 seeds; the default configuration 0.7000\n"
        in said
    )
    assert "test set, opened once for trial 1: test/accuracy 0.7000\n" in said
    text = shown(read_status(study))
    assert "trial 1 2/2 0.7500 won" in text
    assert "trial 0 (default) 1/2 0.7000 1 failed" in text


def test_the_best_in_a_trials_line_is_no_worse_than_the_trial(study, tmp_path, monkeypatch):
    out = io.StringIO()
    monitor, showing = monitored(study, tmp_path, out)
    first, second = study.claim(holder()), study.claim(holder())
    study.finish(first, complete(0.5))

    def in_between(of):
        status = read_status(of)
        if study.counts().get(TrialState.COMPLETE) == 1:
            study.finish(second, complete(0.9))
        return status

    monkeypatch.setattr("dlsearch.app.monitor.read_status", in_between)
    with showing:
        for _ in range(2):
            monitor.follow()
    assert out.getvalue().splitlines() == [
        "trial   0  complete  0.5000    best 0.5000 (trial 0)",
        "trial   1  complete  0.9000    best 0.9000 (trial 1)",
    ]


def test_words():
    assert [format_times(n) for n in (1, 2, 3)] == ["once", "twice", "3 times"]
    assert [name_configuration(n) for n in (None, 4)] == ["the default configuration", "trial 4"]
    winner = ConfigurationProgress(
        trial_number=None,
        default=True,
        done=3,
        failed=0,
        mean=0.5,
        dropped_after=None,
        winner=True,
    )
    assert described(winner) == (
        "the default configuration, val/loss 0.5000 on average over 3 seeds"
    )
    assert described(replace(winner, done=1)).endswith("on average over 1 seed")


def described(winner):
    """A confirmation of one finalist, in words."""
    confirmation = ConfirmationProgress(
        round=1,
        state=StudyState.RUNNING,
        done=winner.done,
        planned=3,
        seeds=3,
        scoring_error=None,
        configurations=[winner],
        replicas=[],
    )
    return describe_winner(confirmation, "val/loss")


def test_the_table_counts_in_the_unit_of_the_task(study):
    study.claim(holder())
    status = read_status(study)
    assert "trial epoch val/accuracy" in shown(status)
    assert "trial step val/accuracy" in shown(replace(status, progress_unit=ProgressUnit.STEP))
    assert progress_unit_of({"progress_unit": "step"}) is ProgressUnit.STEP
    assert progress_unit_of({}) is ProgressUnit.EPOCH
