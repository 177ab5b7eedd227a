"""The statistics of a comparison: two sets of trainings, two test accuracies, and a correction for many pairs.

Pure functions of numbers; each names its source. Differences are always first minus second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance
from typing import Any

from dlsearch.report import intervals
from dlsearch.report.intervals import wilson

#: Up to so many values in a permutation test every assignment is gone through.
EXACT_PAIRED, EXACT_UNPAIRED = 12, 16
RESAMPLES = 9999
#: What is taken over from the report's intervals: the bootstrap's, Student's beside it, and why there is none.
_INTERVAL = ("interval", "method", "student", "why_not")


def paired(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Compare trainings that share their seeds, one by one: the paired t-test, and the sign-flip permutation test.

    The permutation test assumes no distribution, but with n pairs its p cannot be less than 2 / 2ⁿ.

    Args:
        a: Values of the first, in the order of the seeds.
        b: Values of the second, of the same seeds; at least two.

    Returns:
        ``{"test", "n", "difference", "interval", "method", "student", "why_not", "p", "df", "permutation_p",
        "smallest_p", "effect", "superiority"}``; p is None where every pair differs by the same, the intervals are
        those of the mean difference (:func:`~dlsearch.report.intervals.mean_interval`).
    """
    from scipy import stats

    found = intervals.paired(a, b, maximize=True)
    differences, n = found["differences"], found["n"]
    p: float | None = 1.0
    if found["sd"]:
        p = float(stats.ttest_rel(a, b).pvalue)
    elif any(differences):
        p = None  # every pair differs by the same: there is no spread to measure this against
    return {
        "test": "paired t-test",
        "n": [n, n],
        "difference": found["mean"],
        **{key: found[key] for key in _INTERVAL},
        "p": p,
        "df": float(n - 1),
        "permutation_p": _permutation((differences,), "samples", exact=n <= EXACT_PAIRED),
        "smallest_p": 2.0 / 2**n,
        **_effect(a, b),
    }


def welch(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Compare trainings of different seeds: the t-test for unequal variances (Welch, 1947), and a permutation test.

    Args:
        a: Values of the first, at least two.
        b: Values of the second, at least two.

    Returns:
        As of :func:`paired`.
    """
    from scipy import stats

    interval = intervals.difference_interval(a, b)
    difference = interval["mean"]
    p, df = None if difference else 1.0, float(len(a) + len(b) - 2)
    if interval["student"] is not None:
        found = stats.ttest_ind(a, b, equal_var=False)
        p, df = float(found.pvalue), float(found.df)
    return {
        "test": "Welch's t-test",
        "n": [len(a), len(b)],
        "difference": difference,
        **{key: interval[key] for key in _INTERVAL},
        "p": p,
        "df": df,
        "permutation_p": _permutation((list(a), list(b)), "independent", exact=len(a) + len(b) <= EXACT_UNPAIRED),
        "smallest_p": min(1.0, (2.0 if len(a) == len(b) else 1.0) / math.comb(len(a) + len(b), len(a))),
        **_effect(a, b),
    }


def _permutation(data: tuple[Sequence[float], ...], kind: str, *, exact: bool) -> float:
    """Two-sided p of the difference of means, over all assignments or a fixed sample of these."""
    import numpy as np
    from scipy.stats import permutation_test

    def statistic(*samples: Any, axis: int = -1) -> Any:
        means = [np.mean(s, axis=axis) for s in samples]
        return means[0] if len(means) == 1 else means[0] - means[1]

    found = permutation_test(
        data,
        statistic,
        permutation_type=kind,
        vectorized=True,
        n_resamples=np.inf if exact else RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _effect(a: Sequence[float], b: Sequence[float]) -> dict[str, float | None]:
    return {"effect": hedges(a, b), "superiority": superiority(a, b)}


def hedges(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Hedges' g: the difference in units of the pooled standard deviation, corrected for few values (Hedges, 1981).

    None where nothing varies.
    """
    one, two = fmean(a), fmean(b)
    df = len(a) + len(b) - 2
    pooled = math.sqrt(((len(a) - 1) * variance(a) + (len(b) - 1) * variance(b)) / df)
    if pooled <= 1e-12 * max(1.0, abs(one), abs(two)):
        return None
    correction = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else 0.0
    return correction * (one - two) / pooled


def superiority(a: Sequence[float], b: Sequence[float]) -> float:
    """How often a value of the first exceeds one of the second, ties half (Vargha and Delaney, 2000)."""
    return math.fsum((x > y) + 0.5 * (x == y) for x in a for y in b) / (len(a) * len(b))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values so that the chance of any false finding stays below the level (Holm, 1979)."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, least = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = least
    return adjusted


def newcombe(k1: int, n1: int, k2: int, n2: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two proportions, from Wilson's intervals of each (Newcombe, 1998, method 10)."""
    p, q = k1 / n1, k2 / n2
    (l1, u1), (l2, u2) = wilson(k1, n1, level), wilson(k2, n2, level)
    low = p - q - math.sqrt((p - l1) ** 2 + (u2 - q) ** 2)
    high = p - q + math.sqrt((u1 - p) ** 2 + (q - l2) ** 2)
    return max(-1.0, low), min(1.0, high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact p of two classifiers on the same examples (McNemar, 1947), from those that only one of them got right."""
    from scipy.stats import binomtest

    n = only_first + only_second
    return 1.0 if n == 0 else float(binomtest(only_first, n, 0.5).pvalue)
