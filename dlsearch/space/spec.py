"""What the sweep grammar reads for one key, before anything of it is checked.

:mod:`dlsearch.space.grammar` makes these objects of text and of YAML mappings;
:mod:`dlsearch.space.builders` checks them and makes dimensions of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class NumberType(StrEnum):
    """A cast that the user wrote around a range: ``int(range(…))``, ``tag(float, range(…))``."""

    INT = "int"
    FLOAT = "float"


@dataclass(frozen=True)
class IntervalSpec:
    """Numbers from `low` to `high`, both included.

    Args:
        low: The lower bound.
        high: The upper bound.
        whole: Whether the values are ints.
        log: Whether they are spread over the logarithm.
        step: Distance between values; None where none was given.
        typed_float: Whether floats were asked for by name: ``tag(float, …)``, ``type: float``.
    """

    low: Any
    high: Any
    whole: bool = False
    log: bool = False
    step: Any = None
    typed_float: bool = False


@dataclass(frozen=True)
class RangeSpec:
    """The numbers of ``range(start, stop, step)``.

    Args:
        start: The first number.
        stop: The end, which is not included.
        step: Distance between numbers; negative where they descend.
        number_type: The cast around it; None where there is none.
        log: Whether the numbers are spread over the logarithm.
    """

    start: Any
    stop: Any
    step: Any = 1
    number_type: NumberType | None = None
    log: bool = False


@dataclass(frozen=True)
class ChoicesSpec:
    """A list of values.

    Args:
        values: As they were written: a list, or something that is none.
    """

    values: Any


ValuesSpec = IntervalSpec | RangeSpec | ChoicesSpec


@dataclass(frozen=True)
class DimensionSpec:
    """What was written for one searched key.

    Args:
        name: The config key or group.
        values: The values to search.
        group_hint: How to write options of a config group in the notation that was used.
        when: The condition, by parent; None where there is none.
        added: Whether the key need not exist in the config (``+key=…``).
    """

    name: str
    values: ValuesSpec
    group_hint: str
    when: dict[str, Sequence[Any]] | None = None
    added: bool = False


@dataclass(frozen=True)
class OverrideSpec:
    """One override of the command line, or of ``hydra.sweeper.params``.

    Args:
        name: The config key or group, with its package where one was given.
        text: As typed.
        searched: What is searched; None where the override sets a value.
        value: The value that it sets.
        deletes: Whether it takes the key out of the config (``~key``).
    """

    name: str
    text: str
    searched: DimensionSpec | None
    value: Any = None
    deletes: bool = False
