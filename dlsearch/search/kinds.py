"""The kinds of dimension, each made from numbers or values that are checked first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from dlsearch.config.errors import ConfigError
from dlsearch.search.dimension import Dimension


def number(name: str, what: str, value: Any) -> float | int:
    """Check that `value` is a finite number.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(name, f"expected a number as {what}, got {value!r}")
    if not math.isfinite(value):
        raise ConfigError(name, f"expected a finite {what}, got {value}")
    return value


def interval(name: str, low: Any, high: Any, *, whole: bool = False, log: bool = False, step: Any = None) -> Dimension:
    """A dimension from `low` to `high`, both included.

    Raises:
        ConfigError: The interval is empty, or no logarithm exists over it.
    """
    low, high = number(name, "lower bound", low), number(name, "upper bound", high)
    if low >= high:
        raise ConfigError(name, f"expected a lower bound below the upper one, got {low} and {high}")
    if log and low <= 0:
        raise ConfigError(name, f"expected a lower bound above 0 for a logarithm, got {low}", "1e-6")
    if whole:
        if low != int(low) or high != int(high):
            raise ConfigError(name, f"expected whole bounds for an int, got {low} and {high}", "int(interval(1, 5))")
        low, high = int(low), int(high)
        step = 1 if step is None else step
    if step is not None:
        step = _step(name, step, whole)
        if log and (step != 1 or not whole):
            raise ConfigError(name, "a logarithm takes no step", "leave out step or log")
        high = _last(low, high, step, included=True)
    if not whole:
        low, high, step = float(low), float(high), None if step is None else float(step)
    return Dimension(name, "int" if whole else "float", low=low, high=high, log=log, step=step)


def stepped(name: str, start: Any, stop: Any, step: Any = 1, *, whole: bool = False, log: bool = False) -> Dimension:
    """A dimension of the values that ``range(start, stop, step)`` has, in ascending order.

    Raises:
        ConfigError: It has none, or the step is 0.
    """
    start, stop = number(name, "start", start), number(name, "stop", stop)
    step = number(name, "step", step)
    if step == 0:
        raise ConfigError(name, "expected a step other than 0", "range(1, 9, 2)")
    if (stop - start) / step <= 0:
        raise ConfigError(name, f"range({start}, {stop}, {step}) is empty", "range(1, 5) is 1, 2, 3, 4")
    last = _last(start, stop, step, included=False)
    low, high, step = min(start, last), max(start, last), abs(step)
    fractions = any(isinstance(value, float) for value in (start, stop, step))
    if whole and any(value != int(value) for value in (low, high, step)):
        raise ConfigError(name, f"expected whole numbers for an int, got range({start}, {stop}, {step})")
    if log and low <= 0:
        raise ConfigError(name, f"expected a start above 0 for a logarithm, got {low}", "tag(log, range(1, 100))")
    if fractions and not whole:
        if log:
            raise ConfigError(name, "a logarithm takes no step", "tag(log, interval(1e-4, 1e-1))")
        return Dimension(name, "float", low=float(low), high=float(high), step=float(step))
    if log and step != 1:
        raise ConfigError(name, f"a logarithm takes no step, got {step}", "tag(log, range(1, 100))")
    return Dimension(name, "int", low=int(low), high=int(high), log=log, step=int(step))


def _step(name: str, step: Any, whole: bool) -> float | int:
    step = number(name, "step", step)
    if step <= 0 or (whole and step != int(step)):
        raise ConfigError(name, f"expected a {'whole ' if whole else ''}step above 0, got {step}")
    return int(step) if whole else step


def _last(start: float | int, stop: float | int, step: float | int, *, included: bool) -> float | int:
    """The last value of an arithmetic sequence, in decimals so that 0.1 + 0.2 is 0.3."""
    begin, end, by = (Decimal(str(value)) for value in (start, stop, step))
    steps = (end - begin) / by
    n = math.floor(steps) if included else math.ceil(steps) - 1
    last = begin + n * by
    return float(last) if any(isinstance(value, float) for value in (start, stop, step)) else int(last)


def choices(name: str, given: Any, *, is_group: bool = False) -> Dimension:
    """A categorical dimension.

    Raises:
        ConfigError: There is no choice, one stands there twice, or is no YAML value.
    """
    if not isinstance(given, (list, tuple)) or not given:
        raise ConfigError(name, f"expected at least one choice, got {given!r}", "choice(a, b)")
    for choice in given:
        _check_choice(name, choice, nested=False)
        if is_group and not (isinstance(choice, str) or choice is None):
            raise ConfigError(name, f"is a config group: expected options by name, got {choice!r}", f"{name}=a,b")
    dim = Dimension(name, "categorical", choices=tuple(given), is_group=is_group)
    seen: list[Any] = []
    for choice, encoded in zip(given, dim.encoded_choices(), strict=True):
        # Optuna finds a choice by ==, so that 1, 1.0 and true would be one.
        if encoded in seen:
            same = "" if isinstance(choice, str) else "1, 1.0 and true are one value"
            raise ConfigError(name, f"the choice {choice!r} stands there twice", same)
        seen.append(encoded)
    return dim


def _check_choice(name: str, value: Any, *, nested: bool) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(name, f"expected finite choices, got {value}")
    if isinstance(value, list):
        for item in value:
            _check_choice(name, item, nested=True)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(name, f"expected text as a mapping's keys, got {key!r}")
            _check_choice(name, item, nested=True)
    elif value is not None and not isinstance(value, (str, int, float)):
        raise ConfigError(name, f"expected scalars, lists or mappings as choices, got {value!r}")
