"""The search space: dimensions with their conditions, written in YAML or on the command line.

Importing this module imports neither optuna nor numpy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlsearch.config.build import locate
from dlsearch.core.errors import ConfigError, did_you_mean
from dlsearch.space.conditions import (
    MISSING,
    Lookup,
    count_points,
    is_active,
    is_allowed,
    iterate_points,
    order_by_parents,
    resolve_conditions,
)
from dlsearch.space.dimension import Dimension, DimensionKind
from dlsearch.space.merge import FUNCTION, Sources, collect_sources

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from dlsearch.core.types import JsonObject, Params, ParamValue

__all__ = ["MISSING", "Dimension", "Space"]

#: User attribute of a trial: what a define-by-run function returned beside what it suggested.
RETURNED = "dlsearch:returned"
_FUNCTION_KEY = f"space.{FUNCTION}"


@dataclass(frozen=True)
class Space:
    """A search space.

    Args:
        dimensions: Parents of a condition before their children.
        function: Dotted path of a function ``fn(trial, cfg) -> dict | None`` that suggests more, if
            any.
        extra: The config's ``allow_targets``; the record has them.
    """

    dimensions: tuple[Dimension, ...] = ()
    function: str | None = None
    extra: tuple[str, ...] = ()

    @classmethod
    def from_sources(
        cls,
        group: Mapping[str, Any] | None,
        sweeper_params: Mapping[str, Any] | None,
        overrides: Iterable[str],
        *,
        groups: set[str] | None = None,
        extra: Sequence[str] = (),
        lookup: Lookup | None = None,
    ) -> tuple[Space, list[str]]:
        """Merge the sources; the command line wins over `sweeper_params`, and these over `group`.

        Args:
            group: The resolved ``space`` group, flat or nested. None means that it is not known
                yet: then no ``when`` is checked, and only the second result is complete.
            sweeper_params: ``hydra.sweeper.params``, also as the official Optuna sweeper wrote
                them.
            overrides: What was typed after ``-m``.
            groups: Names of config groups.
            extra: The config's ``allow_targets``.
            lookup: The base config's value of a key (a group's is its option), or MISSING; for a
                ``when`` over what is not searched.

        Returns:
            The space, and the overrides that are not sweeps. A key that one of them sets is not
            searched.

        Raises:
            ConfigError: Something is wrong; its key is the dimension's.
        """
        sources = collect_sources(group, sweeper_params, overrides, groups or set())
        fixed = [text for texts in sources.fixed.values() for text in texts]
        dims = list(sources.dimensions.values())
        if group is not None:
            look_up_fixed = _make_lookup(sources, lookup)
            dims = resolve_conditions(dims, sources.origins, look_up_fixed)
            dims = order_by_parents(dims)
        if sources.function is not None:
            locate(sources.function, _FUNCTION_KEY)
        space = cls(tuple(dims), sources.function, tuple(extra))
        return space, fixed

    def replace_dimensions(self, dimensions: Iterable[Dimension]) -> Space:
        """The same space over other dimensions.

        Raises:
            ConfigError: A ``when`` names no dimension, a value that its parent has not, or itself.
        """
        dims = resolve_conditions(list(dimensions), {}, lambda key: MISSING)
        ordered = order_by_parents(dims)
        return dataclasses.replace(self, dimensions=tuple(ordered))

    def fix(
        self,
        name: str,
        value: ParamValue,
    ) -> Space:
        """The space that is left where one choice has this value.

        Args:
            name: The choice, which exists in every trial.
            value: One of its values.
        """
        left = []
        gone: set[str] = set()
        for dim in self.dimensions:
            if dim.name == name:
                continue
            conditions = dict(dim.when or {})
            allowed = conditions.pop(name, None)
            is_excluded = allowed is not None and not is_allowed(value, allowed)
            if is_excluded or gone.intersection(conditions):
                gone.add(dim.name)
                continue
            left.append(dataclasses.replace(dim, when=conditions or None))
        return dataclasses.replace(self, dimensions=tuple(left))

    def __getitem__(self, name: str) -> Dimension:
        """The dimension called `name`."""
        found = (dim for dim in self.dimensions if dim.name == name)
        return next(found)

    def __contains__(self, name: object) -> bool:
        """Whether a dimension is called `name`."""
        return any(dim.name == name for dim in self.dimensions)

    def __len__(self) -> int:
        """Number of dimensions."""
        return len(self.dimensions)

    def active(
        self,
        dim: Dimension,
        values: Mapping[str, Any],
    ) -> bool:
        """Whether `dim` exists under the decoded `values` of its parents."""
        return is_active(dim, values)

    # -- trials ------------------------------------------------------------------------------------
    def suggest(
        self,
        trial: Trial,
        cfg: Mapping[str, Any] | None = None,
    ) -> Params:
        """Ask `trial` for every active dimension.

        Args:
            trial: Optuna's trial.
            cfg: The base config, for a define-by-run function.

        Returns:
            Decoded values by config key.

        Raises:
            ConfigError: The function is missing or returned no mapping of config keys.
        """
        values: Params = {}
        for dim in self.dimensions:
            if is_active(dim, values):
                values[dim.name] = dim.suggest(trial)
        if self.function is None:
            return values
        returned = self._call_function(self.function, trial, cfg or {})
        # All that was suggested, by the dimensions and by the function.
        suggested = self.decode(trial.params)
        return {**suggested, **returned}

    def _call_function(
        self,
        path: str,
        trial: Trial,
        cfg: Mapping[str, Any],
    ) -> Params:
        """Call the define-by-run function; returns the values that it sets without a suggestion."""
        function = locate(path, _FUNCTION_KEY)
        returned = function(trial, dict(cfg))
        if returned is None:
            return {}
        is_valid = isinstance(returned, Mapping) and all(isinstance(key, str) for key in returned)
        if not is_valid:
            raise ConfigError(_FUNCTION_KEY, f"expected a mapping of config keys, got {returned!r}")
        values = dict(returned)
        if values:
            trial.set_user_attr(RETURNED, values)
        return values

    def values_of(self, trial: FrozenTrial) -> Params:
        """Decoded values of a trial that ran, with what a define-by-run function returned."""
        suggested = self.decode(trial.params)
        returned = trial.user_attrs.get(RETURNED, {})
        return {**suggested, **returned}

    def encode(self, params: Mapping[str, Any]) -> Params:
        """Values as Optuna stores them."""
        dimensions = self._by_name()
        encoded = {}
        for name, value in params.items():
            if name in dimensions:
                encoded[name] = dimensions[name].encode(value)
            else:
                encoded[name] = value
        return encoded

    def decode(self, params: Mapping[str, Any]) -> Params:
        """Values as the config takes them."""
        dimensions = self._by_name()
        decoded = {}
        for name, value in params.items():
            if name in dimensions:
                decoded[name] = dimensions[name].decode(value)
            else:
                decoded[name] = value
        return decoded

    def validate(
        self,
        params: Mapping[str, Any],
        key: str,
    ) -> None:
        """Check a parameter set that a user wrote; it may leave dimensions out.

        Raises:
            ConfigError: A key is not searched, or a value lies outside; names
                ``<key>.<dimension>``.
        """
        dimensions = self._by_name()
        for name, value in params.items():
            where = f"{key}.{name}"
            if name in dimensions:
                _check_value(dimensions[name], value, params, where)
            elif self.function is None:
                raise ConfigError(where, "is not searched", did_you_mean(str(name), dimensions))
            # Otherwise the function may suggest it: it may suggest any key.

    def _by_name(self) -> dict[str, Dimension]:
        return {dim.name: dim for dim in self.dimensions}

    def default_params(self, lookup: Lookup) -> tuple[Params, list[str]]:
        """The base config as a parameter set.

        Returns:
            The value of every dimension that is active, and the names of those whose value lies
            outside.
        """
        values: Params = {}
        outside = []
        for dim in self.dimensions:
            if not is_active(dim, values):
                continue
            value = lookup(dim.name)
            values[dim.name] = value
            if not dim.contains(value):
                outside.append(dim.name)
        return values, outside

    # -- grids -------------------------------------------------------------------------------------
    def size(self) -> float:
        """Number of distinct points; infinite with a continuum or a define-by-run function."""
        if self.function is not None:
            return math.inf
        return count_points(self.dimensions)

    def grid(self) -> dict[str, list[Any]]:
        """Values of each dimension as Optuna's GridSampler takes them.

        Raises:
            ConfigError: A dimension has infinitely many.
        """
        if self.function is not None:
            raise ConfigError(
                _FUNCTION_KEY,
                "a grid needs a space that is known beforehand",
                "sampler=random",
            )
        grid = {}
        for dim in self.dimensions:
            values = dim.values()
            if values is None:
                hint = f"range({dim.low}, {dim.high}, step), choice(…), or sampler=random"
                raise ConfigError(
                    dim.name,
                    f"a grid needs finitely many values, got {dim.text}",
                    hint,
                )
            grid[dim.name] = [dim.encode(value) for value in values]
        return grid

    def points(self) -> Iterator[Params]:
        """Every point of the grid, encoded, each once: what is inactive is not varied.

        Raises:
            ConfigError: A dimension has infinitely many values.
        """
        self.grid()  # raises where a dimension has infinitely many
        return (self.encode(point) for point in iterate_points(self.dimensions))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each dimension, conditions aside."""
        return {dim.name: dim.distribution() for dim in self.dimensions}

    # -- writing -----------------------------------------------------------------------------------
    def to_json(self, defaults: Mapping[str, Any] | None = None) -> list[JsonObject]:
        """The entries of the study record; a define-by-run function is one of kind ``function``."""
        known_defaults = defaults or {}
        entries = [dim.to_json(known_defaults.get(dim.name)) for dim in self.dimensions]
        if self.function is not None:
            entry = Dimension(FUNCTION, DimensionKind.FUNCTION, text=self.function).to_json()
            entry["extra"] = list(self.extra)
            entries.append(entry)
        return entries

    @classmethod
    def from_json(cls, entries: Iterable[Mapping[str, Any]]) -> Space:
        """The space that :meth:`to_json` wrote."""
        dims = []
        function = None
        extra: tuple[str, ...] = ()
        for entry in entries:
            if entry["kind"] == DimensionKind.FUNCTION:
                function = entry["text"]
                extra = tuple(entry.get("extra", ()))
            else:
                dims.append(Dimension.from_json(entry))
        return cls(tuple(dims), function, extra)

    def digest(self) -> str:
        """sha256 of the space: the same for the same space, however it was spelled."""
        entries = sorted(self.to_json(), key=lambda entry: str(entry["name"]))
        text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def table(self) -> list[dict[str, str]]:
        """Rows to show: ``name``, ``kind``, ``space``, ``when`` and ``values`` (their number)."""
        rows = [_make_row(dim) for dim in self.dimensions]
        if self.function is not None:
            row = {
                "name": FUNCTION,
                "kind": DimensionKind.FUNCTION.value,
                "space": self.function,
                "when": "",
                "values": "",
            }
            rows.append(row)
        return rows


