"""Who is trained again, who is dropped, who wins: decisions alone, without storage or training."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

from dlsearch.confirmation.racing import (
    ERROR_RATE,
    FIRST_RULE,
    RULE,
    Candidate,
    Finalist,
    chance,
    finalists,
    key,
    mean,
    race,
    weigh_dropped,
)


def candidates(*values, default=None, params=None):
    return [
        Candidate(n, (params or {}).get(n, {"lr": n}), value, default=n == default)
        for n, value in enumerate(values)
    ]


def field(k=3, *, default=True):
    found = [Finalist(n, False, {"lr": n}, 0.9 - n / 100) for n in range(k)]
    return [*found, Finalist(None, True, {"lr": 99}, None)] if default else found


def rows(*values):
    return [dict(enumerate(row)) for row in values]


# -- finalists ---------------------------------------------------------------------------------------------------
def test_the_best_and_the_default_configuration():
    found = finalists(candidates(0.1, 0.9, 0.5, 0.7), top=2, maximize=True, defaults={"lr": 42})
    assert [f.trial_number for f in found] == [1, 3, None]
    assert [f.default for f in found] == [False, False, True]
    assert found[-1].params == {"lr": 42}
    assert found[-1].search_value is None
    assert found[-1].trained_params == {}, "trained as composed"
    assert found[0].trained_params == {"lr": 1}


def test_less_is_better_where_that_is_the_direction():
    found = finalists(candidates(0.1, 0.9, 0.5), top=2, maximize=False)
    assert [f.trial_number for f in found] == [0, 2, None]


def test_a_default_that_was_a_trial_is_that_trial():
    found = finalists(
        candidates(0.1, 0.9, 0.5, default=0), top=2, maximize=True, defaults={"lr": 0}
    )
    assert [(f.trial_number, f.default, f.search_value) for f in found] == [
        (1, False, 0.9), (2, False, 0.5), (0, True, 0.1),
    ]  # fmt: skip


def test_a_default_among_the_best_is_not_run_twice():
    found = finalists(
        candidates(0.95, 0.9, 0.5, default=0), top=2, maximize=True, defaults={"lr": 0}
    )
    assert [(f.trial_number, f.default) for f in found] == [(0, True), (1, False)]
    by_value = finalists(candidates(0.95, 0.9, 0.5), top=2, maximize=True, defaults={"lr": 1})
    assert [(f.trial_number, f.default) for f in by_value] == [(0, False), (1, True)]


def test_equal_parameters_are_one_finalist_the_first_trial():
    given = candidates(0.9, 0.9, 0.8, 0.7, params={1: {"lr": 0}})
    assert [f.trial_number for f in finalists(given, top=3, maximize=True, defaults={"lr": 9})] == [
        0,
        2,
        3,
        None,
    ]
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})


def test_fewer_trials_than_places():
    assert [f.trial_number for f in finalists(candidates(0.5), top=3, maximize=True)] == [0, None]


# -- the order of work -------------------------------------------------------------------------------------------
def test_replicas_are_run_seed_by_seed():
    now = race(field(2), [{}, {}, {}], 3, maximize=True, racing=False)
    assert now.wanted == [(f, i) for i in range(3) for f in range(3)]
    assert not now.decided


def test_while_racing_only_the_default_runs_ahead_of_a_comparison():
    now = race(field(2), [{}, {}, {}], 4, maximize=True, racing=True)
    assert now.wanted == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (2, 2), (2, 3)]
    values = [{0: 0.9, 1: 0.91}, {0: 0.9}, {0: 0.8, 1: 0.8, 2: 0.8}]
    assert race(field(2), values, 4, maximize=True, racing=True).wanted == [(1, 1), (2, 3)]


def test_the_winner_has_the_best_mean_and_its_best_replica_is_kept():
    values = rows([0.90, 0.92, 0.91], [0.93, 0.90, 0.93], [0.80, 0.80, 0.80])
    now = race(field(2), values, 3, maximize=True, racing=False)
    assert (now.decided, now.winner, now.kept, now.wanted, now.dropped) == (True, 1, 0, [], {})
    now = race(field(2), values, 3, maximize=False, racing=False)
    assert (now.winner, now.kept) == (2, 0)


def test_ties_go_to_the_better_search_score_then_to_the_lower_number():
    same = rows([0.5, 0.5], [0.5, 0.5], [0.5, 0.5])
    finals = [
        Finalist(7, False, {}, 0.6),
        Finalist(3, False, {"a": 1}, 0.7),
        Finalist(None, True, {"a": 2}, None),
    ]
    assert race(finals, same, 2, maximize=True, racing=False).winner == 1
    assert race(finals, same, 2, maximize=False, racing=False).winner == 0
    finals[1] = Finalist(3, False, {"a": 1}, 0.6)
    assert race(finals, same, 2, maximize=True, racing=False).winner == 1


def test_the_default_configuration_can_win():
    assert race(field(1), rows([0.8, 0.8], [0.9, 0.9]), 2, maximize=True, racing=True).winner == 1


# -- failures ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("racing", [True, False])
def test_one_with_a_failure_does_not_win_while_another_has_none(racing):
    values = rows([0.99, None, 0.99, 0.99], [0.7, 0.71, 0.7, 0.72], [0.6, 0.6, 0.6, 0.6])
    now = race(field(2), values, 4, maximize=True, racing=racing)
    assert now.winner == 1
    assert now.dropped == ({0: 2} if racing else {})


def test_a_failure_ends_a_finalist_s_seeds_but_not_the_default_s():
    values = [{0: None, 1: 0.9}, {0: 0.7, 1: 0.7}, {0: None, 1: 0.6}]
    now = race(field(2), values, 4, maximize=True, racing=True)
    assert now.dropped == {0: 2}
    assert {f for f, _ in now.wanted} == {1, 2}


def test_where_all_have_failures_the_fewest_decide():
    values = rows([None, None, 0.99], [0.7, None, 0.7], [0.8, None, None])
    now = race(field(2), values, 3, maximize=True, racing=True)
    assert now.winner == 1
    assert now.kept == 0
    nothing = race(
        field(2), rows([None] * 3, [None] * 3, [None] * 3), 3, maximize=True, racing=True
    )
    assert (nothing.decided, nothing.winner, nothing.kept) == (True, None, None)


def test_those_that_were_dropped_come_back_when_all_that_are_left_fail():
    good, bad = [0.90, 0.901, 0.9], [0.50, 0.502]
    values = rows([*good, 0.9, None], bad, [0.3, 0.301, None, 0.3, 0.3])
    finals = field(2)
    now = race(finals, values, 5, maximize=True, racing=True)
    assert now.dropped == {}
    assert now.wanted == [(1, 2), (1, 3), (1, 4)]
    values[1] |= {2: 0.5, 3: 0.5, 4: 0.5}
    assert race(finals, values, 5, maximize=True, racing=True).winner == 1


# -- racing ------------------------------------------------------------------------------------------------------
def test_the_chance_to_end_ahead_is_that_of_the_predictive_distribution():
    """Against draws: a scaled inverse chi-squared variance, a normal mean, then the seeds to come."""
    lead, spread, degrees, seeds, n_seeds = 0.4, 0.5, 4, 3, 5
    rng = np.random.default_rng(1)
    n = 400_000
    sigma = np.sqrt(degrees * spread**2 / rng.chisquare(degrees, n))
    mu = rng.normal(lead, sigma / np.sqrt(seeds))
    rest = rng.normal(mu, sigma / np.sqrt(n_seeds - seeds))
    ahead = np.mean(seeds * lead + (n_seeds - seeds) * rest < 0)
    assert chance(lead, spread, degrees, seeds, n_seeds) == pytest.approx(ahead, abs=0.003)
    t = lead / spread * np.sqrt(seeds * n_seeds / (n_seeds - seeds))
    assert chance(lead, spread, degrees, seeds, n_seeds) == pytest.approx(stats.t.sf(t, degrees))


def test_without_any_spread_nothing_is_concluded():
    assert chance(0.1, 0.0, 3, 2, 5) == 1.0
    now = race(
        field(3), [{0: v, 1: v} for v in (0.9, 0.5, 0.5, 0.4)], 5, maximize=True, racing=True
    )
    assert now.dropped == {}


def test_what_racing_saw_of_those_that_it_dropped():
    values = rows([0.90, 0.91, 0.9], [0.70, 0.712], [0.50, None], [0.1, 0.11])
    found = weigh_dropped(field(3), values, 5, maximize=True, rule=RULE)
    assert list(found) == [1], "the other one had failed"
    seeds, seen = found[1]
    assert seeds == 2
    spread = max(np.std([0.2, 0.198], ddof=1), 0)
    expected = chance(0.199, spread, 1, 2, 5)
    assert seen == pytest.approx(expected)
    assert weigh_dropped(field(3), values[:1] * 4, 5, maximize=True, rule=RULE) == {}


def test_what_is_far_behind_is_dropped_and_the_default_never():
    values = rows([0.90, 0.91], [0.70, 0.712], [0.50, 0.509], [0.1, 0.11])
    now = race(field(3), values, 5, maximize=True, racing=True)
    assert now.dropped == {1: 2, 2: 2}
    assert {f for f, _ in now.wanted} == {0, 3}
    assert race(field(3), values, 5, maximize=True, racing=False).dropped == {}
    flipped = [{i: -v for i, v in row.items()} for row in values]
    assert race(field(3), flipped, 5, maximize=False, racing=True).dropped == {1: 2, 2: 2}


def test_results_decide_and_not_the_order_in_which_they_came():
    values = rows(
        [0.90, 0.91, 0.9, 0.9, 0.9], [0.7, 0.712], [0.5, 0.509], [0.1, 0.1, 0.1, 0.1, 0.1]
    )
    whole = race(field(3), values, 5, maximize=True, racing=True)
    mixed = [dict(random.Random(3).sample(sorted(row.items()), len(row))) for row in values]
    assert race(field(3), mixed, 5, maximize=True, racing=True) == whole


def simulate(rng, gaps, noise, shared, n_seeds=5):
    """A race to its end: the winner with racing, that without, and how many replicas each took."""
    k = len(gaps)
    scores = (
        0.9
        - np.asarray(gaps)[:, None]
        + rng.normal(0, noise, (k, n_seeds))
        + rng.normal(0, shared, n_seeds)
    )
    return run(scores)


def run(scores):
    """A race on scores, a row each finalist, of which the last is the default configuration's."""
    k, n_seeds = scores.shape
    finals = field(k - 1)
    full = race(
        finals, [dict(enumerate(row)) for row in scores], n_seeds, maximize=True, racing=False
    )
    known = [{} for _ in range(k)]
    while not (now := race(finals, known, n_seeds, maximize=True, racing=True)).decided:
        for f, i in now.wanted:
            known[f][i] = float(scores[f, i])
    return now.winner, full.winner, sum(map(len, known)), now.dropped


