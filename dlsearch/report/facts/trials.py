"""Facts of the trials: one row each, their order, and where every one of them is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from dlsearch.report.study import STATES, TrialState

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import (
        Accounting,
        AttemptRow,
        DuplicateRow,
        FailureRow,
        RetriedRow,
        TrialRow,
    )
    from dlsearch.report.study import Attempt, Trial, View


def describe_trial(trial: Trial) -> TrialRow:
    """The row of one trial."""
    return {
        "number": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "error": trial.error,
        "params": trial.params,
        "values": trial.values,
        "standing": trial.standing,
        "scored": trial.scored,
        "intermediate": trial.intermediate,
        "started": trial.started,
        "seconds": trial.seconds,
        "seed": trial.seed,
        "duplicate_of": trial.duplicate_of,
        "default": trial.default,
        "enqueued": trial.enqueued,
        "epochs": trial.epochs,
        "best_epoch": trial.best_epoch,
        "n_params": trial.n_params,
        "summary": trial.summary,
        "attempts": [describe_attempt(attempt) for attempt in trial.attempts],
        "breaches": trial.breaches,
        "state_sha256": trial.state_sha256,
        "seal": trial.seal,
    }


def describe_attempt(attempt: Attempt) -> AttemptRow:
    """The row of one attempt, which has the fields of the attempt."""
    return cast("AttemptRow", asdict(attempt))


def rank_trials(view: View) -> list[Trial]:
    """The trials with a result, the best first; of several objectives, the Pareto front.

    Trials of a front are in the order of the first objective.
    """
    sign = view.objective.sign
    candidates = view.scored
    if view.multi:
        front = set(view.pareto)
        candidates = [trial for trial in candidates if trial.number in front]
    by_number = sorted(candidates, key=lambda trial: trial.number)
    return sorted(by_number, key=lambda trial: -sign * trial.values[0])


def account_for_trials(view: View) -> Accounting:
    """Where every trial that was asked for is."""
    trials = view.trials
    return {
        "asked": view.asked,
        "counts": {state: _count_in_state(trials, state) for state in STATES},
        "not_started": view.asked - len(trials),
        "failed_by_reason": _count_by_reason(trials),
        "failures": _list_failures(trials),
        "retried": _list_retried(trials),
        "duplicates": _list_duplicates(trials),
        "notes": [
            {"number": trial.number, "note": note} for trial in trials for note in trial.notes
        ],
        "attempts": sum(len(trial.attempts) for trial in trials),
    }


def _count_in_state(trials: tuple[Trial, ...], state: TrialState) -> int:
    return sum(trial.state == state for trial in trials)


def _count_by_reason(trials: tuple[Trial, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for trial in trials:
        if trial.state == TrialState.FAILED:
            reason = trial.reason or "unnamed"
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def _list_failures(trials: tuple[Trial, ...]) -> list[FailureRow]:
    return [
        {
            "number": trial.number,
            "reason": trial.reason,
            "error": trial.error,
            "attempts": len(trial.attempts),
            "params": trial.params,
        }
        for trial in trials
        if trial.state == TrialState.FAILED
    ]


def _list_retried(trials: tuple[Trial, ...]) -> list[RetriedRow]:
    return [
        {
            "number": trial.number,
            "state": trial.state,
            "attempts": len(trial.attempts),
            "ends": [attempt.reason or attempt.state for attempt in trial.attempts],
        }
        for trial in trials
        if len(trial.attempts) > 1
    ]


def _list_duplicates(trials: tuple[Trial, ...]) -> list[DuplicateRow]:
    return [
        {"number": trial.number, "of": trial.duplicate_of}
        for trial in trials
        if trial.duplicate_of is not None
    ]
