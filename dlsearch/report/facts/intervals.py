"""Intervals and comparisons: of a proportion, of a mean over seeds, of two configurations.

Pure functions of numbers, each from scipy where it has it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

#: Resamples of a bootstrap, and its seed: the interval of the same values is the same wherever it
#: is computed.
RESAMPLES = 9_999
SEED = 0

#: Values below which the report gives no bootstrap interval: fewer hold too few distinct resamples.
FEWEST = 3

# Equal differences of binary fractions differ in their last bits: of the largest score, decimals
# after this one are no spread.
_DECIMALS = 13

Interval = tuple[float, float]


class BootstrapInterval(TypedDict):
    """A bootstrap interval and the method it is by, or `why_not`."""

    interval: Interval | None
    method: str | None
    why_not: str | None


class MeanEstimate(BootstrapInterval):
    """A mean of `n` values, with the standard deviation of a sample (ddof 1) and two intervals.

    `interval` is by the bootstrap that `method` names, `student` supposes normal values; `why_not`
    says why one is missing.
    """

    n: int
    mean: float | None
    sd: float | None
    student: Interval | None


class DifferenceEstimate(BootstrapInterval):
    """A difference of two means, each of `n` values; `student` is Welch's interval."""

    n: tuple[int, int]
    mean: float
    sd: None
    student: Interval | None


class PairedEstimate(MeanEstimate):
    """A mean paired difference; a difference is positive where the first is better."""

    differences: list[float]
    better: int
    equal: int
    probability: float | None