def test_racing_rarely_drops_the_one_that_would_have_won():
    """Equal finalists are the worst case: every drop of one that would have won is an error."""
    rng = np.random.default_rng(7)
    n, wrong = 1500, 0
    for _ in range(n):
        raced, full, _, _ = simulate(rng, [0.0, 0.0, 0.0, 0.1], 0.002, 0.002)
        wrong += raced != full
    assert wrong / n < ERROR_RATE


# -- counts of examples as means of float32 ----------------------------------------------------------------------
def as_float32(counts, n_examples):
    """Accuracies, as a metric in single precision gives them."""
    return (np.asarray(counts) / n_examples).astype(np.float32).astype(float).tolist()


#: Three finalists of lenet_mnist: of 10,000 examples the second has 10 fewer right on either seed.
LENET = [as_float32(counts, 10_000) for counts in ([9917, 9919], [9907, 9909], [9906, 9906])]


def test_equal_differences_of_counts_are_no_spread():
    leads = [first - second for first, second in zip(LENET[0], LENET[1], strict=True)]
    assert leads[0] != leads[1], "in their last bits"
    finals = [*field(2, default=False), Finalist(0, True, {}, 0.99)]
    assert race(finals, rows(*LENET), 5, maximize=True, racing=True).dropped == {}


def test_a_round_that_began_under_the_first_rule_is_decided_by_it():
    finals = [*field(2, default=False), Finalist(0, True, {}, 0.99)]
    now = race(finals, rows(*LENET), 5, maximize=True, racing=True, rule=FIRST_RULE)
    assert now.dropped == {1: 2}


