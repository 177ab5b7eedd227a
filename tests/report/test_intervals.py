"""Intervals and comparisons against published values, brute force and the definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from dlsearch.report.facts import intervals as stats


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe (1998), table I, method 3.
    assert stats.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert stats.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert stats.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_clopper_pearson_agrees_with_published_values() -> None:
    # Newcombe (1998), table I, method 5.
    assert stats.clopper_pearson(81, 263) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert stats.clopper_pearson(15, 148) == pytest.approx((0.0578, 0.1617), abs=5e-5)
    assert stats.clopper_pearson(0, 20) == pytest.approx((0.0, 0.1684), abs=5e-5)
    assert stats.clopper_pearson(29, 29) == pytest.approx((0.8806, 1.0), abs=5e-5)


def test_resolution_is_the_interval_of_a_difference() -> None:
    for p, n in [(0.5, 100), (0.98, 1000), (1.0, 300), (0.02, 50)]:
        width = stats.resolution(p, n)
        pooled = p - width / 2
        assert width == pytest.approx(1.959964 * math.sqrt(2 * pooled * (1 - pooled) / n), rel=1e-6)


def test_equal_scores_are_taken_for_different_as_often_as_is_said() -> None:
    rng = np.random.default_rng(0)
    for p, n in [(0.75, 300), (0.98, 300), (0.98, 1000), (0.99, 10000)]:
        scores = rng.binomial(n, p, (20_000, 2)) / n
        widths = [stats.resolution(best, n) for best in scores.max(axis=1)]
        share = (np.abs(scores[:, 0] - scores[:, 1]) < widths).mean()
        assert 0.94 < share < 0.965


# Efron and Tibshirani (1993), table 14.1: 26 scores of a spatial test.
SPATIAL = [
    48,
    36,
    20,
    29,
    42,
    42,
    20,
    42,
    22,
    41,
    45,
    14,
    6,
    0,
    33,
    28,
    34,
    4,
    32,
    24,
    47,
    41,
    24,
    26,
    30,
    41.0,
]


def bca_by_brute_force(values: list[float], level: float = 0.95) -> tuple[float, float]:
    """BCa of the mean over every one of the n^n resamples, by the formulas of Efron (1987)."""
    x = np.asarray(values)
    n = len(x)
    means = np.sort([sum(sample) / n for sample in itertools.product(values, repeat=n)])
    # scipy counts ties with the estimate by half.
    share = ((means < x.mean() - 1e-12).mean() + (means <= x.mean() + 1e-12).mean()) / 2
    z0 = scipy_stats.norm.ppf(share)
    left = np.array([np.delete(x, i).mean() for i in range(n)])
    d = left.mean() - left
    a = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    ends = []
    for z in scipy_stats.norm.ppf([(1 - level) / 2, (1 + level) / 2]):
        p = scipy_stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
        ends.append(float(np.quantile(means, p)))
    return ends[0], ends[1]


@pytest.mark.parametrize(
    "values",
    [
        [0.9905, 0.9911, 0.9899, 0.991, 0.9903],
        [1.0, 2.0, 4.0, 8.0, 16.0],
        [0.1, 0.2, 0.2, 0.9, 1.5, 7.0],
    ],
)
def test_bca_is_that_of_all_resamples(values: list[float]) -> None:
    found = stats.estimate_mean(values)
    spread = max(values) - min(values)
    # 9,999 random resamples against all n^n: equal but for the noise of the resampling.
    assert found["interval"] == pytest.approx(bca_by_brute_force(values), abs=0.02 * spread)
    assert found["method"] == "BCa bootstrap"
    assert found["mean"] == pytest.approx(float(np.mean(values)))
    assert found["sd"] == pytest.approx(float(np.std(values, ddof=1)))


def test_bca_leans_to_the_long_tail_and_covers_as_the_normal_interval_where_there_is_none() -> None:
    n = len(SPATIAL)
    found = stats.estimate_mean(SPATIAL)
    low, high = found["interval"]
    half = 1.96 * np.std(SPATIAL, ddof=1) / math.sqrt(n)
    assert (low, high) == pytest.approx(
        (found["mean"] - half, found["mean"] + half), abs=0.12 * half
    )
    # A tail to the left pulls both ends to the left.
    assert (low + high) / 2 < found["mean"]


def test_student_agrees_with_published_values() -> None:
    # Student (1908), the additional hours of sleep by the second drug: mean 2.33, s 2.002.
    sleep = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = stats.estimate_mean(sleep)
    assert found["mean"] == pytest.approx(2.33)
    assert found["sd"] == pytest.approx(2.002, abs=5e-4)
    assert found["student"] == pytest.approx((0.898, 3.762), abs=1e-3)


def test_paired_comparison_agrees_with_student() -> None:
    # Student (1908), section IX: the odds that the second drug is the better soporific are about
    # 666 to 1 (0.9985).
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = stats.compare_pairs(second, first, maximize=True)
    assert found["probability"] == pytest.approx(0.9985, abs=2e-4)
    assert found["mean"] == pytest.approx(1.58)
    assert (found["better"], found["equal"], found["n"]) == (9, 1, 10)
    other = stats.compare_pairs(second, first, maximize=False)
    assert other["probability"] == pytest.approx(1 - found["probability"])
    assert other["differences"] == pytest.approx([-d for d in found["differences"]])


def test_the_probability_is_that_of_the_posterior() -> None:
    a, b = [0.99, 0.985, 0.991, 0.988], [0.984, 0.986, 0.987, 0.985]
    d = np.subtract(a, b)
    rng = np.random.default_rng(1)
    # The reference posterior by its definition: sigma^2 from a scaled inverse chi-square, then mu
    # given sigma.
    sigma2 = d.var(ddof=1) * 3 / rng.chisquare(3, 200_000)
    mu = rng.normal(d.mean(), np.sqrt(sigma2 / 4))
    assert stats.compare_pairs(a, b, maximize=True)["probability"] == pytest.approx(
        (mu > 0).mean(), abs=0.004
    )


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "no value"),
        ([0.5], "one value"),
        ([0.5, 0.7], "too few"),
        ([0.5, 0.5, 0.5], "equal"),
    ],
)
def test_no_interval_is_made_up(values: list[float], why: str) -> None:
    found = stats.estimate_mean(values)
    assert found["interval"] is None
    assert why in found["why_not"]
    assert found["n"] == len(values)
    assert stats.compare_pairs(values, [v - 0.1 for v in values], maximize=True)["interval"] is None


def test_equal_differences_have_no_probability_though_their_last_bits_differ() -> None:
    a = [0.97, 0.98, 0.99]
    found = stats.compare_pairs(a, [v - 0.01 for v in a], maximize=True)
    assert found["probability"] is None
    assert found["sd"] == 0
    assert found["mean"] == pytest.approx(0.01)


#: Of 10,000 examples, as a metric in single precision gives them: ten more right on either seed.
LEADER = [float(np.float32(count / 10_000)) for count in (9917, 9919)]
BEHIND = [float(np.float32(count / 10_000)) for count in (9907, 9909)]


def test_equal_differences_of_counts_are_equal() -> None:
    assert LEADER[0] - BEHIND[0] != LEADER[1] - BEHIND[1], "in their last bits"
    found = stats.compare_pairs(LEADER, BEHIND, maximize=True)
    assert found["why_not"] == "all 2 values are equal"
    assert found["student"] is None
    assert found["probability"] is None


@pytest.mark.parametrize(
    "values",
    [
        [10, 20, 30],  # resamples that hold each once have the very mean
        [5, 5, 8, 12, 20],
        [-3, 0, 4, 11],
    ],
)
def test_resamples_that_are_tied_with_the_mean_count_by_half(values: list[int]) -> None:
    """However the last bits of the same counts lie."""
    exact = [count / 10_000 for count in values]
    scores = [float(np.float32(0.9 + value)) for value in exact]
    base = [float(np.float32(0.9))] * len(values)
    found = stats.compare_pairs(scores, base, maximize=True)
    assert found["interval"] == pytest.approx(stats.estimate_mean(exact)["interval"], abs=1e-6)


@pytest.mark.parametrize(
    ("n", "method"),
    [(2, "Student's t"), (3, "Student's t"), (20, "Student's t"), (50, "BCa bootstrap")],
)
def test_the_interval_that_is_quoted_goes_by_the_number_of_values(n: int, method: str) -> None:
    estimate = stats.estimate_mean(np.random.default_rng(n).normal(size=n).tolist())
    quoted = stats.quote_interval(estimate)
    assert quoted is not None
    assert quoted.method == method
    assert quoted.ends == estimate["student" if method == "Student's t" else "interval"]


def test_nothing_is_quoted_where_there_is_no_spread() -> None:
    for values in ([], [0.5], [0.5, 0.5, 0.5]):
        assert stats.quote_interval(stats.estimate_mean(values)) is None
    assert stats.quote_interval(None) is None


def test_two_samples_are_quoted_by_welch() -> None:
    quoted = stats.quote_interval(stats.estimate_difference([1.0, 2.0, 4.0], [0.0, 1.0, 1.5]))
    assert quoted is not None
    assert quoted.method == "Welch's t"


def test_the_order_of_the_values_changes_no_bit() -> None:
    values = [0.9905, 0.9911, 0.9899, 0.991, 0.9903]
    assert stats.estimate_mean(values) == stats.estimate_mean(values[::-1])
