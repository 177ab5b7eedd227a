"""Configurations that stand for all that a search may propose: its default, and what differs.

Every option of a searched group, every choice and both ends of every range, each with the default
values of all others. They are what the rehearsal builds and tries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dlsearch.space.conditions import is_active
from dlsearch.space.dimension import Dimension, DimensionKind
from dlsearch.study.trial_config import trial_config

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree, Params, ParamValue
    from dlsearch.planning.draft import Draft

#: Values of one dimension, and configurations in all.
MAX_VALUES = 6
MAX_VARIATIONS = 40
#: Where between its ends a range is tried too: a value that is no whole number.
_BETWEEN = 0.382


class VariationKind(StrEnum):
    """In what a configuration differs from the default."""

    DEFAULT = "default"
    #: Another option of a config group
    OPTION = "option"
    #: Another of the values that are listed
    CHOICE = "choice"
    #: An end of a range, or what lies between
    RANGE = "range"


@dataclass(frozen=True)
class Variation:
    """One configuration that stands for others.

    Args:
        kind: In what it differs from the default.
        said: The key and the value, as they are typed.
        config: The config of a trial of it.
        key: The dimension that has another value than by default; empty for the default.
        trains: Whether a batch is trained in any case, and not only where its net has other shapes.
        hint: What to type instead, where it fails.
    """

    kind: str
    said: str
    config: ConfigTree
    key: str = ""
    trains: bool = True
    hint: str = ""


def list_variations(draft: Draft) -> list[Variation]:
    """The default configuration, moved into the space where it lies outside, and the others."""
    default = _settle(draft, {})
    found = [Variation(VariationKind.DEFAULT, "the default configuration", _config(draft, default))]
    dimensions = [dim for dim in draft.space.dimensions if not dim.name.startswith("transfer")]
    for dim in sorted(dimensions, key=_rank):
        found += _vary(draft, dim, default)
    return found[:MAX_VARIATIONS]


def _vary(draft: Draft, dim: Dimension, default: Params) -> Iterator[Variation]:
    """The configurations that differ from the default in one dimension."""
    usual = draft.defaults.get(dim.name)
    is_made_whole = dim.kind is DimensionKind.FLOAT and _is_whole(usual)
    for value in _values_of(dim, usual):
        params = _settle(draft, {dim.name: value})
        if dim.name in params and params != default:
            yield Variation(
                _kind_of(dim),
                f"{dim.name}={value}",
                _config(draft, params),
                key=dim.name,
                trains=_trains(dim, value, usual),
                hint=f"{dim.name}='int({dim.text})'" if is_made_whole else "",
            )


def _kind_of(dim: Dimension) -> VariationKind:
    if dim.is_group:
        return VariationKind.OPTION
    return VariationKind.RANGE if dim.choices is None else VariationKind.CHOICE


def _rank(dim: Dimension) -> tuple[bool, bool]:
    """Options of groups first, then choices, then ranges."""
    return (not dim.is_group, dim.choices is None)


def _settle(draft: Draft, given: Params) -> Params:
    """A parameter set of the space: `given`, and the nearest to the default elsewhere."""
    found: Params = {}
    for dim in draft.space.dimensions:
        if not is_active(dim, found):
            continue
        if dim.name in given:
            found[dim.name] = given[dim.name]
        elif dim.name in draft.defaults:
            value = draft.defaults[dim.name]
            found[dim.name] = value if dim.contains(value) else _first_value(dim)
    return found


def _first_value(dim: Dimension) -> ParamValue:
    return dim.choices[0] if dim.choices else dim.low


def _values_of(dim: Dimension, default: ParamValue) -> Iterator[ParamValue]:
    """The values of a dimension that are tried."""
    if dim.choices is not None:
        choices = list(dim.choices)
        if len(choices) > MAX_VALUES and not dim.is_group:
            choices = [*choices[: MAX_VALUES - 1], choices[-1]]
        yield from choices
        return
    assert dim.low is not None
    assert dim.high is not None
    if dim.kind is not DimensionKind.FLOAT:
        yield dim.low
        yield dim.high
        return
    yield float(dim.low)
    yield float(dim.high)
    if dim.step is None and _is_whole(default):
        yield dim.low + _BETWEEN * (dim.high - dim.low)


def _is_whole(value: ParamValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _trains(dim: Dimension, value: ParamValue, default: ParamValue) -> bool:
    """Whether a value may change what a batch meets, without another shape of the net."""
    if dim.is_group:
        return True
    is_of_data = dim.name.startswith("data.") and not dim.name.endswith("batch_size")
    if is_of_data and dim.choices is not None:
        return True
    is_usual = type(value) is type(default) or (isinstance(default, float) and _is_whole(value))
    return not is_usual


def _config(draft: Draft, params: Params) -> ConfigTree:
    document = {"config": draft.config, "options": draft.options}
    return trial_config(document, params, seed=draft.config["seed"])
