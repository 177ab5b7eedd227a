"""Conditions between dimensions: which exist together, and in which order they are asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dlsearch.core.errors import ConfigError, did_you_mean
from dlsearch.space.dimension import Dimension, is_same_choice

if TYPE_CHECKING:
    from dlsearch.core.types import Params

#: What a lookup returns for a key that is not in the config.
MISSING: Final = object()

Lookup = Callable[[str], Any]


def is_active(
    dim: Dimension,
    values: Mapping[str, Any],
) -> bool:
    """Whether `dim` exists under decoded `values`, in which an inactive parent is absent."""
    for parent, allowed in (dim.when or {}).items():
        if parent not in values:
            return False
        if not is_allowed(values[parent], allowed):
            return False
    return True


def is_allowed(
    value: Any,
    allowed: Sequence[Any],
) -> bool:
    """Whether `value` is one of the values that a condition lists."""
    return any(is_same_choice(value, choice) for choice in allowed)


def resolve_conditions(
    dims: Sequence[Dimension],
    origins: Mapping[str, str],
    lookup: Lookup,
) -> list[Dimension]:
    """Check each ``when``, and resolve conditions on keys that are not searched.

    Such a condition holds for every trial, or for none.

    Args:
        dims: The dimensions.
        origins: Where each was written. A value that the parent does not have is a mistake where
            both were written together; where the parent was narrowed later, it cannot occur.
        lookup: The fixed value of a key that is not searched, or MISSING.

    Returns:
        The dimensions that can exist, each conditional on dimensions alone.

    Raises:
        ConfigError: A ``when`` names no key, or a value that its parent does not have.
    """
    resolver = _ConditionResolver(dims, origins, lookup)
    return resolver.resolve_all()


class _ConditionResolver:
    """Removes dimensions that cannot exist, until no dimension loses a parent."""

    def __init__(
        self,
        dims: Sequence[Dimension],
        origins: Mapping[str, str],
        lookup: Lookup,
    ) -> None:
        self._names = [dim.name for dim in dims]
        self._possible = {dim.name: dim for dim in dims}
        self._origins = origins
        self._lookup = lookup

    def resolve_all(self) -> list[Dimension]:
        changed = True
        while changed:
            changed = False
            for dim in list(self._possible.values()):
                if self._resolve_dimension(dim):
                    changed = True
        return [self._possible[name] for name in self._names if name in self._possible]

    def _resolve_dimension(self, dim: Dimension) -> bool:
        """Resolve the conditions of one dimension; returns whether that changed something."""
        resolved = self._resolve_when(dim)
        if resolved is None:
            del self._possible[dim.name]
            return True
        # An empty condition becomes None, which is none.
        new_when = resolved or None
        if new_when == dim.when:
            return False
        self._possible[dim.name] = dataclasses.replace(dim, when=new_when)
        return True

    def _resolve_when(self, dim: Dimension) -> dict[str, Sequence[Any]] | None:
        """The conditions that are left of a dimension; None where it can never exist."""
        left: dict[str, Sequence[Any]] = {}
        for parent, allowed in (dim.when or {}).items():
            if parent in self._possible:
                occurring = self._find_occurring(dim, self._possible[parent], allowed)
                if not occurring:
                    return None
                left[parent] = occurring
            elif parent in self._names:
                # The parent can never exist.
                return None
            elif not is_allowed(self._look_up(dim, parent), allowed):
                return None
        return left

    def _look_up(
        self,
        dim: Dimension,
        key: str,
    ) -> Any:
        """The fixed value of a key that is not searched."""
        value = self._lookup(key)
        if value is MISSING:
            hint = did_you_mean(key, sorted(self._names), f"{key}=a,b searches it")
            raise ConfigError(
                dim.name,
                f"its when names {key!r}, which is neither searched nor fixed",
                hint,
            )
        return value

    def _find_occurring(
        self,
        dim: Dimension,
        parent: Dimension,
        allowed: Sequence[Any],
    ) -> list[Any]:
        """The allowed values that `parent` can have."""
        if parent.count() is None:
            raise ConfigError(
                dim.name,
                f"its when names {parent.name!r}, a continuum",
                "name a choice or a range",
            )
        written_together = self._origins.get(dim.name) == self._origins.get(parent.name)
        occurring = []
        for value in allowed:
            if parent.contains(value):
                occurring.append(value)
            elif written_together:
                hint = did_you_mean(str(value), map(str, parent.values() or ()))
                raise ConfigError(
                    dim.name,
                    f"its when wants {parent.name}={value}, which is not in {parent.text}",
                    hint,
                )
        return occurring


def order_by_parents(dims: Sequence[Dimension]) -> list[Dimension]:
    """The dimensions with every parent before its children; otherwise their order is kept.

    Raises:
        ConfigError: They wait for each other.
    """
    by_name = {dim.name: dim for dim in dims}
    done: dict[str, Dimension] = {}

    def visit_dimension(
        dim: Dimension,
        path: tuple[str, ...],
    ) -> None:
        if dim.name in path:
            first = path.index(dim.name)
            cycle = " → ".join((*path[first:], dim.name))
            raise ConfigError(dim.name, f"its when leads back to itself: {cycle}")
        if dim.name in done:
            return
        for parent in dim.when or {}:
            visit_dimension(by_name[parent], (*path, dim.name))
        done[dim.name] = dim

    for dim in dims:
        visit_dimension(dim, ())
    return list(done.values())


def count_points(dims: Sequence[Dimension]) -> float:
    """Number of distinct points over ordered `dims`; infinite with a continuum.

    Points that differ in inactive dimensions alone are one.
    """
    parents: set[str] = set()
    for dim in dims:
        parents.update(dim.when or {})

    def count_from(
        index: int,
        values: Params,
    ) -> float:
        product = 1.0
        for position in range(index, len(dims)):
            dim = dims[position]
            if not is_active(dim, values):
                continue
            if dim.name in parents:
                # Only parents are enumerated: all other dimensions multiply.
                counts = [
                    count_from(position + 1, {**values, dim.name: value})
                    for value in dim.values() or ()
                ]
                return product * sum(counts)
            count = dim.count()
            product *= math.inf if count is None else count
        return product

    return count_from(0, {})


def iterate_points(
    dims: Sequence[Dimension],
    index: int = 0,
    values: Mapping[str, Any] | None = None,
) -> Iterator[Params]:
    """Every point over ordered and finite `dims`, decoded.

    Args:
        dims: The dimensions.
        index: The first dimension that has no value yet.
        values: Values of the dimensions before it.
    """
    known = dict(values or {})
    if index == len(dims):
        yield known
        return
    dim = dims[index]
    if not is_active(dim, known):
        yield from iterate_points(dims, index + 1, known)
        return
    for value in dim.values() or ():
        yield from iterate_points(dims, index + 1, {**known, dim.name: value})
