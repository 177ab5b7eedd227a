"""Time on slots: the clock of the timeline, how many slots were busy, what filled each lane."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dlsearch.report.facts.contents import Bar

#: Units of the time axis: seconds in one, its name. One that shows the study in few is taken.
UNITS = ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"))
MOST_UNITS = 180
#: Width of a gap on the axis as a share of the time in which something ran.
GAP_SHARE = 0.03

#: A stretch of a lane: the lane, from, to.
Span: TypeAlias = tuple[int, float, float]


class Clock:
    """Time as the figure shows it: from the first start, without the gaps in which nothing ran.

    Args:
        start: When the first attempt began, in seconds since 1970.
        end: When the last one ended.
        gaps: Beginning and end of each gap.
    """

    def __init__(
        self,
        start: float,
        end: float,
        gaps: Sequence[tuple[float, float]],
    ) -> None:
        self._start = start
        self._gaps = gaps
        active = end - start - sum(after - before for before, after in gaps)
        self._stub = GAP_SHARE * active
        total = active + self._stub * len(gaps)
        self.unit, self.name = _unit_of(total)
        self.total = total / self.unit

    def place_of(self, moment: float) -> float:
        """The place of `moment` in units of the axis."""
        x = moment - self._start
        for before, after in self._gaps:
            shift = self._stub - (after - before)
            if moment >= after:
                x += shift
            elif moment > before:
                x += shift * (moment - before) / (after - before)
        return x / self.unit

    def gaps_on_axis(self) -> list[tuple[float, float]]:
        """Middle of each gap on the axis, and its length in seconds."""
        return [
            ((self.place_of(before) + self.place_of(after)) / 2, after - before)
            for before, after in self._gaps
        ]


def _unit_of(total_seconds: float) -> tuple[float, str]:
    for seconds, name in UNITS:
        if total_seconds / seconds <= MOST_UNITS:
            return seconds, name
    return UNITS[-1]


def busy_level(
    steps: Sequence[tuple[float, float]],
    width: int,
) -> tuple[list[float], list[float]]:
    """How many slots are busy: places on the axis, and the number from each on.

    Of more steps than the figure has half points, the mean over each of those.
    """
    import numpy as np

    xs, ys = np.array(steps).T
    if len(xs) > 4 * width:
        edges = np.linspace(xs[0], xs[-1], 2 * width)
        areas = np.diff(xs) * ys[:-1]
        total = np.concatenate([[0.0], np.cumsum(areas)])
        means = np.diff(np.interp(edges, xs, total)) / np.diff(edges)
        xs = edges
        ys = np.append(means, means[-1])
    return xs.tolist(), ys.tolist()


def merge_bars(
    bars: Sequence[Bar],
    lanes: Mapping[str, int],
    clock: Clock,
    pixels_per_unit: float,
) -> dict[str, list[Span]]:
    """What filled most of each half point of a lane, by state; equal neighbours are joined."""
    import numpy as np

    columns = max(1, math.ceil(2 * pixels_per_unit * clock.total))
    column_width = clock.total / columns
    states = list(dict.fromkeys(bar.state for bar in bars))
    filled = np.zeros((len(lanes), len(states), columns))
    for bar in bars:
        _fill_columns(
            filled[lanes[bar.slot], states.index(bar.state)],
            left=clock.place_of(bar.start) / column_width,
            right=clock.place_of(bar.end) / column_width,
        )
    found: dict[str, list[Span]] = {}
    for lane, shares in enumerate(filled):
        for state, first, last in _runs_of_states(shares):
            span = (lane, first * column_width, last * column_width)
            found.setdefault(states[state], []).append(span)
    return {state: found[state] for state in states if state in found}


def _fill_columns(row: NDArray[Any], left: float, right: float) -> None:
    """Add the stretch from `left` to `right` to the columns of a row, in shares of a column."""
    first = min(int(left), len(row) - 1)
    last = min(int(right), len(row) - 1)
    row[first : last + 1] += 1
    row[first] -= left - first
    row[last] -= last + 1 - right


def _runs_of_states(shares: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Runs of columns that one state fills most: its index, the first column, the one after.

    Args:
        shares: (states, columns), how much of a column each state fills.
    """
    import numpy as np

    is_filled = shares.sum(axis=0) > 0
    shown = np.where(is_filled, shares.argmax(axis=0), -1)
    changes = np.flatnonzero(np.diff(shown)) + 1
    edges = [0, *changes.tolist(), len(shown)]
    return [
        (int(shown[first]), first, after)
        for first, after in itertools.pairwise(edges)
        if shown[first] >= 0
    ]
