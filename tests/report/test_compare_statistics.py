"""Against published answers."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from scipy.stats import norm

from dlsearch.report.compare.statistics import (
    adjust_holm,
    compare_paired,
    compare_welch,
    mcnemar_p,
    newcombe_interval,
    share_of_superior,
)
from dlsearch.report.facts import intervals

# Student's sleep data (Biometrika, 1908): hours gained by ten patients with two drugs.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_paired_t_of_students_sleep_data() -> None:
    found = compare_paired(FIRST, SECOND)
    assert found["difference"] == pytest.approx(-1.58)
    assert found["p"] == pytest.approx(0.002833, abs=1e-6)
    assert found["student"] == pytest.approx([-2.4598858, -0.7001142], abs=1e-7)
    assert found["smallest_p"] == 2 / 1024


def test_paired_permutation_is_the_share_of_sign_flips() -> None:
    differences = [a - b for a, b in zip(FIRST, SECOND, strict=True)]
    flips = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
             for signs in itertools.product((1, -1), repeat=10)]  # fmt: skip
    expected = sum(f >= abs(sum(differences)) - 1e-9 for f in flips) / len(flips)
    assert compare_paired(FIRST, SECOND)["permutation_p"] == pytest.approx(expected)


def test_five_pairs_that_all_agree_reach_the_smallest_p() -> None:
    found = compare_paired([0.9, 0.91, 0.93, 0.92, 0.95], [0.8, 0.82, 0.81, 0.8, 0.83])
    assert found["permutation_p"] == pytest.approx(2 / 32) == found["smallest_p"]


def test_welch_of_students_sleep_data() -> None:
    found = compare_welch(FIRST, SECOND)
    assert found["p"] == pytest.approx(0.07939, abs=1e-5)
    assert found["df"] == pytest.approx(17.776, abs=1e-3)
    assert found["student"] == pytest.approx([-3.3654832, 0.2054832], abs=1e-7)


def bca(samples: list[list[float]], sign: float, draws: int = 200_000) -> list[float]:
    """Efron's interval (1987) of the mean, or of a difference of two, written out: formulas 2.3, 6.6 and 14.15 of
    Efron and Tibshirani (1993), the acceleration of two samples by their pooled influences.
    """
    rng = np.random.default_rng(7)
    signs = (1.0, sign)[: len(samples)]
    arrays = [np.asarray(s) for s in samples]
    drawn = sum(
        g * x[rng.integers(len(x), size=(draws, len(x)))].mean(1)
        for g, x in zip(signs, arrays, strict=True)
    )
    here = sum(g * x.mean() for g, x in zip(signs, arrays, strict=True))
    z0 = norm.ppf(((drawn < here).mean() + (drawn <= here).mean()) / 2)
    # The influence of each value on its mean is its distance from it, over the number of them.
    pulls = np.concatenate(
        [g * (x - x.mean()) / len(x) for g, x in zip(signs, arrays, strict=True)]
    )
    a = (pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5)
    ends = [norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in norm.ppf([0.025, 0.975])]
    return list(np.quantile(drawn, ends))


def test_the_interval_of_paired_differences_is_bca() -> None:
    found = compare_paired(FIRST, SECOND)
    assert found["method"] == "BCa bootstrap"
    assert found["interval"] == pytest.approx(
        bca([[a - b for a, b in zip(FIRST, SECOND, strict=True)]], 1), abs=0.05
    )
    assert found["interval"] != pytest.approx(found["student"], abs=0.05)
    assert found["interval"] == intervals.compare_pairs(FIRST, SECOND, maximize=True)["interval"], (
        "the report's own"
    )


def test_the_interval_of_two_samples_is_bca() -> None:
    skewed = [0.1, 0.12, 0.11, 0.15, 0.9, 0.13, 0.1]
    found = compare_welch(skewed, SECOND)
    assert found["method"] == "BCa bootstrap"
    assert found["interval"] == pytest.approx(bca([skewed, SECOND], -1), abs=0.05)
    assert found["interval"] != pytest.approx(found["student"], abs=0.05)
    assert compare_welch(SECOND, skewed)["interval"] == pytest.approx(
        [-e for e in reversed(found["interval"])], abs=0.1
    )
    assert compare_welch(skewed[::-1], SECOND)["interval"] == found["interval"], (
        "whatever the order"
    )


@pytest.mark.parametrize(
    ("test", "left"), [(compare_paired, [0.9, 0.8]), (compare_welch, [0.9, 0.8])]
)
def test_two_values_are_too_few_for_a_bootstrap(test, left) -> None:
    found = test(left, [0.7, 0.75])
    assert (found["interval"], found["method"]) == (None, None)
    assert found["why_not"] == "2 values are too few for a bootstrap"
    assert found["student"] is not None


def test_unpaired_permutation_is_the_share_of_assignments() -> None:
    a, b = [0.95, 0.96, 0.99, 0.94], [0.93, 0.955, 0.92, 0.9]
    pool, observed = a + b, abs(statistics.fmean(a) - statistics.fmean(b))
    at_least = [abs(statistics.fmean(pool[i] for i in chosen)
                    - statistics.fmean(pool[i] for i in range(8) if i not in chosen)) >= observed - 1e-9
                for chosen in itertools.combinations(range(8), 4)]  # fmt: skip
    assert compare_welch(a, b)["permutation_p"] == pytest.approx(sum(at_least) / len(at_least))


def test_hedges_g_is_cohens_d_made_smaller_for_few_values() -> None:
    pooled = ((statistics.variance(FIRST) + statistics.variance(SECOND)) / 2) ** 0.5
    d = (statistics.fmean(FIRST) - statistics.fmean(SECOND)) / pooled
    assert compare_welch(FIRST, SECOND)["effect"] == pytest.approx(
        d * (1 - 3 / (4 * 18 - 1)), abs=2e-4
    )


def test_values_without_spread_have_no_t_test() -> None:
    same = compare_paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (same["p"], same["difference"]) == (1.0, 0.0)
    shifted = compare_paired([0.5, 0.6, 0.7], [0.25, 0.35, 0.45])
    assert (shifted["p"], shifted["difference"]) == (None, pytest.approx(0.25))
    constant = compare_welch([0.5, 0.5], [0.25, 0.25])
    assert (constant["p"], constant["effect"]) == (None, None)
    assert constant["interval"] is shifted["interval"] is None
    assert (constant["why_not"], shifted["why_not"]) == (
        "all values of each are equal",
        "all 3 values are equal",
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((56, 70, 48, 80), (0.0524, 0.3339)), ((9, 10, 3, 10), (0.1705, 0.8090))],
)
def test_newcombe_has_the_intervals_of_his_table(
    counts: tuple[int, int, int, int], expected: tuple[float, float]
) -> None:
    assert newcombe_interval(*counts) == pytest.approx(expected, abs=5e-5)


def test_holm_steps_down() -> None:
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.9, 0.8]) == [1.0, 1.0]


def test_mcnemar_is_a_binomial_test_of_the_discordant() -> None:
    assert mcnemar_p(2, 10) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar_p(0, 0) == 1.0


def test_superiority_counts_ties_half() -> None:
    assert share_of_superior([1, 2], [1, 0]) == pytest.approx((0.5 + 1 + 1 + 1) / 4)
