"""Dimensions, made of what the grammar read; numbers and choices are checked here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from dlsearch.core.errors import ConfigError
from dlsearch.space.dimension import Dimension, DimensionKind
from dlsearch.space.spec import (
    ChoicesSpec,
    DimensionSpec,
    IntervalSpec,
    NumberType,
    RangeSpec,
)

Number = float | int


def build_dimension(
    spec: DimensionSpec,
    *,
    is_group: bool = False,
) -> Dimension:
    """The dimension that a spec describes.

    Args:
        spec: What was written for its key.
        is_group: Whether the key is a config group.

    Raises:
        ConfigError: Its numbers or choices are wrong, or it gives a config group numbers.
    """
    builder = _Builder(spec, is_group=is_group)
    return builder.build()


class _Builder:
    """Makes one dimension.

    Args:
        spec: What was written for its key.
        is_group: Whether the key is a config group.
    """

    def __init__(
        self,
        spec: DimensionSpec,
        *,
        is_group: bool,
    ) -> None:
        self._spec = spec
        self._name = spec.name
        self._is_group = is_group

    def build(self) -> Dimension:
        values = self._spec.values
        if isinstance(values, ChoicesSpec):
            return self._build_choices(values)
        dimension = self._build_numbers(values)
        if self._is_group:
            raise ConfigError(
                self._name,
                "is a config group: expected options by name",
                self._spec.group_hint,
            )
        return dimension

    def _build_numbers(self, values: IntervalSpec | RangeSpec) -> Dimension:
        if isinstance(values, RangeSpec):
            return self._build_range(values)
        return self._build_interval(values)

    def _make_numeric(
        self,
        kind: DimensionKind,
        low: Number,
        high: Number,
        *,
        step: Number | None,
        log: bool,
        typed_float: bool = False,
    ) -> Dimension:
        return Dimension(
            self._name,
            kind,
            low=low,
            high=high,
            log=log,
            step=step,
            when=self._spec.when,
            added=self._spec.added,
            typed_float=typed_float,
        )

    # -- intervals ---------------------------------------------------------------------------------
    def _build_interval(self, spec: IntervalSpec) -> Dimension:
        low = check_number(self._name, "lower bound", spec.low)
        high = check_number(self._name, "upper bound", spec.high)
        if low >= high:
            raise ConfigError(
                self._name,
                f"expected a lower bound below the upper one, got {low} and {high}",
            )
        if spec.log and low <= 0:
            raise ConfigError(
                self._name,
                f"expected a lower bound above 0 for a logarithm, got {low}",
                "1e-6",
            )
        if spec.whole:
            return self._build_int_interval(spec, low, high)
        return self._build_float_interval(spec, low, high)

    def _build_int_interval(
        self,
        spec: IntervalSpec,
        low: Number,
        high: Number,
    ) -> Dimension:
        if not _is_whole(low) or not _is_whole(high):
            raise ConfigError(
                self._name,
                f"expected whole bounds for an int, got {low} and {high}",
                "int(interval(1, 5))",
            )
        step = 1
        if spec.step is not None:
            step = int(self._check_step(spec.step, whole=True))
        if spec.log and step != 1:
            raise ConfigError(self._name, "a logarithm takes no step", "leave out step or log")
        last = find_last(int(low), int(high), step, stop_included=True)
        return self._make_numeric(DimensionKind.INT, int(low), last, step=step, log=spec.log)

    def _build_float_interval(
        self,
        spec: IntervalSpec,
        low: Number,
        high: Number,
    ) -> Dimension:
        step = None
        if spec.step is not None:
            checked = self._check_step(spec.step, whole=False)
            if spec.log:
                raise ConfigError(self._name, "a logarithm takes no step", "leave out step or log")
            high = find_last(low, high, checked, stop_included=True)
            step = float(checked)
        return self._make_numeric(
            DimensionKind.FLOAT,
            float(low),
            float(high),
            step=step,
            log=spec.log,
            typed_float=spec.typed_float,
        )

    def _check_step(
        self,
        given: Any,
        *,
        whole: bool,
    ) -> Number:
        step = check_number(self._name, "step", given)
        if whole and (step <= 0 or not _is_whole(step)):
            raise ConfigError(self._name, f"expected a whole step above 0, got {step}")
        if step <= 0:
            raise ConfigError(self._name, f"expected a step above 0, got {step}")
        return step

    # -- ranges ------------------------------------------------------------------------------------
    def _build_range(self, spec: RangeSpec) -> Dimension:
        """A dimension of the values that ``range(start, stop, step)`` has, in ascending order."""
        start = check_number(self._name, "start", spec.start)
        stop = check_number(self._name, "stop", spec.stop)
        step = check_number(self._name, "step", spec.step)
        if step == 0:
            raise ConfigError(self._name, "expected a step other than 0", "range(1, 9, 2)")
        if (stop - start) / step <= 0:
            raise ConfigError(
                self._name,
                f"range({start}, {stop}, {step}) is empty",
                "range(1, 5) is 1, 2, 3, 4",
            )
        last = find_last(start, stop, step, stop_included=False)
        low = min(start, last)
        high = max(start, last)
        distance = abs(step)

        has_fractions = any(isinstance(number, float) for number in (start, stop, step))
        if spec.number_type is NumberType.INT:
            if not all(_is_whole(number) for number in (low, high, distance)):
                raise ConfigError(
                    self._name,
                    f"expected whole numbers for an int, got range({start}, {stop}, {distance})",
                )
            has_fractions = False
        if spec.log:
            self._check_log_range(spec, low, distance, has_fractions=has_fractions)

        if has_fractions or spec.number_type is NumberType.FLOAT:
            return self._make_numeric(
                DimensionKind.FLOAT,
                float(low),
                float(high),
                step=float(distance),
                log=False,
            )
        return self._make_numeric(
            DimensionKind.INT,
            int(low),
            int(high),
            step=int(distance),
            log=spec.log,
        )

    def _check_log_range(
        self,
        spec: RangeSpec,
        low: Number,
        step: Number,
        *,
        has_fractions: bool,
    ) -> None:
        """Check a range that is spread over the logarithm: its numbers are ints without a step."""
        if low <= 0:
            raise ConfigError(
                self._name,
                f"expected a start above 0 for a logarithm, got {low}",
                "tag(log, range(1, 100))",
            )
        if step != 1 and not has_fractions:
            raise ConfigError(
                self._name,
                f"a logarithm takes no step, got {step}",
                "tag(log, range(1, 100))",
            )
        if has_fractions or spec.number_type is NumberType.FLOAT:
            raise ConfigError(
                self._name,
                "a logarithm takes no step",
                "tag(log, interval(1e-4, 1e-1))",
            )

    # -- choices -----------------------------------------------------------------------------------
    def _build_choices(self, spec: ChoicesSpec) -> Dimension:
        given = spec.values
        if not isinstance(given, (list, tuple)) or not given:
            raise ConfigError(
                self._name,
                f"expected at least one choice, got {given!r}",
                "choice(a, b)",
            )
        for choice in given:
            self._check_choice(choice)
            is_option = isinstance(choice, str) or choice is None
            if self._is_group and not is_option:
                raise ConfigError(
                    self._name,
                    f"is a config group: expected options by name, got {choice!r}",
                    f"{self._name}=a,b",
                )
        dimension = Dimension(
            self._name,
            DimensionKind.CATEGORICAL,
            choices=tuple(given),
            when=self._spec.when,
            is_group=self._is_group,
            added=self._spec.added,
        )
        self._check_repetition(dimension)
        return dimension

    def _check_choice(self, value: Any) -> None:
        """Check that a choice is a YAML value, with all that it holds."""
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(self._name, f"expected finite choices, got {value}")
        if isinstance(value, list):
            for item in value:
                self._check_choice(item)
            return
        if isinstance(value, Mapping):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise ConfigError(self._name, f"expected text as a mapping's keys, got {key!r}")
                self._check_choice(item)
            return
        if value is not None and not isinstance(value, (str, int, float)):
            raise ConfigError(
                self._name,
                f"expected scalars, lists or mappings as choices, got {value!r}",
            )

    def _check_repetition(self, dimension: Dimension) -> None:
        """Check that no choice is listed twice."""
        seen: list[Any] = []
        encoded_choices = dimension.encoded_choices()
        for choice, encoded in zip(dimension.choices or (), encoded_choices, strict=True):
            # Optuna finds a choice by ==, so that 1, 1.0 and true would be one.
            if encoded in seen:
                hint = "" if isinstance(choice, str) else "1, 1.0 and true are one value"
                raise ConfigError(self._name, f"the choice {choice!r} is listed twice", hint)
            seen.append(encoded)


def check_number(
    name: str,
    what: str,
    value: Any,
) -> Number:
    """Check that `value` is a finite number.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(name, f"expected a number as {what}, got {value!r}")
    if not math.isfinite(value):
        raise ConfigError(name, f"expected a finite {what}, got {value}")
    return value


def find_last(
    start: Number,
    stop: Number,
    step: Number,
    *,
    stop_included: bool,
) -> Number:
    """The last value of an arithmetic sequence, in decimals so that 0.1 + 0.2 is 0.3."""
    first = Decimal(str(start))
    distance = Decimal(str(step))
    steps = (Decimal(str(stop)) - first) / distance
    count = math.floor(steps) if stop_included else math.ceil(steps) - 1
    last = first + count * distance
    if any(isinstance(number, float) for number in (start, stop, step)):
        return float(last)
    return int(last)


def _is_whole(value: Number) -> bool:
    return value == int(value)