def test_means_of_equal_counts_are_tied_whatever_their_last_bits():
    counts = [[9917, 9919, 9915], [9916, 9916, 9919]]  # 29,751 right of each
    values = rows(*(as_float32(row, 10_000) for row in counts))
    assert mean(values[0]) != mean(values[1]), "in their last bits"
    for better in (0, 1):
        finals = [Finalist(n, False, {"n": n}, 0.9 + 0.01 * (n == better)) for n in range(2)]
        assert race(finals, values, 3, maximize=True, racing=False).winner == better


def written_otherwise(counts, n_examples):
    """The same scores as other programs write them, and whether more of them is better."""
    exact = np.asarray(counts) / n_examples
    single = exact.astype(np.float32)
    yield exact, True
    yield single, True
    yield np.float32(100) * single, True
    yield np.float32(1) - single, False
    yield single - np.float32(0.5), True


def test_rounding_to_float32_changes_no_verdict():
    """Nor does a shift or a scale in single precision: all of them have many ties."""
    rng = np.random.default_rng(5)
    dropped = 0
    for _ in range(400):
        n_examples = int(rng.choice([100, 1000, 10_000, 60_000]))
        seeds = int(rng.integers(2, 5))
        counts = np.round(0.97 * n_examples) + rng.integers(0, 4, (4, seeds))
        counts[1:3] -= rng.integers(0, 12, (2, 1))
        verdicts = []
        for scores, maximize in written_otherwise(counts, n_examples):
            values = rows(*scores.astype(float).tolist())
            finals = [Finalist(n, n == 3, {"n": n}, None) for n in range(4)]
            verdicts.append(race(finals, values, 5, maximize=maximize, racing=True).dropped)
        assert all(verdict == verdicts[0] for verdict in verdicts), (counts, verdicts)
        dropped += bool(verdicts[0])
    assert dropped > 20, "or nothing was shown"


