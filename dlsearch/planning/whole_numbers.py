"""Whole numbers that were typed as floats, as ``1e2``, where the default is an integer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from dlsearch.space.dimension import Dimension, DimensionKind


def take_type_of_default(dim: Dimension, defaults: Sequence[Any]) -> Dimension:
    """A dimension whose whole numbers are integers where the values of its key are by default.

    A class that takes an integer counts, divides or indexes with it, and fails on 100.0.

    Args:
        dim: As it was typed.
        defaults: The values of its key, in the config or in the options of its group.
    """
    if not defaults or not all(_is_integer(value) for value in defaults):
        return dim
    if dim.choices is not None:
        choices = tuple(_to_integer(choice) for choice in dim.choices)
        if [*map(type, choices)] == [*map(type, dim.choices)]:
            return dim
        return dataclasses.replace(dim, choices=choices, text="")
    bounds = (dim.low, dim.high, dim.step)
    is_grid = dim.kind is DimensionKind.FLOAT and dim.step is not None and not dim.log
    if not is_grid or not all(_is_integer(_to_integer(bound)) for bound in bounds):
        return dim
    low, high, step = map(_to_integer, bounds)
    return dataclasses.replace(
        dim,
        kind=DimensionKind.INT,
        low=low,
        high=high,
        step=step,
        text="",
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _to_integer(value: Any) -> Any:
    """A float without a fraction as an integer; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
