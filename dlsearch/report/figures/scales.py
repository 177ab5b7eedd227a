"""The scale of a hyperparameter: linear, logarithmic, or one place for each category."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from dlsearch.report.facts.statistics import choice
from dlsearch.report.figures.axes import round_ticks
from dlsearch.report.formats import number, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.core.types import ParamValue
    from dlsearch.report.facts.contents import Report, TrialRow
    from dlsearch.report.figures.inputs import SpaceRow

#: A place between 0 and 1, and the label there.
Tick: TypeAlias = tuple[float, str]
#: Steps within a decade, from few to many ticks.
DECADE_STEPS = ((1,), (1, 3), (1, 2, 5))
FEWEST_LOG_TICKS = 3
GOLDEN_RATIO = 0.6180339887


class ScaleKind(StrEnum):
    """How the values of a hyperparameter lie on its axis."""

    LINEAR = "linear"
    LOG = "log"
    CATEGORICAL = "categorical"


@dataclass(frozen=True)
class Scale:
    """Where a hyperparameter's values lie."""

    name: str
    kind: ScaleKind
    low: float
    high: float
    categories: tuple[ParamValue, ...] = ()

    @property
    def categorical(self) -> bool:
        """Whether the values have no order of their own."""
        return self.kind is ScaleKind.CATEGORICAL

    def place_of(self, value: ParamValue) -> float | None:
        """The place of `value`: 0 at the lower end, 1 at the upper; None where it has none."""
        if self.categorical:
            return self._place_of_category(value)
        if not _is_number(value):
            return None
        if self.kind is ScaleKind.LINEAR:
            return (value - self.low) / (self.high - self.low)
        if value <= 0:
            return None
        log_low = math.log(self.low)
        log_high = math.log(self.high)
        return (math.log(value) - log_low) / (log_high - log_low)

    def _place_of_category(self, value: ParamValue) -> float | None:
        key = choice(value)
        for index, category in enumerate(self.categories):
            if category == key and type(category) is type(key):
                return self._middle_of_category(index)
        return None

    def _middle_of_category(self, index: int) -> float:
        return (index + 0.5) / len(self.categories)

    def place_of_trial(self, trial: TrialRow) -> float | None:
        """The place of a trial's value; within a category trials are spread."""
        if self.name not in trial["params"]:
            return None
        value = trial["params"][self.name]
        place = self.place_of(value)
        if place is None or not self.categorical:
            return place
        return place + _jitter(trial["number"], len(self.categories))

    def tick_marks(self, most: int = 5, length: int = 12) -> list[Tick]:
        """At most about `most` ticks (of all categories); labels of at most `length` letters."""
        if self.categorical:
            return self._category_ticks(length)
        if self.kind is ScaleKind.LOG:
            return self._log_ticks(most)
        return self._linear_ticks(most)

    def _category_ticks(self, length: int) -> list[Tick]:
        ticks: list[Tick] = []
        for index, category in enumerate(self.categories):
            place = self._middle_of_category(index)
            label = short(number(category), length)
            ticks.append((place, label))
        return ticks

    def _log_ticks(self, most: int) -> list[Tick]:
        values = self._round_log_values()
        if not values:
            values = [self.low, self.high]
        elif len(values) > most:
            step = math.ceil(len(values) / most)
            values = values[::step]
        ticks: list[Tick] = []
        for value in values:
            place = self.place_of(value) or 0.0
            ticks.append((place, _power_label(value)))
        return ticks

    def _linear_ticks(self, most: int) -> list[Tick]:
        ticks: list[Tick] = []
        for value in round_ticks(self.low, self.high, most):
            place = (value - self.low) / (self.high - self.low)
            ticks.append((place, number(value)))
        return ticks

    def _round_log_values(self) -> list[float]:
        """Round values of the range: more to a decade where there are few."""
        values: list[float] = []
        for steps in DECADE_STEPS:
            values = self._values_at_steps(steps)
            if len(values) >= FEWEST_LOG_TICKS:
                break
        return values

    def _values_at_steps(self, steps: Sequence[int]) -> list[float]:
        first = math.floor(math.log10(self.low))
        last = math.ceil(math.log10(self.high))
        lowest = self.low * 0.999
        highest = self.high * 1.001
        values: list[float] = []
        for exponent in range(first, last + 1):
            for step in steps:
                value = step * 10.0**exponent
                if lowest <= value <= highest:
                    values.append(value)
        return values


def _jitter(n: int, places: int) -> float:
    """A shift within its category by the golden ratio: even, and the same each time."""
    share = (n * GOLDEN_RATIO) % 1
    return (share - 0.5) * 0.5 / places


def _power_label(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return number(value)
    text = f"{value:.0e}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def parameter_scales(report: Report) -> list[Scale]:
    """The scale of every hyperparameter that a trial carries, wide enough for all tried values."""
    rows: list[SpaceRow] = report["study"].get("space") or []
    space = {row["name"]: row for row in rows}
    scales: list[Scale] = []
    for name in report["varied"]:
        tried = [trial["params"][name] for trial in report["trials"] if name in trial["params"]]
        if tried:
            dimension = space.get(name) or {}
            scales.append(_scale_of(name, dimension, tried))
    return scales


def by_importance(report: Report, scales: Sequence[Scale]) -> list[Scale]:
    """The scales in order of importance; those without one come last."""
    order = [name for name, _ in report["importances"]["values"]]
    ranks = {name: rank for rank, name in enumerate(order)}
    return sorted(scales, key=lambda scale: ranks.get(scale.name, len(order)))


def _scale_of(name: str, row: SpaceRow, tried: Sequence[ParamValue]) -> Scale:
    if row.get("kind") == "categorical" or not all(_is_number(value) for value in tried):
        return _categorical_scale(name, row, tried)
    bounds = (row.get("low"), row.get("high"))
    ends = [float(value) for value in (*tried, *bounds) if value is not None]
    low = min(ends)
    high = max(ends)
    if row.get("log") and low > 0:
        return _log_scale(name, low, high)
    return _linear_scale(name, low, high)


def _log_scale(name: str, low: float, high: float) -> Scale:
    """A logarithmic scale; one of a single value is widened."""
    widening = 1 if low < high else 1.5
    return Scale(
        name=name,
        kind=ScaleKind.LOG,
        low=low / widening,
        high=high * widening,
    )


def _linear_scale(name: str, low: float, high: float) -> Scale:
    """A linear scale; one of a single value is widened."""
    pad = 0.0 if low < high else max(abs(low) * 0.1, 0.5)
    return Scale(
        name=name,
        kind=ScaleKind.LINEAR,
        low=low - pad,
        high=high + pad,
    )


def _is_number(value: ParamValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _categorical_scale(name: str, row: SpaceRow, tried: Sequence[ParamValue]) -> Scale:
    declared = row.get("choices") or []
    # 1, 1.0 and True are equal to Python and different choices.
    unique: dict[tuple[str, ParamValue], None] = {}
    for value in (*declared, *tried):
        category = choice(value)
        unique[type(category).__name__, category] = None
    return Scale(
        name=name,
        kind=ScaleKind.CATEGORICAL,
        low=0.0,
        high=1.0,
        categories=tuple(category for _, category in unique),
    )
