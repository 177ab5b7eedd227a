"""The axes of the figures: the range of scores that is worth the ink, ticks and labels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from dlsearch.report.formats import number, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from dlsearch.report.facts.contents import ObjectiveRow

#: A range is cut off where it is this many times as wide as what the better trials need.
CUT_RATIO = 1.5
#: Fewer scores than these are all shown.
FEWEST_SCORES_TO_CUT = 6
MOST_DECIMALS = 12


@dataclass(frozen=True)
class Range:
    """The range of scores that a figure shows; scores outside are set on its rim."""

    low: float
    high: float
    cut: int = 0

    @property
    def span(self) -> float:
        """The distance between its ends."""
        return self.high - self.low

    def clamp(self, value: float) -> float:
        """`value`, moved onto the rim where it lies outside."""
        return min(max(value, self.low), self.high)

    def is_outside(self, value: float) -> bool:
        """Whether `value` lies outside of the range."""
        return not self.low <= value <= self.high


def padded_range(values: Sequence[float], share: float) -> Range:
    """A range that cuts nothing off, wider than the values by a share of their span."""
    low = min(values)
    high = max(values)
    pad = share * (high - low) or max(abs(high) * 0.01, 1e-3)
    return Range(low - pad, high + pad)


def focused_range(values: Sequence[float], maximize: bool) -> Range:
    """The range in which the better three quarters of `values` are distinct.

    A few diverged trials would otherwise press all others into one line.
    """
    sign = 1 if maximize else -1
    ordered = sorted(sign * value for value in values)
    if not ordered:
        return Range(0.0, 1.0)
    best = ordered[-1]
    floor = _floor_of(ordered)
    span = (best - floor) or max(abs(best) * 0.05, 1e-3)
    low = floor - 0.05 * span
    high = best + 0.08 * span
    cut = sum(value < low for value in ordered)
    if maximize:
        return Range(low, high, cut)
    return Range(-high, -low, cut)


def _floor_of(ordered: Sequence[float]) -> float:
    """The poorest score that is shown, of scores from the poorest to the best."""
    poorest = ordered[0]
    best = ordered[-1]
    quarter = ordered[len(ordered) // 4]
    if best <= quarter or len(ordered) < FEWEST_SCORES_TO_CUT:
        return poorest
    floor = max(poorest, best - 2.0 * (best - quarter))
    if best - poorest < CUT_RATIO * (best - floor):
        return poorest
    return floor


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round tick values inside ``[low, high]``."""
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10])
    slack = 1e-9 * (high - low)
    return [
        float(f"{value:.12g}")
        for value in locator.tick_values(low, high)
        if low - slack <= value <= high + slack
    ]


def set_score_axis(
    ax: Axes,
    shown: Range,
    percent: bool,
    axis: Literal["x", "y"] = "y",
    most: int = 5,
) -> None:
    """Set limits and ticks of a score; in per cent the label says so, the ticks need not."""
    values = round_ticks(shown.low, shown.high, most)
    labels = _score_labels(values, percent)
    if axis == "y":
        ax.set_ylim(shown.low, shown.high)
        ax.set_yticks(values, labels)
        ax.grid(axis="y")
    else:
        ax.set_xlim(shown.low, shown.high)
        ax.set_xticks(values, labels)
    ax.set_axisbelow(True)


def _score_labels(values: Sequence[float], percent: bool) -> list[str]:
    factor = 100 if percent else 1
    step = min((b - a for a, b in pairwise(values)), default=1.0) * factor
    if not percent and not 1e-4 <= step < 1e6:
        return [number(value, 3) for value in values]
    decimals = _decimals_of(step)
    texts = [f"{factor * value:,.{decimals}f}" for value in values]
    return [text.replace("-", "−") for text in texts]


def _decimals_of(step: float) -> int:
    """As many decimals as the step has: 2 needs none, 2.5 one, 0.25 two."""
    for decimals in range(MOST_DECIMALS):
        scaled = step * 10**decimals
        if abs(scaled - round(scaled)) < 1e-6 * step * 10**decimals:
            return decimals
    return MOST_DECIMALS


def set_round_xticks(ax: Axes, most: int, *, whole: bool = False) -> None:
    """At most `most` round ticks along x."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=most, integer=whole))


def set_round_yticks(ax: Axes, most: int) -> None:
    """At most `most` round ticks along y."""
    from matplotlib.ticker import MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(nbins=most))


def objective_label(objective: ObjectiveRow, length: int = 40) -> str:
    """How an axis names an objective."""
    unit = " (%)" if objective["percent"] else ""
    return short(str(objective["name"]), length) + unit


def remove_frame(ax: Axes) -> None:
    """Remove the frame, which says nothing."""
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", pad=2)
