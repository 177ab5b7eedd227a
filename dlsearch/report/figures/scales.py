"""Axes of the figures: the scale of a hyperparameter, the range of scores that is worth the ink, and ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dlsearch.report.formats import number, short
from dlsearch.report.statistics import choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Scale:
    """Where a hyperparameter's values lie: linear, logarithmic or one place a category."""

    name: str
    kind: str
    low: float
    high: float
    categories: tuple[Any, ...] = ()

    @property
    def categorical(self) -> bool:
        """Whether the values have no order of their own."""
        return self.kind == "categorical"

    def at(self, value: Any) -> float | None:
        """The place of `value`: 0 at the lower end of the range, 1 at the upper; None where it has none."""
        if self.categorical:
            key = choice(value)
            places = [i for i, c in enumerate(self.categories) if c == key and type(c) is type(key)]
            return None if not places else (places[0] + 0.5) / len(self.categories)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if self.kind == "log":
            if value <= 0:
                return None
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5, length: int = 12) -> list[tuple[float, str]]:
        """Places and labels of at most about `most` ticks (of all categories)."""
        if self.categorical:
            n = len(self.categories)
            return [((i + 0.5) / n, short(number(c), length)) for i, c in enumerate(self.categories)]
        if self.kind == "log":
            a, b = math.log10(self.low), math.log10(self.high)
            values: list[float] = []
            for steps in ((1,), (1, 3), (1, 2, 5)):
                values = [
                    m * 10.0**e
                    for e in range(math.floor(a), math.ceil(b) + 1)
                    for m in steps
                    if self.low * 0.999 <= m * 10.0**e <= self.high * 1.001
                ]
                if len(values) >= 3:
                    break
            values = values[:: -(-len(values) // most)] if values else [self.low, self.high]
            return [(self.at(v) or 0.0, _power(v)) for v in values]
        return [((v - self.low) / (self.high - self.low), number(v)) for v in nice(self.low, self.high, most)]


def _power(value: float) -> str:
    return number(value) if 1e-3 <= value < 1e5 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def nice(low: float, high: float, most: int = 5) -> list[float]:
    """Round tick values inside ``[low, high]``."""
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(f"{v:.12g}") for v in values if low - slack <= v <= high + slack]


def scales(f: dict[str, Any]) -> list[Scale]:
    """The scale of every hyperparameter that a trial carries, wide enough for every value that was tried."""
    space = {d["name"]: d for d in f["study"].get("space") or []}
    out = []
    for name in f["varied"]:
        tried = [t["params"][name] for t in f["trials"] if name in t["params"]]
        if tried:
            out.append(_scale(name, space.get(name) or {}, tried))
    return out


def _scale(name: str, d: dict[str, Any], tried: Sequence[Any]) -> Scale:
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in tried)
    if d.get("kind") == "categorical" or not numeric:
        seen = [choice(v) for v in [*(d.get("choices") or []), *tried]]
        unique = list(dict.fromkeys((type(c).__name__, c) for c in seen))
        return Scale(name, "categorical", 0.0, 1.0, tuple(c for _, c in unique))
    ends = [float(v) for v in [*tried, d.get("low"), d.get("high")] if v is not None]
    low, high = min(ends), max(ends)
    if d.get("log") and low > 0:
        return Scale(name, "log", low / (1 if low < high else 1.5), high * (1 if low < high else 1.5))
    pad = 0.0 if low < high else max(abs(low) * 0.1, 0.5)
    return Scale(name, "linear", low - pad, high + pad)


@dataclass(frozen=True)
class Range:
    """The range of scores that a figure shows; scores outside are set on its rim."""

    low: float
    high: float
    cut: int

    def inside(self, value: float) -> float:
        """`value`, moved onto the rim where it lies outside."""
        return min(max(value, self.low), self.high)

    def outside(self, value: float) -> bool:
        """Whether `value` lies outside of the range."""
        return not self.low <= value <= self.high


def focus(values: Sequence[float], maximize: bool) -> Range:
    """The range in which the better three quarters of `values` can be told apart.

    A few diverged trials would otherwise press all others into one line.
    """
    sign = 1 if maximize else -1
    ordered = sorted(sign * v for v in values)
    if not ordered:
        return Range(0.0, 1.0, 0)
    best, quarter = ordered[-1], ordered[len(ordered) // 4]
    floor = max(ordered[0], best - 2.0 * (best - quarter)) if best > quarter else ordered[0]
    if len(ordered) < 6 or (best - ordered[0]) < 1.5 * (best - floor):
        floor = ordered[0]
    span = (best - floor) or max(abs(best) * 0.05, 1e-3)
    low, high = floor - 0.05 * span, best + 0.08 * span
    cut = sum(v < low for v in ordered)
    return Range(*((low, high) if maximize else (-high, -low)), cut)


def score_axis(ax: Axes, shown: Range, percent: bool, axis: str = "y", most: int = 5) -> None:
    """Set limits and ticks of a score; in per cent the label says so, the ticks need not."""
    values = nice(shown.low, shown.high, most)
    step = min((b - a for a, b in pairwise(values)), default=1.0) * (100 if percent else 1)
    # As many decimals as the step has: 2 needs none, 2.5 one, 0.25 two.
    digits = next((d for d in range(12) if abs(step * 10**d - round(step * 10**d)) < 1e-6 * step * 10**d), 12)
    plain = percent or 1e-4 <= step < 1e6
    labels = [f"{100 * v if percent else v:,.{digits}f}".replace("-", "−") if plain else number(v, 3) for v in values]
    if axis == "y":
        ax.set_ylim(shown.low, shown.high)
        ax.set_yticks(values, labels)
        ax.grid(axis="y")
    else:
        ax.set_xlim(shown.low, shown.high)
        ax.set_xticks(values, labels)
    ax.set_axisbelow(True)


def xticks(ax: Axes, most: int, *, whole: bool = False) -> None:
    """At most `most` round ticks along x."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=most, integer=whole))


def label(objective: dict[str, Any], length: int = 40) -> str:
    """How an axis names an objective."""
    return short(str(objective["name"]), length) + (" (%)" if objective["percent"] else "")
