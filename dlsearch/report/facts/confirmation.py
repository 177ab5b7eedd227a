"""Facts of the confirmation: finalists over fresh seeds, the better one, the search's optimism."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlsearch.confirmation.racing import weigh_dropped
from dlsearch.report.facts.contents import (
    BandRow,
    Comparison,
    Confirmation,
    Ends,
    FinalistRow,
    GapRow,
    Optimism,
    ReplicaRow,
    find_winner,
)
from dlsearch.report.facts.intervals import compare_pairs, estimate_mean, quote_interval
from dlsearch.report.facts.trials import describe_attempt
from dlsearch.report.progress import training_limit
from dlsearch.study.models import Finalist as RacedFinalist

if TYPE_CHECKING:
    from dlsearch.report.study import Finalist, Finalization, Replica, Score, View

#: How the probabilities of the report are computed, in its own words.
PROBABILITY = (
    "posterior probability of a mean paired difference above zero, reference prior, normal"
    " differences (one minus the p value of the one-sided paired t test)"
)

# Where a summary holds a metric of training and validation, the best epoch before the last one.
_SUMMARY_PREFIXES = ("best/", "", "final/")


def describe_confirmation(view: View) -> Confirmation | None:
    """What the last round of confirmation found; None where there was none."""
    final = view.finalization
    if final is None:
        return None
    finalists = final.configurations
    limit = training_limit(view.study)
    rows = [_describe_finalist(each, final, view.objective.sign, limit) for each in finalists]
    _note_chances(rows, final, view.objective.maximize)
    winner = _find_place([finalist.winner for finalist in finalists])
    default = _find_place([finalist.default for finalist in finalists])
    runner_up = _find_runner_up(rows, winner, view.objective.sign)
    comparisons = _compare_winner(finalists, winner, view.objective.maximize)
    return {
        "round": final.round,
        "rounds": final.rounds,
        "state": final.state,
        "top": final.top,
        "racing": final.racing,
        "refit": final.refit,
        "seeds": final.seeds,
        "finalists": rows,
        "winner": winner,
        "runner_up": runner_up,
        "default": default,
        "against_default": _find_comparison(comparisons, default),
        "against_runner_up": _find_comparison(comparisons, runner_up),
        "comparisons": comparisons,
        "probability_method": PROBABILITY,
        "kept": final.kept,
        "checkpoint": final.checkpoint,
        "scoring_error": final.scoring_error,
        "device_seconds": _sum_seconds(finalists),
    }


def measure_gap(summaries: Iterable[Mapping[str, float]]) -> list[GapRow]:
    """Training against validation at the best epoch, else at the last.

    Each metric is the mean over the trainings that logged both.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    for summary in summaries:
        for name in sorted({key.rsplit("/", 1)[-1] for key in summary}):
            pair = _find_pair(summary, name)
            if pair is not None:
                pairs.setdefault(name, []).append(pair)
    return [_describe_gap(name, pairs[name]) for name in sorted(pairs)]


def measure_optimism(view: View, confirmation: Confirmation | None) -> Optimism | None:
    """The best score that the search saw against the mean over fresh seeds."""
    winner = find_winner(confirmation)
    if confirmation is None or winner is None or view.best is None or winner["mean"] is None:
        return None
    sign = view.objective.sign
    best = view.best.values[0]
    finalists = confirmation["finalists"]
    drops = [finalist["optimism"] for finalist in finalists]
    quoted = quote_interval(winner)
    return {
        "best": best,
        "number": view.best.number,
        "mean": winner["mean"],
        "interval": None if quoted is None else quoted.ends,
        "drop": sign * (best - winner["mean"]),
        "of_best": _drop_of_best(finalists, view.best.number, best, sign),
        "drops": [drop for drop in drops if drop is not None],
    }


def _drop_of_best(
    finalists: Iterable[FinalistRow],
    number: int,
    best: float,
    sign: int,
) -> float | None:
    """What the trial that scored best in the search lost, where it was a finalist."""
    for finalist in finalists:
        if finalist["trial_number"] == number:
            mean = finalist["mean"]
            return None if mean is None else sign * (best - mean)
    return None


def _find_place(flags: Sequence[bool]) -> int | None:
    return flags.index(True) if True in flags else None


def _sum_seconds(finalists: Iterable[Finalist]) -> float | None:
    replicas = [replica for finalist in finalists for replica in finalist.replicas]
    known = [replica.seconds for replica in replicas if replica.seconds is not None]
    return sum(known) if known else None


# -- a finalist -----------------------------------------------------------------------------------


def _describe_finalist(
    finalist: Finalist,
    final: Finalization,
    sign: int,
    limit: Any,
) -> FinalistRow:
    completed = finalist.completed
    estimate = estimate_mean(finalist.values)
    mean = estimate["mean"]
    optimism = None
    if finalist.search_value is not None and mean is not None:
        optimism = sign * (finalist.search_value - mean)
    return {
        **estimate,
        "name": _name_finalist(finalist),
        "arm": None,
        "trial_number": finalist.trial_number,
        "default": finalist.default,
        "winner": finalist.winner,
        "params": finalist.params,
        "search_value": finalist.search_value,
        "dropped_after": finalist.dropped_after,
        "chance": None,
        "failed": finalist.failures,
        "all_seeds": len(finalist.values) == len(final.seeds),
        "optimism": optimism,
        "replicas": [_describe_replica(replica) for replica in finalist.replicas],
        "band": _measure_band([replica.intermediate for replica in completed]),
        "ends": _describe_ends(completed, limit),
        "gap": measure_gap([replica.summary for replica in completed]),
    }