@pytest.mark.parametrize("noise", [0.3, 0.6, 2.0])
def test_racing_rarely_errs_on_counts_that_are_often_equal(noise):
    """Equal finalists whose counts vary by about one example."""
    rng = np.random.default_rng(11)
    n = 400
    wrong = 0
    for _ in range(n):
        shared = rng.normal(9900, 3, 5)
        counts = np.round(shared + rng.normal(0, noise, (4, 5)))
        counts[3] -= 500
        scores = np.asarray([as_float32(row, 10_000) for row in counts])
        raced, full, _, _ = run(scores)
        wrong += raced != full
    assert wrong / n < ERROR_RATE


def test_racing_keeps_the_best_and_saves_the_seeds_of_the_hopeless():
    rng = np.random.default_rng(8)
    n, kept, replicas = 300, 0, 0
    for _ in range(n):
        raced, _, took, dropped = simulate(rng, [0.0, 0.02, 0.03, 0.1], 0.002, 0.002)
        kept += raced == 0 and 0 not in dropped
        replicas += took
    assert kept == n
    assert replicas / n < 16, "of 20 without racing; 14 is the least"


def test_mean_of_those_that_have_a_value():
    assert mean({0: 0.5, 1: None, 2: 0.7}) == pytest.approx(0.6)
    assert mean({0: None}) is None
