"""Which results no other result dominates. Imports NumPy when it is called."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


def pareto_front(
    points: Sequence[tuple[int, Sequence[float | None]]],
    maximize: Sequence[bool],
) -> list[int]:
    """Numbers of the points that no other point dominates, in order of number.

    Equal points do not dominate each other. It takes O(n log n) for one and two objectives, and one
    pass over the points that are still in question for each point of the front beyond.

    Args:
        points: The number and the values of each; a point without a value for each objective is
            left out.
        maximize: Whether more is better, for each objective.
    """
    import numpy as np

    whole = [(number, values) for number, values in points if _is_whole(values)]
    if not whole:
        return []
    signs = np.where(maximize, -1.0, 1.0)
    values = np.array([values for _, values in whole], dtype=float)
    # sorted: none dominates an earlier one
    distinct, inverse = np.unique(values * signs, axis=0, return_inverse=True)
    on_front = _front_of_two(distinct) if distinct.shape[1] <= 2 else _front_of_many(distinct)
    is_kept = on_front[inverse.reshape(-1)]
    numbers = []
    for (number, _), kept in zip(whole, is_kept, strict=True):
        if kept:
            numbers.append(number)
    return sorted(numbers)


def _is_whole(values: Sequence[float | None]) -> bool:
    """Whether there is a value for each objective."""
    return all(value is not None and not math.isnan(value) for value in values)


def _front_of_two(costs: np.ndarray) -> np.ndarray:
    """A mask of the front of sorted, distinct costs.

    Each has a smaller last cost than all before.
    """
    import numpy as np

    if costs.shape[1] == 1:
        return np.arange(len(costs)) == 0
    least = np.minimum.accumulate(costs[:, 1])
    return np.append(True, costs[1:, 1] < least[:-1])


def _front_of_many(costs: np.ndarray) -> np.ndarray:
    """A mask of the front of sorted, distinct costs.

    The first that is left is on it, and what it dominates goes.
    """
    import numpy as np

    on_front = np.zeros(len(costs), dtype=bool)
    left = np.arange(len(costs))
    while len(left):
        first = left[0]
        on_front[first] = True
        is_better_somewhere = (costs[left] < costs[first]).any(axis=1)
        left = left[is_better_somewhere]
    return on_front