def _make_lookup(
    sources: Sources,
    base: Lookup | None,
) -> Lookup:
    """A lookup of what the sources set, and else of the base config."""

    def look_up_fixed(key: str) -> Any:
        if key in sources.values:
            return sources.values[key]
        if base is None:
            return MISSING
        return base(key)

    return look_up_fixed


def _check_value(
    dim: Dimension,
    value: Any,
    params: Mapping[str, Any],
    where: str,
) -> None:
    """Check one value of a parameter set that a user wrote.

    Args:
        dim: The value's dimension.
        value: The value.
        params: The parameter set.
        where: The value's key, for the message.
    """
    if not dim.type_matches(value):
        expected = "an int" if dim.kind == DimensionKind.INT else "a number"
        raise ConfigError(where, f"expected {expected}, got {value!r}", dim.text)
    if not dim.contains(value):
        raise ConfigError(where, f"{value!r} lies outside {dim.text}")
    for parent, allowed in (dim.when or {}).items():
        if parent in params and not is_allowed(params[parent], allowed):
            listed = _list_values(allowed)
            raise ConfigError(
                where,
                f"exists only when {parent} is {listed}, not {params[parent]!r}",
            )


def _make_row(dim: Dimension) -> dict[str, str]:
    conditions = []
    for parent, allowed in (dim.when or {}).items():
        conditions.append(f"{parent} is {_list_values(allowed)}")
    count = dim.count()
    return {
        "name": dim.name,
        "kind": "group" if dim.is_group else dim.kind.value,
        "space": dim.text,
        "when": ", ".join(conditions),
        "values": "∞" if count is None else str(count),
    }


def _list_values(values: Sequence[Any]) -> str:
    return " or ".join(map(str, values))
