"""Intervals and comparisons: of a proportion, of a mean over seeds, of two configurations.

Pure functions of numbers, each from scipy where it has it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from dlsearch.confirmation.rounding import measure_resolution

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Resamples of a bootstrap, and its seed: the interval of the same values is the same wherever it
#: is computed.
RESAMPLES = 9_999
SEED = 0

#: Values below which the report gives no bootstrap interval: fewer hold too few distinct resamples.
FEWEST = 3

#: Values from which the bootstrap interval is the one that is quoted. Of fewer it is too narrow: of
#: 3, 5, 10 and 20 normal values it covers 71, 83, 91 and 91 % (``benchmarks/coverage.py``), and
#: Student's 95 %.
ENOUGH_FOR_BOOTSTRAP = 50

Interval = tuple[float, float]


class QuotedInterval(NamedTuple):
    """The interval that is quoted of an estimate, and by what it was computed, in words."""

    ends: Interval
    method: str


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


def quote_interval(estimate: Mapping[str, Any] | None) -> QuotedInterval | None:
    """The interval that claims, tables and figures quote of an estimate; None where it has none.

    Student's (of two samples Welch's) below :data:`ENOUGH_FOR_BOOTSTRAP` values, the bootstrap's
    from there on. No interval stands for values that are all equal, or for a single one.

    Args:
        estimate: Of a mean, of a difference or of pairs, as the functions below make it, or as it
            is read from a file.
    """
    if estimate is None:
        return None
    n = estimate["n"]
    counts = [n] if isinstance(n, int) else list(n)
    bootstrap = estimate["interval"]
    student = estimate["student"]
    if bootstrap is not None and (student is None or min(counts) >= ENOUGH_FOR_BOOTSTRAP):
        return QuotedInterval((bootstrap[0], bootstrap[1]), estimate["method"])
    if student is None:
        return None
    is_paired = len(counts) == 1 or "paired" in estimate.get("test", "")
    return QuotedInterval((student[0], student[1]), "Student's t" if is_paired else "Welch's t")


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
    """How far below `p` another proportion lies that is just told apart from it.

    Each is of `n` examples, and they are not paired. The test is the z-test of two proportions with
    the pooled variance; two trials that lie closer cannot be distinguished by the examples they
    were scored on. With the pooled proportion q = p − w/2 it is the root of
    w² = z² · 2q(1 − q)/n.
    """
    from scipy.stats import norm

    quantile = float(norm.ppf(0.5 + level / 2))
    square = n / (2 * quantile**2) + 0.25
    linear = (2 * p - 1) / 2
    return (linear + math.sqrt(linear**2 + 4 * square * p * (1 - p))) / (2 * square)


# -- a mean ---------------------------------------------------------------------------------------


def estimate_mean(
    values: Sequence[float],
    level: float = 0.95,
    *,
    resolution: float | None = None,
) -> MeanEstimate:
    """Mean of `values` with its bootstrap interval, bias-corrected and accelerated (Efron, 1987).

    The bootstrap of few values is known to be too narrow; Student's interval (Student, 1908), which
    supposes a normal distribution of the values, is given beside it, from two values on. Neither is
    given where it would mean nothing, and ``why_not`` says why. ``method`` is the percentile
    bootstrap where the bias-corrected one is degenerate. :func:`quote_interval` says which of the
    two is quoted.

    Args:
        values: Scores, or differences of scores.
        level: Coverage.
        resolution: Values that differ by no more are equal: what rounding leaves open of the scores
            (:func:`~dlsearch.confirmation.rounding.measure_resolution`). None takes `values` for
            the scores.
    """
    import numpy as np

    ordered = sorted(float(value) for value in values)
    n = len(ordered)
    if n == 0:
        return _mean_alone(0, None, None, "no value")
    mean = math.fsum(ordered) / n
    if n == 1:
        return _mean_alone(1, mean, None, "one value has no spread")
    if resolution is None:
        resolution = measure_resolution(ordered)
    if _all_equal(ordered, resolution):
        return _mean_alone(n, mean, 0.0, f"all {n} values are equal")

    sample = np.asarray(ordered)
    sd = float(np.std(sample, ddof=1))
    estimate = _mean_alone(n, mean, sd, f"{n} values are too few for a bootstrap")
    estimate["student"] = _student_interval(mean, sd, n, level)
    if n < FEWEST:
        return estimate
    return {**estimate, **_bootstrap((sample,), resolution, level)}


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


def _all_equal(ordered: Sequence[float], resolution: float) -> bool:
    return ordered[-1] - ordered[0] <= resolution


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
    resolution = measure_resolution([*first, *second])
    if _all_equal(first, resolution) and _all_equal(second, resolution):
        estimate["why_not"] = "all values of each are equal"
        return estimate

    estimate["student"] = _welch_interval(first, second, level)
    if fewest < FEWEST:
        return estimate
    samples = (np.asarray(first), np.asarray(second))
    return {**estimate, **_bootstrap(samples, resolution, level)}


def _welch_interval(first: Sequence[float], second: Sequence[float], level: float) -> Interval:
    from scipy import stats

    test = stats.ttest_ind(first, second, equal_var=False)
    ends = test.confidence_interval(level)
    return float(ends.low), float(ends.high)


def _bootstrap(
    samples: tuple[NDArray[Any], ...],
    resolution: float,
    level: float,
) -> BootstrapInterval:
    """The interval of one mean, or of the difference of two.

    It is by the first method that is not degenerate.

    The bias correction counts the resamples below the estimate, and by half those that are tied
    with it. So the samples are centred, and what lies no further from zero than `resolution` is
    tied: else the last bits of equal means would decide on which side they are.
    """
    import numpy as np
    from scipy import stats

    def average(*drawn: Any, axis: int = -1) -> Any:
        means = [np.mean(each, axis=axis) for each in drawn]
        found = means[0] if len(means) == 1 else means[0] - means[1]
        return np.where(np.abs(found) <= resolution, 0.0, found)

    centres = [math.fsum(sample) / len(sample) for sample in samples]
    centred = tuple(sample - centre for sample, centre in zip(samples, centres, strict=True))
    estimate = centres[0] if len(centres) == 1 else centres[0] - centres[1]
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # scipy warns where BCa is degenerate; that is what is looked for here
            warnings.simplefilter("ignore")
            result = stats.bootstrap(
                centred,
                average,
                n_resamples=RESAMPLES,
                confidence_level=level,
                method=method,
                rng=np.random.default_rng(SEED),
            )
        low = float(result.confidence_interval.low)
        high = float(result.confidence_interval.high)
        if math.isfinite(low) and math.isfinite(high):
            return {
                "interval": (estimate + low, estimate + high),
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
    equal, but for rounding.

    Args:
        a: Scores of the first, a seed each.
        b: Scores of the second on the same seeds.
        maximize: Whether more is better.
    """
    resolution = measure_resolution([*a, *b]) if a else 0.0
    differences = _paired_differences(a, b, maximize, resolution)
    estimate = estimate_mean(differences, resolution=resolution)
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


def _paired_differences(
    a: Sequence[float],
    b: Sequence[float],
    maximize: bool,
    resolution: float,
) -> list[float]:
    """Each score of the first against that of the second, positive where the first is better."""
    sign = 1.0 if maximize else -1.0
    differences: list[float] = []
    for first, second in zip(a, b, strict=True):
        difference = sign * (first - second)
        differences.append(difference if abs(difference) > resolution else 0.0)
    return differences


def _probability_above_zero(differences: Sequence[float]) -> float:
    from scipy import stats

    # The p value of the opposite side: one minus a small one would lose its digits.
    test = stats.ttest_1samp(differences, 0.0, alternative="less")
    return float(test.pvalue)
