"""One study of a comparison: its winner, what confirmed it, and what it cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from dlsearch.config.progress import ProgressUnit
from dlsearch.report.facts import statistics
from dlsearch.report.facts.intervals import estimate_mean, wilson
from dlsearch.report.progress import progress_unit
from dlsearch.report.study import TrialState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlsearch.report.compare.models import (
        BestTrial,
        ComparedStudy,
        ConfirmedMean,
        MeanInterval,
        SpentBudget,
        TestAccuracy,
        TrialCounts,
    )
    from dlsearch.report.study import Trial, View

SECONDS_PER_HOUR = 3600
_ACCURACY = "test/accuracy"


def describe_study(record: Mapping[str, Any], v: View) -> ComparedStudy:
    """What a comparison says of one study."""
    sampler = v.study.get("sampler") or {}
    maximize = v.objectives[0].maximize
    independent = statistics.independent(sampler, len(v.trials))
    scores = _scores_paid_for(v)
    device_seconds = _device_seconds(v)
    expected = []
    if independent and len(scores) > 1:
        expected = statistics.expected_best(scores, maximize)
    described: ComparedStudy = {
        "name": v.study["name"],
        "state": v.study.get("state"),
        "seed": v.study.get("seed"),
        "sampler": _class_name(sampler) or "not recorded",
        "pruner": _class_name(v.study.get("pruner") or {}) or "none",
        "independent": independent,
        "n_params": _parameter_count(v),
        "trials": _trial_counts(v),
        "best": _best_of(v.winner),
        "winner": dict((record.get("winner") or {}).get("params") or {}),
        "default": _first_value(v.default),
        "confirmed": _confirmed_mean(record),
        "test": _test_accuracy(v),
        "budget": _spent_budget(record, v, device_seconds),
        "best_so_far": statistics.best_so_far(v.trials, maximize),
        "expected_best": expected,
        "seconds_a_trial": device_seconds / len(scores) if scores else None,
    }
    unit = progress_unit(v.study)
    if unit is not ProgressUnit.EPOCH:
        described["progress_unit"] = unit
    return described


def _scores_paid_for(v: View) -> list[float]:
    """The scores of trials that were not cut short by a failure; a pruned one has its last."""
    ended = [t for t in v.trials if t.state in ("complete", "pruned") and t.feasible]
    return [trial.standing for trial in ended if trial.standing is not None]


def _device_seconds(v: View) -> float:
    attempts = [attempt for trial in v.trials for attempt in trial.attempts]
    return math.fsum(attempt.seconds or 0.0 for attempt in attempts)


def _class_name(config: Mapping[str, Any]) -> str:
    """The name of the class that a config names; empty where it names none."""
    target = str(config.get("_target_") or "")
    return target.rsplit(".", 1)[-1]


def _parameter_count(v: View) -> int | None:
    """Of the winner, else of the study's default model."""
    if v.winner is not None and v.winner.n_params:
        return v.winner.n_params
    count: int | None = (v.study.get("model") or {}).get("n_params")
    return count


def _trial_counts(v: View) -> TrialCounts:
    states = [trial.state for trial in v.trials]
    return {
        "run": len(states),
        "asked": v.asked,
        "complete": states.count(TrialState.COMPLETE),
        "pruned": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAILED),
    }


def _best_of(winner: Trial | None) -> BestTrial | None:
    if winner is None:
        return None
    return {
        "number": winner.number,
        "value": winner.values[0],
        "params": winner.params,
    }


def _first_value(trial: Trial | None) -> float | None:
    return trial.values[0] if trial is not None and trial.values else None


def _spent_budget(record: Mapping[str, Any], v: View, device_seconds: float) -> SpentBudget:
    replicas = _replicas_of(record)
    refit = (record.get("finalization") or {}).get("refit_run") or {}
    wall_seconds = v.study.get("seconds")
    return {
        "epochs": sum(trial.epochs or len(trial.intermediate) for trial in v.trials),
        "confirm_epochs": sum(replica.get("epochs") or 0 for replica in replicas),
        "device_hours": device_seconds / SECONDS_PER_HOUR,
        "confirm_device_hours": _total_seconds([*replicas, refit]) / SECONDS_PER_HOUR,
        "wall_hours": float(wall_seconds) / SECONDS_PER_HOUR if wall_seconds else None,
    }


def _replicas_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The trainings of all finalists."""
    replicas: list[Mapping[str, Any]] = []
    for configuration in _configurations(record):
        replicas += configuration.get("replicas") or []
    return replicas


def _total_seconds(runs: Sequence[Mapping[str, Any]]) -> float:
    return math.fsum(run.get("seconds") or 0.0 for run in runs)


def _configurations(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The finalists of the last round of confirmation."""
    return (record.get("finalization") or {}).get("configurations") or []


def _confirmed_mean(record: Mapping[str, Any]) -> ConfirmedMean | None:
    """The winner's trainings on fresh seeds; None where there are none."""
    winner = next((c for c in _configurations(record) if c.get("winner")), None)
    if winner is None:
        return None
    completed = [replica for replica in winner.get("replicas") or [] if _has_score(replica)]
    if not completed:
        return None
    values = [float(replica["value"]) for replica in completed]
    confirmed = {
        "trial_number": winner.get("trial_number"),
        "default": bool(winner.get("default")),
        "seeds": [replica["seed"] for replica in completed],
        "values": values,
        **estimate_mean(values),
    }
    return cast("ConfirmedMean", confirmed)


def _has_score(replica: Mapping[str, Any]) -> bool:
    value = replica.get("value")
    if replica.get("state") != "complete" or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _test_accuracy(v: View) -> TestAccuracy | None:
    """Accuracy of the kept model, as the ledger's last confirmation has it."""
    rows = [row for row in v.test if row.get("kind") == "confirm"]
    if not rows:
        return None
    row = rows[-1]
    n = int(row.get("n") or 0)
    accuracy = (row.get("metrics") or {}).get(_ACCURACY)
    if not n or accuracy is None:
        return None
    right = _count_right(row, n, accuracy)
    return {
        "n": n,
        "right": right,
        "accuracy": right / n,
        "wilson": list(wilson(right, n)),
        "replicas": _accuracy_over_seeds(row),
        "opened": len(v.test),
        "wrong": _all_errors(row, n - right),
    }


def _count_right(row: Mapping[str, Any], n: int, accuracy: float) -> int:
    confusion = row.get("confusion") or []
    if not confusion:
        return round(accuracy * n)
    return sum(counts[label] for label, counts in enumerate(confusion))


def _accuracy_over_seeds(row: Mapping[str, Any]) -> MeanInterval | None:
    metrics = [replica["metrics"] for replica in row.get("replicas") or []]
    accuracies = [metric[_ACCURACY] for metric in metrics if _ACCURACY in metric]
    if not accuracies:
        return None
    return cast("MeanInterval", estimate_mean(accuracies))


def _all_errors(row: Mapping[str, Any], count: int) -> list[int] | None:
    """The examples that were wrong, where the record has all.

    It keeps the most confident errors; where these are all, it is known which examples were right.
    """
    errors = [error["index"] for error in row.get("errors") or []]
    return sorted(errors) if len(set(errors)) == count else None
