"""The statistics of a comparison: two sets of trainings, two test accuracies, many pairs.

Pure functions of numbers; each names its source. Differences are always first minus second.
"""

from __future__ import annotations

import math
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any, Literal

from dlsearch.confirmation.rounding import measure_resolution
from dlsearch.report.facts import intervals
from dlsearch.report.facts.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.report.compare.models import TestedDifference

#: Up to so many values in a permutation test every assignment is gone through.
MOST_EXACT_PAIRED = 12
MOST_EXACT_UNPAIRED = 16
RESAMPLES = 9999
LEVEL = 0.95


def compare_paired(a: Sequence[float], b: Sequence[float]) -> TestedDifference:
    """Compare trainings that share their seeds, by the paired t-test and by permutation.

    The sign-flip permutation test assumes no distribution, but with n pairs its p cannot be less
    than 2 / 2ⁿ.

    Args:
        a: Values of the first, in the order of the seeds.
        b: Values of the second, of the same seeds; at least two.

    Returns:
        p is None where every pair differs by the same, the intervals are those of the mean
        difference (:func:`~dlsearch.report.facts.intervals.estimate_mean`).
    """
    found = intervals.compare_pairs(a, b, maximize=True)
    difference = found["mean"]
    assert difference is not None
    differences = found["differences"]
    n = found["n"]
    return {
        "test": "paired t-test",
        "n": [n, n],
        "difference": difference,
        "interval": found["interval"],
        "method": found["method"],
        "student": found["student"],
        "why_not": found["why_not"],
        "p": _paired_p(
            a,
            b,
            differences,
            found["sd"],
        ),
        "df": float(n - 1),
        "permutation_p": _permutation_p((differences,), "samples", exact=n <= MOST_EXACT_PAIRED),
        "smallest_p": 2.0 / 2**n,
        "effect": hedges_g(a, b),
        "superiority": share_of_superior(a, b),
    }


def _paired_p(
    a: Sequence[float],
    b: Sequence[float],
    differences: Sequence[float],
    sd: float | None,
) -> float | None:
    from scipy import stats

    if sd:
        return float(stats.ttest_rel(a, b).pvalue)
    if any(differences):
        return None  # every pair differs by the same: there is no spread to measure this against
    return 1.0


def compare_welch(a: Sequence[float], b: Sequence[float]) -> TestedDifference:
    """Compare trainings of different seeds, by Welch's t-test (1947) and by permutation.

    Args:
        a: Values of the first, at least two.
        b: Values of the second, at least two.

    Returns:
        As of :func:`compare_paired`.
    """
    found = intervals.estimate_difference(a, b)
    difference = found["mean"]
    p = None if difference else 1.0
    df = float(len(a) + len(b) - 2)
    if found["student"] is not None:
        p, df = _welch_p(a, b)
    exact = len(a) + len(b) <= MOST_EXACT_UNPAIRED
    return {
        "test": "Welch's t-test",
        "n": [len(a), len(b)],
        "difference": difference,
        "interval": found["interval"],
        "method": found["method"],
        "student": found["student"],
        "why_not": found["why_not"],
        "p": p,
        "df": df,
        "permutation_p": _permutation_p((list(a), list(b)), "independent", exact=exact),
        "smallest_p": _smallest_unpaired_p(len(a), len(b)),
        "effect": hedges_g(a, b),
        "superiority": share_of_superior(a, b),
    }


def _welch_p(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The p-value and the degrees of freedom."""
    from scipy import stats

    result = stats.ttest_ind(a, b, equal_var=False)
    return float(result.pvalue), float(result.df)


def _smallest_unpaired_p(n: int, m: int) -> float:
    """What p cannot be below: the share of the assignments that are as extreme as any."""
    as_extreme = 2.0 if n == m else 1.0
    return min(1.0, as_extreme / math.comb(n + m, n))


def _permutation_p(
    samples: tuple[Sequence[float], ...],
    kind: Literal["samples", "independent"],
    *,
    exact: bool,
) -> float:
    """Two-sided p of the difference of means, over all assignments or a fixed sample of these."""
    import numpy as np
    from scipy.stats import permutation_test

    observed = abs(_difference_of_means(*samples))
    resolution = measure_resolution(value for sample in samples for value in sample)

    def difference_of_means(*drawn: Any, axis: int = -1) -> Any:
        """Of an assignment; rounding makes none more or less extreme than what was observed."""
        found = _difference_of_means(*drawn, axis=axis)
        is_tied = np.abs(np.abs(found) - observed) <= resolution
        return np.where(is_tied, np.copysign(observed, found), found)

    result = permutation_test(
        samples,
        difference_of_means,
        permutation_type=kind,
        vectorized=True,
        n_resamples=np.inf if exact else RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def _difference_of_means(*samples: Any, axis: int = -1) -> Any:
    """The mean of one sample, or the first mean minus the second."""
    import numpy as np

    means = [np.mean(sample, axis=axis) for sample in samples]
    return means[0] if len(means) == 1 else means[0] - means[1]


def hedges_g(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The difference in units of the pooled deviation, corrected for few values (Hedges, 1981).

    None where nothing varies.
    """
    mean_a = fmean(a)
    mean_b = fmean(b)
    df = len(a) + len(b) - 2
    squares = (len(a) - 1) * variance(a) + (len(b) - 1) * variance(b)
    pooled = math.sqrt(squares / df)
    if pooled <= 1e-12 * max(1.0, abs(mean_a), abs(mean_b)):
        return None
    return _hedges_correction(df) * (mean_a - mean_b) / pooled


def _hedges_correction(df: int) -> float:
    if df <= 1:
        return 0.0
    ratio = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2))
    return ratio / math.sqrt(df / 2)


def share_of_superior(a: Sequence[float], b: Sequence[float]) -> float:
    """How often a value of the first exceeds one of the second, ties half.

    The measure A of Vargha and Delaney (2000).
    """
    wins = math.fsum((x > y) + 0.5 * (x == y) for x in a for y in b)
    return wins / (len(a) * len(b))


def adjust_holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values: the chance of any false finding stays below the level (Holm, 1979)."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    adjusted = [0.0] * len(ps)
    least = 0.0
    for rank, index in enumerate(order):
        remaining = len(ps) - rank
        least = max(least, min(1.0, remaining * ps[index]))
        adjusted[index] = least
    return adjusted


def newcombe_interval(
    k1: int,
    n1: int,
    k2: int,
    n2: int,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Interval of the difference of two proportions, from Wilson's intervals of each.

    Newcombe (1998), method 10.
    """
    p = k1 / n1
    q = k2 / n2
    p_low, p_high = wilson(k1, n1, level)
    q_low, q_high = wilson(k2, n2, level)
    low = p - q - math.sqrt((p - p_low) ** 2 + (q_high - q) ** 2)
    high = p - q + math.sqrt((p_high - p) ** 2 + (q - q_low) ** 2)
    return max(-1.0, low), min(1.0, high)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact p of two classifiers on the same examples (McNemar, 1947).

    Args:
        only_first: Examples that only the first one got right.
        only_second: Those that only the second one did.
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return float(binomtest(only_first, discordant, 0.5).pvalue)