def _note_chances(rows: Sequence[FinalistRow], final: Finalization, maximize: bool) -> None:
    """Note in the rows what chance racing gave each finalist that it dropped."""
    if not final.racing:
        return
    field = [
        RacedFinalist(each.trial_number, each.default, each.params, each.search_value)
        for each in final.configurations
    ]
    known: list[dict[int, float | None]] = []
    for each in final.configurations:
        over = [replica for replica in each.replicas if replica.value is not None or replica.failed]
        known.append({replica.replica: replica.value for replica in over})
    found = weigh_dropped(field, known, len(final.seeds), maximize=maximize, rule=final.rule)
    for place, (seeds, chance) in found.items():
        if rows[place]["dropped_after"] == seeds:
            rows[place]["chance"] = chance


def _name_finalist(finalist: Finalist) -> str:
    """What a finalist is called: ``trial 17``, ``the default configuration``."""
    number = finalist.trial_number
    if finalist.default:
        addition = "" if number is None else f" (trial {number})"
        return f"the default configuration{addition}"
    return "a configuration of no trial" if number is None else f"trial {number}"


def _describe_replica(replica: Replica) -> ReplicaRow:
    return {
        "replica": replica.replica,
        "seed": replica.seed,
        "state": replica.state,
        "reason": replica.reason,
        "value": replica.value,
        "epochs": replica.epochs,
        "best_epoch": replica.best_epoch,
        "seconds": replica.seconds,
        "intermediate": replica.intermediate,
        "summary": replica.summary,
        "state_sha256": replica.state_sha256,
        "attempts": [describe_attempt(attempt) for attempt in replica.attempts],
        "breaches": replica.breaches,
    }


def _describe_ends(completed: Sequence[Replica], limit: Any) -> Ends | None:
    """Medians over the seeds of the best epoch and of the number of epochs, or of their unit."""
    best = [replica.best_epoch for replica in completed if replica.best_epoch is not None]
    epochs = [replica.epochs for replica in completed if replica.epochs is not None]
    if not best or not epochs:
        return None
    return {
        "best": statistics.median(best),
        "epochs": statistics.median(epochs),
        "limit": limit,
    }


def _measure_band(curves: Iterable[Sequence[Score]]) -> list[BandRow]:
    """Per epoch, over the replicas that reached it: least, mean and most.

    Replicas that stopped early are no longer in the later epochs, so that the mean may jump where
    one stops.
    """
    values_at: dict[int, list[float]] = {}
    for curve in curves:
        for epoch, value in curve:
            values_at.setdefault(epoch, []).append(value)
    return [_describe_epoch(epoch, values_at[epoch]) for epoch in sorted(values_at)]


def _describe_epoch(epoch: int, values: Sequence[float]) -> BandRow:
    return BandRow(
        epoch=epoch,
        n=len(values),
        least=min(values),
        mean=_mean_of(values),
        most=max(values),
    )


def _mean_of(values: Sequence[float]) -> float:
    """The mean, which does not depend on the order of the values."""
    return sum(sorted(values)) / len(values)


def _find_pair(summary: Mapping[str, float], name: str) -> tuple[float, float] | None:
    """A metric of training and of validation, from the same epoch."""
    for prefix in _SUMMARY_PREFIXES:
        train = summary.get(f"{prefix}train/{name}")
        validation = summary.get(f"{prefix}val/{name}")
        if train is not None and validation is not None:
            return train, validation
    return None


def _describe_gap(name: str, pairs: Sequence[tuple[float, float]]) -> GapRow:
    train = _mean_of([train for train, _ in pairs])
    validation = _mean_of([validation for _, validation in pairs])
    return {
        "metric": name,
        "n": len(pairs),
        "train": train,
        "val": validation,
        "gap": train - validation,
    }


# -- comparisons ----------------------------------------------------------------------------------


def _find_runner_up(rows: Sequence[FinalistRow], winner: int | None, sign: int) -> int | None:
    """The best of the others: among those with the most seeds, the one with the best mean."""
    best: int | None = None
    best_rank = (0, -math.inf)
    for place, row in enumerate(rows):
        mean = row["mean"]
        if place == winner or mean is None:
            continue
        rank = (row["n"], sign * mean)
        if rank > best_rank:
            best = place
            best_rank = rank
    return best


def _compare_winner(
    finalists: Sequence[Finalist],
    winner: int | None,
    maximize: bool,
) -> list[Comparison]:
    """The winner against each other finalist, over the seeds that both completed."""
    if winner is None:
        return []
    comparisons: list[Comparison] = []
    for place, other in enumerate(finalists):
        if place == winner:
            continue
        mine = _values_by_replica(finalists[winner])
        theirs = _values_by_replica(other)
        both = sorted(mine.keys() & theirs.keys())
        comparison: Comparison = {
            "of": winner,
            "with": place,
            "replicas": both,
            **compare_pairs(
                [mine[replica] for replica in both],
                [theirs[replica] for replica in both],
                maximize,
            ),
        }
        comparisons.append(comparison)
    return comparisons


def _values_by_replica(finalist: Finalist) -> dict[int, float]:
    return {
        replica.replica: replica.value for replica in finalist.replicas if replica.value is not None
    }


def _find_comparison(comparisons: Iterable[Comparison], place: int | None) -> Comparison | None:
    for comparison in comparisons:
        if comparison["with"] == place:
            return comparison
    return None