# -- proportions ----------------------------------------------------------------------------------


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson, 1927).

    Args:
        k: Successes.
        n: Trials, at least 1.
        level: Coverage.
    """
    return _proportion_interval(k, n, level, "wilson")


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """The exact, conservative interval of a proportion (Clopper and Pearson, 1934)."""
    return _proportion_interval(k, n, level, "exact")


def _proportion_interval(k: int, n: int, level: float, method: str) -> Interval:
    from scipy.stats import binomtest

    test = binomtest(k, n)
    low, high = test.proportion_ci(level, method=method)
    return float(low), float(high)


def resolution(p: float, n: int, level: float = 0.95) -> float:
    """Half-width of the interval of the difference of two unpaired proportions near `p`.

    Each is of `n` examples; the interval is the normal approximation of Wald. Two trials that lie
    closer than this cannot be distinguished by the examples they were scored on.
    """
    from scipy.stats import norm

    quantile = float(norm.ppf(0.5 + level / 2))
    variance_of_difference = 2 * p * (1 - p) / n
    return quantile * math.sqrt(variance_of_difference)


# -- a mean ---------------------------------------------------------------------------------------


def estimate_mean(values: Sequence[float], level: float = 0.95) -> MeanEstimate:
    """Mean of `values` with its bootstrap interval, bias-corrected and accelerated (Efron, 1987).

    The bootstrap of few values is known to be too narrow; Student's interval (Student, 1908), which
    supposes a normal distribution of the values, is given beside it. Neither is given where it
    would mean nothing, and ``why_not`` says why. ``method`` is the percentile bootstrap where the
    bias-corrected one is degenerate.
    """
    import numpy as np

    ordered = sorted(float(value) for value in values)
    n = len(ordered)
    if n == 0:
        return _mean_alone(0, None, None, "no value")
    mean = math.fsum(ordered) / n
    if n == 1:
        return _mean_alone(1, mean, None, "one value has no spread")
    if _all_equal(ordered):
        return _mean_alone(n, mean, 0.0, f"all {n} values are equal")

    sample = np.asarray(ordered)
    sd = float(np.std(sample, ddof=1))
    estimate = _mean_alone(n, mean, sd, f"{n} values are too few for a bootstrap")
    estimate["student"] = _student_interval(mean, sd, n, level)
    if n < FEWEST:
        return estimate
    return {**estimate, **_bootstrap((sample,), np.mean, level)}


def _mean_alone(n: int, mean: float | None, sd: float | None, why_not: str) -> MeanEstimate:
    return {
        "n": n,
        "mean": mean,
        "sd": sd,
        "interval": None,
        "method": None,
        "student": None,
        "why_not": why_not,
    }


def _all_equal(ordered: Sequence[float]) -> bool:
    return ordered[0] == ordered[-1]


def _student_interval(mean: float, sd: float, n: int, level: float) -> Interval:
    from scipy import stats

    standard_error = sd / math.sqrt(n)
    student = stats.t(df=n - 1, loc=mean, scale=standard_error)
    low, high = student.interval(level)
    return float(low), float(high)


# -- two means ------------------------------------------------------------------------------------


def estimate_difference(
    a: Sequence[float],
    b: Sequence[float],
    level: float = 0.95,
) -> DifferenceEstimate:
    """Difference of the means of two sets of values that share nothing, first minus second.

    The bootstrap is that of :func:`estimate_mean`, ``student`` the interval for unequal variances
    (Welch, 1947).
    """
    import numpy as np

    first = sorted(float(value) for value in a)
    second = sorted(float(value) for value in b)
    fewest = min(len(first), len(second))
    mean_of_first = math.fsum(first) / len(first)
    mean_of_second = math.fsum(second) / len(second)
    estimate: DifferenceEstimate = {
        "n": (len(first), len(second)),
        "mean": mean_of_first - mean_of_second,
        "sd": None,
        "interval": None,
        "method": None,
        "student": None,
        "why_not": f"{fewest} values are too few for a bootstrap",
    }
    if fewest < 2:
        estimate["why_not"] = "one value has no spread"
        return estimate
    if _all_equal(first) and _all_equal(second):
        estimate["why_not"] = "all values of each are equal"
        return estimate

    estimate["student"] = _welch_interval(first, second, level)
    if fewest < FEWEST:
        return estimate
    samples = (np.asarray(first), np.asarray(second))
    return {**estimate, **_bootstrap(samples, _difference_of_means, level)}


def _welch_interval(first: Sequence[float], second: Sequence[float], level: float) -> Interval:
    from scipy import stats

    test = stats.ttest_ind(first, second, equal_var=False)
    ends = test.confidence_interval(level)
    return float(ends.low), float(ends.high)


def _difference_of_means(first: Any, second: Any, axis: int = -1) -> Any:
    import numpy as np

    mean_of_first = np.mean(first, axis=axis)
    mean_of_second = np.mean(second, axis=axis)
    return mean_of_first - mean_of_second


def _bootstrap(
    data: tuple[Any, ...],
    statistic: Callable[..., Any],
    level: float,
) -> BootstrapInterval:
    """The interval of the first method that is not degenerate on these data."""
    import numpy as np
    from scipy import stats

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # scipy warns where BCa is degenerate; that is what is looked for here
            warnings.simplefilter("ignore")
            result = stats.bootstrap(
                data,
                statistic,
                n_resamples=RESAMPLES,
                confidence_level=level,
                method=method,
                rng=np.random.default_rng(SEED),
            )
        low = float(result.confidence_interval.low)
        high = float(result.confidence_interval.high)
        if math.isfinite(low) and math.isfinite(high):
            return {
                "interval": (low, high),
                "method": f"{method} bootstrap",
                "why_not": None,
            }
    return {
        "interval": None,
        "method": None,
        "why_not": "the bootstrap is degenerate",
    }


# -- pairs ----------------------------------------------------------------------------------------


def compare_pairs(a: Sequence[float], b: Sequence[float], maximize: bool) -> PairedEstimate:
    """Compare two configurations that were trained on the same seeds.

    The probability that the first is better is the posterior probability of a mean difference above
    zero under the reference prior, p(μ, σ) ∝ 1/σ, for normal differences (Student, 1908; the
    Bayesian reading of the paired t test, as in Benavoli et al., 2017, with independent replicas).
    It equals one minus the p value of the one-sided test. It is None where all differences are
    equal.

    Args:
        a: Scores of the first, a seed each.
        b: Scores of the second on the same seeds.
        maximize: Whether more is better.
    """
    differences = _paired_differences(a, b, maximize)
    estimate = estimate_mean(differences)
    probability = None
    if estimate["sd"]:
        probability = _probability_above_zero(differences)
    return {
        **estimate,
        "differences": differences,
        "better": sum(difference > 0 for difference in differences),
        "equal": sum(difference == 0 for difference in differences),
        "probability": probability,
    }


def _paired_differences(a: Sequence[float], b: Sequence[float], maximize: bool) -> list[float]:
    """Each score of the first against that of the second, positive where the first is better."""
    sign = 1.0 if maximize else -1.0
    sizes = [abs(value) for value in [*a, *b]]
    unit = max(sizes, default=0.0) or 1.0
    differences: list[float] = []
    for first, second in zip(a, b, strict=True):
        relative = round((first - second) / unit, _DECIMALS)
        differences.append(sign * relative * unit)
    return differences


def _probability_above_zero(differences: Sequence[float]) -> float:
    from scipy import stats

    # The p value of the opposite side: one minus a small one would lose its digits.
    test = stats.ttest_1samp(differences, 0.0, alternative="less")
    return float(test.pvalue)
