"""Intervals and comparisons: of a proportion, of a mean over seeds, and of two configurations on the same seeds.

Pure functions of numbers, each from scipy where it has it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

#: Resamples of a bootstrap, and its seed: the interval of the same values is the same wherever it is computed.
RESAMPLES, SEED = 9_999, 0

#: Values below which the report gives no bootstrap interval: fewer hold too few distinct resamples.
FEWEST = 3


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, 1927).

    Args:
        k: Successes.
        n: Trials, at least 1.
        level: Coverage.
    """
    from scipy.stats import binomtest

    low, high = binomtest(k, n).proportion_ci(level, method="wilson")
    return float(low), float(high)


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact, conservative interval of a proportion (Clopper and Pearson, 1934)."""
    from scipy.stats import binomtest

    low, high = binomtest(k, n).proportion_ci(level, method="exact")
    return float(low), float(high)


def resolution(p: float, n: int, level: float = 0.95) -> float:
    """Half-width of the interval of the difference of two scores near `p`, each from `n` examples, unpaired.

    Two trials that lie closer than this are not told apart by the examples they were scored on.
    """
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2)) * math.sqrt(2 * p * (1 - p) / n)


def mean_interval(values: Sequence[float], level: float = 0.95) -> dict[str, Any]:
    """Mean of `values` with its bootstrap interval, bias-corrected and accelerated (BCa; Efron, 1987).

    The bootstrap of few values is known to be too narrow; Student's interval, which supposes a normal distribution
    of the values, stands beside it. Neither is given where it would mean nothing, and ``why_not`` says why.

    Returns:
        ``{"n", "mean", "sd", "interval", "method", "student", "why_not"}``: the standard deviation is that of a
        sample (ddof 1), the intervals are pairs or null; ``method`` names the bootstrap of ``interval``, which is the
        percentile one where BCa is degenerate.
    """
    import numpy as np
    from scipy import stats

    ordered = sorted(float(v) for v in values)
    n = len(ordered)
    out: dict[str, Any] = {"n": n, "mean": None, "sd": None, "interval": None, "method": None}
    out |= {"student": None, "why_not": None}
    if not n:
        return out | {"why_not": "no value"}
    out["mean"] = math.fsum(ordered) / n
    if n == 1:
        return out | {"why_not": "one value has no spread"}
    data = np.asarray(ordered)
    out["sd"] = 0.0 if ordered[0] == ordered[-1] else float(np.std(data, ddof=1))
    if ordered[0] == ordered[-1]:
        return out | {"why_not": f"all {n} values are equal"}
    low, high = stats.t.interval(level, n - 1, loc=out["mean"], scale=out["sd"] / math.sqrt(n))
    out["student"] = [float(low), float(high)]
    if n < FEWEST:
        return out | {"why_not": f"{n} values are too few for a bootstrap"}
    return out | _bootstrap((data,), np.mean, level)


def difference_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> dict[str, Any]:
    """Difference of the means of two sets of values that share nothing, first minus second, with its BCa interval.

    Returns:
        As :func:`mean_interval`, with the difference as ``mean``, both counts as ``n``, no ``sd``, and Welch's
        interval as ``student``.
    """
    import numpy as np
    from scipy import stats

    one, two = (np.asarray(sorted(float(v) for v in values)) for values in (a, b))
    out: dict[str, Any] = {"n": [len(one), len(two)], "mean": math.fsum(one) / len(one) - math.fsum(two) / len(two)}
    out |= {"sd": None, "interval": None, "method": None, "student": None, "why_not": None}
    if min(len(one), len(two)) < 2:
        return out | {"why_not": "one value has no spread"}
    if one[0] == one[-1] and two[0] == two[-1]:
        return out | {"why_not": "all values of each are equal"}
    found = stats.ttest_ind(one, two, equal_var=False).confidence_interval(level)
    out["student"] = [float(found.low), float(found.high)]
    if min(len(one), len(two)) < FEWEST:
        return out | {"why_not": f"{min(len(one), len(two))} values are too few for a bootstrap"}

    def statistic(x: Any, y: Any, axis: int = -1) -> Any:
        return np.mean(x, axis=axis) - np.mean(y, axis=axis)

    return out | _bootstrap((one, two), statistic, level)


def _bootstrap(data: tuple[Any, ...], statistic: Callable[..., Any], level: float) -> dict[str, Any]:
    """``interval`` and ``method``, or ``why_not``."""
    import numpy as np
    from scipy import stats

    for method, name in (("BCa", "BCa bootstrap"), ("percentile", "percentile bootstrap")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns where BCa is degenerate; that is what is looked for here
            found = stats.bootstrap(
                data,
                statistic,
                n_resamples=RESAMPLES,
                confidence_level=level,
                method=method,
                rng=np.random.default_rng(SEED),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            return {"interval": [float(found.low), float(found.high)], "method": name}
    return {"why_not": "the bootstrap is degenerate"}


def paired(a: Sequence[float], b: Sequence[float], maximize: bool) -> dict[str, Any]:
    """Compare two configurations that were trained on the same seeds.

    The probability that the first is better is the posterior probability of a mean difference above zero under the
    reference prior, p(μ, σ) ∝ 1/σ, for normal differences (Student, 1908; the Bayesian reading of the paired t test,
    as in Benavoli et al., 2017, with independent replicas). It equals one minus the p value of the one-sided test.

    Args:
        a: Scores of the first, a seed each.
        b: Scores of the second on the same seeds.
        maximize: Whether more is better.

    Returns:
        What :func:`mean_interval` gives for the differences, and ``differences`` (positive where the first is
        better), ``better`` and ``equal`` (how many are), ``probability`` (null where all differences are equal).
    """
    from scipy import stats

    sign = 1.0 if maximize else -1.0
    # Equal differences of binary fractions differ in their last bits, which is no spread.
    unit = max((abs(v) for v in [*a, *b]), default=0.0) or 1.0
    differences = [sign * round((x - y) / unit, 13) * unit for x, y in zip(a, b, strict=True)]
    out = mean_interval(differences)
    out["differences"] = differences
    out["better"] = sum(d > 0 for d in differences)
    out["equal"] = sum(d == 0 for d in differences)
    out["probability"] = None
    if out["sd"]:
        # The p value of the opposite side: one minus a small one would lose its digits.
        out["probability"] = float(stats.ttest_1samp(differences, 0.0, alternative="less").pvalue)
    return out
