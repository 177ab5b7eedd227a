"""Facts of the course of the search: what was reached by number of trials."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from dlsearch.report.facts.statistics import (
    ExpectedBest,
    best_so_far,
    empirical,
    expected_best,
    independent,
)
from dlsearch.report.study import TrialState

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import Course
    from dlsearch.report.study import View

#: Trials below which the best score after each quarter is not listed.
FEWEST_FOR_QUARTERS = 8

_SPREAD_NAMES = ("best", "better quartile", "median", "worse quartile", "worst")


def describe_course(view: View) -> Course:
    """What was reached by number of trials, for one objective.

    Of several, the first one's values.
    """
    values = [trial.values[0] for trial in view.scored]
    maximize = view.objective.maximize
    course: Course = {
        "best_so_far": [],
        "distribution": empirical(values),
        "median": statistics.median(values) if values else None,
        "spread": [],
        "quarters": [],
        "independent": independent(view.document.sampler, len(view.trials)),
        "expected_best": [],
    }
    if view.multi:
        return course
    course["best_so_far"] = best_so_far(view.trials, maximize)
    course["spread"] = _describe_spread(values, maximize)
    course["quarters"] = _list_quarters(course["best_so_far"], len(view.trials))
    if course["independent"]:
        course["expected_best"] = _expect_best(view)
    return course


def _describe_spread(values: list[float], maximize: bool) -> list[tuple[str, float]]:
    """Best, quartiles and worst of the completed trials."""
    if len(values) < 2:
        return []
    lower, median, upper = statistics.quantiles(sorted(values), n=4, method="inclusive")
    spread = [min(values), lower, median, upper, max(values)]
    if maximize:
        spread.reverse()
    return list(zip(_SPREAD_NAMES, spread, strict=True))


def _list_quarters(steps: list[tuple[int, float]], n_trials: int) -> list[tuple[int, float]]:
    """The best score after each quarter of the trials, pruned and failed ones counted."""
    if n_trials < FEWEST_FOR_QUARTERS:
        return []
    rows: list[tuple[int, float]] = []
    for quarter in (1, 2, 3, 4):
        n = math.ceil(n_trials * quarter / 4)
        reached = [value for number, value in steps if number < n]
        if reached:
            best = reached[-1]
            rows.append((n, best))
    return rows


def _expect_best(view: View) -> list[ExpectedBest]:
    """The expected best of fewer trials.

    A pruned trial spent budget too: it counts with the score it had when it was stopped.
    """
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    scores = [
        trial.standing
        for trial in view.trials
        if trial.state in ended and trial.feasible and trial.standing is not None
    ]
    if len(scores) < 2:
        return []
    return expected_best(scores, view.objective.maximize)
