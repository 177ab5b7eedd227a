"""Values that are searched, in the type of the key's default.

``1e2`` is a float to YAML; where the default is an int, an int is meant. A text where the default
is a float is a mistake.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dlsearch.config.declared import adapt_value, is_int
from dlsearch.space.dimension import Dimension, DimensionKind


def adapt_dimension(dim: Dimension, default: Any) -> tuple[Dimension, str | None]:
    """A dimension whose values have the type of its key's default.

    Args:
        dim: As it was written.
        default: The config's value of its key.

    Returns:
        The dimension, and what a user should know of it, if anything.

    Raises:
        ConfigError: A choice is none that the key can have.
    """
    if dim.is_group:
        return dim, None
    if dim.kind is DimensionKind.CATEGORICAL:
        choices = tuple(adapt_value(dim.name, choice, default) for choice in dim.choices or ())
        is_same = all(type(a) is type(b) for a, b in zip(choices, dim.choices or (), strict=True))
        return (dim, None) if is_same else (_respelled(dim, choices=choices), None)
    if dim.kind is not DimensionKind.FLOAT or not is_int(default) or dim.typed_float:
        return dim, None
    numbers = (dim.low, dim.high) if dim.step is None else (dim.low, dim.high, dim.step)
    if not all(number is not None and float(number).is_integer() for number in numbers):
        return dim, None
    whole = _respelled(
        dim,
        kind=DimensionKind.INT,
        low=int(dim.low or 0),
        high=int(dim.high or 0),
        step=int(dim.step or 1),
    )
    notice = (
        f"{dim.name} is an int by default ({default}), so that {dim.text} gives ints;"
        f" tag(float, {dim.text}) gives floats"
    )
    return whole, notice


def _respelled(dim: Dimension, **changes: Any) -> Dimension:
    return dataclasses.replace(dim, text="", **changes)
