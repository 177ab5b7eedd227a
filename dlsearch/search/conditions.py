"""Conditions between dimensions: which exist together, and in which order they are asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dlsearch.config.errors import ConfigError, did_you_mean
from dlsearch.search.dimension import Dimension, same


def active(dim: Dimension, values: Mapping[str, Any]) -> bool:
    """Whether `dim` exists under `values`, decoded, in which an inactive parent is absent."""
    return all(
        parent in values and any(same(values[parent], value) for value in allowed)
        for parent, allowed in (dim.when or {}).items()
    )


def settle(
    dims: Sequence[Dimension], origin: Mapping[str, str], known: Callable[[str], Any], missing: object
) -> list[Dimension]:
    """Check each ``when``, and settle those over what is not searched: they hold throughout, or never.

    Args:
        dims: The dimensions.
        origin: Where each was written. A value that the parent has not is a mistake where both were written together;
            where the parent was narrowed later, it is one that cannot occur.
        known: The fixed value of a key that is not searched, or `missing`.
        missing: What `known` returns for no such key.

    Returns:
        The dimensions that can exist, each conditional on dimensions alone.

    Raises:
        ConfigError: A ``when`` names no key, or a value that its parent has not.
    """
    kept = {dim.name: dim for dim in dims}
    changed = True
    while changed:  # until no dimension loses a parent
        changed = False
        for dim in list(kept.values()):
            settled = _settle(dim, kept, {d.name for d in dims}, origin, known, missing)
            if settled is None:
                del kept[dim.name]
            elif settled.when != dim.when:
                kept[dim.name] = settled
            else:
                continue
            changed = True
    return [kept[dim.name] for dim in dims if dim.name in kept]


def _settle(
    dim: Dimension,
    kept: Mapping[str, Dimension],
    all_names: set[str],
    origin: Mapping[str, str],
    known: Callable[[str], Any],
    missing: object,
) -> Dimension | None:
    when: dict[str, list[Any]] = {}
    for parent, values in (dim.when or {}).items():
        if parent in kept:
            possible = _possible(dim, kept[parent], values, strict=origin.get(dim.name) == origin.get(parent))
            if not possible:
                return None
            when[parent] = possible
            continue
        if parent in all_names:  # it can never exist
            return None
        value = known(parent)
        if value is missing:
            hint = did_you_mean(parent, sorted(all_names), f"{parent}=a,b searches it")
            raise ConfigError(dim.name, f"its when names {parent!r}, which is neither searched nor fixed", hint)
        if not any(same(value, allowed) for allowed in values):
            return None
    return dataclasses.replace(dim, when=when or None)


def _possible(dim: Dimension, parent: Dimension, values: Sequence[Any], *, strict: bool) -> list[Any]:
    if parent.count() is None:
        raise ConfigError(dim.name, f"its when names {parent.name!r}, a continuum", "name a choice or a range")
    possible = [value for value in values if parent.contains(value)]
    if strict and len(possible) < len(values):
        bad = next(value for value in values if not parent.contains(value))
        hint = did_you_mean(str(bad), map(str, parent.values() or ()))
        raise ConfigError(dim.name, f"its when wants {parent.name}={bad}, which is not in {parent.text}", hint)
    return possible


def ordered(dims: Sequence[Dimension]) -> list[Dimension]:
    """The dimensions with every parent before its children, else as they were.

    Raises:
        ConfigError: They wait for each other.
    """
    known = {dim.name: dim for dim in dims}
    done: dict[str, Dimension] = {}

    def visit(dim: Dimension, path: tuple[str, ...]) -> None:
        if dim.name in path:
            cycle = " → ".join((*path[path.index(dim.name) :], dim.name))
            raise ConfigError(dim.name, f"its when leads back to itself: {cycle}")
        if dim.name in done:
            return
        for parent in dim.when or {}:
            visit(known[parent], (*path, dim.name))
        done[dim.name] = dim

    for dim in dims:
        visit(dim, ())
    return list(done.values())


def count_points(dims: Sequence[Dimension]) -> float:
    """Distinct points over ordered `dims`, inactive dimensions left out; infinite with a continuum."""
    parents = {parent for dim in dims for parent in dim.when or {}}

    def count(index: int, values: dict[str, Any]) -> float:
        total = 1.0
        for at, dim in enumerate(dims[index:], index):
            if not active(dim, values):
                continue
            if dim.name in parents:  # only parents are enumerated, all else multiplies
                return total * sum(count(at + 1, {**values, dim.name: value}) for value in dim.values() or ())
            n = dim.count()
            total *= math.inf if n is None else n
        return total

    return count(0, {})


def each_point(
    dims: Sequence[Dimension], index: int = 0, values: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Every point over ordered and finite `dims`, decoded."""
    values = values or {}
    if index == len(dims):
        yield dict(values)
    elif not active(dims[index], values):
        yield from each_point(dims, index + 1, values)
    else:
        for value in dims[index].values() or ():
            yield from each_point(dims, index + 1, {**values, dims[index].name: value})
