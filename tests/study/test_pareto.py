"""The Pareto front against its definition."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from dlsearch.study.pareto import pareto_front


def by_definition(points, maximize):
    whole = [
        (n, values)
        for n, values in points
        if all(v is not None and not math.isnan(v) for v in values)
    ]
    costs = {
        n: [-v if up else v for v, up in zip(values, maximize, strict=True)] for n, values in whole
    }

    def dominated(mine):
        return any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine
            for other in costs.values()
        )

    return sorted(n for n, mine in costs.items() if not dominated(mine))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_front_is_what_no_other_dominates(objectives):
    rng = random.Random(objectives)
    # Few distinct values: ties in one objective, and points that are equal.
    values = [*(each / 4 for each in range(5)), math.inf, -math.inf, math.nan, None]
    for maximize in itertools.product([True, False], repeat=objectives):
        for _ in range(30):
            points = [
                (
                    n,
                    tuple(
                        rng.choice(values) if rng.random() < 0.3 else rng.random()
                        for _ in range(objectives)
                    ),
                )
                for n in rng.sample(range(1000), rng.randrange(40))
            ]
            assert pareto_front(points, maximize) == by_definition(points, maximize)


def test_equal_points_stand_beside_each_other():
    assert pareto_front([(3, (1.0, 2.0)), (1, (1.0, 2.0)), (2, (1.0, 3.0))], [False, False]) == [
        1,
        3,
    ]


@pytest.mark.parametrize("points", [[], [(0, (None, 1.0))], [(0, (math.nan, 1.0))]])
def test_without_a_point_there_is_no_front(points):
    assert pareto_front(points, [True, True]) == []


@pytest.mark.timeout(60)
def test_a_front_of_many_points_of_two_objectives():
    """A comparison of all pairs would take hours."""
    along = np.linspace(0.0, 1.0, 200_000)
    points = [(n, (x, 1.0 - x)) for n, x in enumerate(along.tolist())]
    assert len(pareto_front(points, [True, True])) == len(points)
