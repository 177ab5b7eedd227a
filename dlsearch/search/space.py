"""The search space: dimensions with their conditions, whether written in YAML or on the command line.

Importing this imports neither optuna nor numpy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dlsearch.config.build import locate
from dlsearch.config.errors import ConfigError, did_you_mean
from dlsearch.search.conditions import active, count_points, each_point, ordered, settle
from dlsearch.search.dimension import Dimension, same
from dlsearch.search.sources import FUNCTION, collect

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

__all__ = ["MISSING", "Dimension", "Space"]

#: What a lookup returns for a key that is not in the config.
MISSING: Final = object()
#: User attribute of a trial: what a define-by-run function returned beside what it suggested.
RETURNED = "dlsearch:returned"

Lookup = Callable[[str], Any]


@dataclass(frozen=True)
class Space:
    """A search space.

    Args:
        dimensions: Parents of a condition before their children.
        function: Dotted path of a function ``fn(trial, cfg) -> dict | None`` that suggests more, if any.
        extra: The user's ``allow_targets``, within which `function` lies.
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
            group: The resolved ``space`` group, flat or nested. None means that it is not known yet: then no
                ``when`` is checked, and only the second result is complete.
            sweeper_params: ``hydra.sweeper.params``, also as the official Optuna sweeper wrote them.
            overrides: What was typed after ``-m``.
            groups: Names of config groups.
            extra: The user's ``allow_targets``.
            lookup: The base config's value of a key (a group's is its option), or MISSING; for a ``when`` over what is
                not searched.

        Returns:
            The space, and the overrides that are not sweeps. A key that one of them sets is not searched.

        Raises:
            ConfigError: Something is wrong; its key is the dimension's.
        """
        sources = collect(group, sweeper_params, overrides, groups or set())
        fixed = [text for texts in sources.fixed.values() for text in texts]
        dims = list(sources.dimensions.values())
        if group is not None:

            def known(key: str) -> Any:
                return sources.values[key] if key in sources.values else lookup(key) if lookup else MISSING

            dims = ordered(settle(dims, sources.origin, known, MISSING))
        if sources.function is not None:
            locate(sources.function, f"space.{FUNCTION}", extra)
        return cls(tuple(dims), sources.function, tuple(extra)), fixed

    def replace_dimensions(self, dimensions: Iterable[Dimension]) -> Space:
        """The same space over other dimensions.

        Raises:
            ConfigError: A ``when`` names no dimension, a value that its parent has not, or itself.
        """
        dims = settle(list(dimensions), {}, lambda key: MISSING, MISSING)
        return dataclasses.replace(self, dimensions=tuple(ordered(dims)))

    def __getitem__(self, name: str) -> Dimension:
        """The dimension called `name`."""
        return next(dim for dim in self.dimensions if dim.name == name)

    def __contains__(self, name: object) -> bool:
        """Whether a dimension is called `name`."""
        return any(dim.name == name for dim in self.dimensions)

    def __len__(self) -> int:
        """Number of dimensions."""
        return len(self.dimensions)

    def active(self, dim: Dimension, values: Mapping[str, Any]) -> bool:
        """Whether `dim` exists under the decoded `values` of its parents."""
        return active(dim, values)

    # -- trials ----------------------------------------------------------------------------------------------------
    def suggest(self, trial: Trial, cfg: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask `trial` for every active dimension.

        Args:
            trial: Optuna's trial.
            cfg: The base config, for a define-by-run function.

        Returns:
            Decoded values by config key.

        Raises:
            ConfigError: The function is missing or returned no mapping of config keys.
        """
        values: dict[str, Any] = {}
        for dim in self.dimensions:
            if active(dim, values):
                values[dim.name] = dim.suggest(trial)
        if self.function is not None:
            function = locate(self.function, f"space.{FUNCTION}", self.extra)
            returned = function(trial, dict(cfg or {}))
            if returned is not None and not (
                isinstance(returned, Mapping) and all(isinstance(key, str) for key in returned)
            ):
                raise ConfigError(f"space.{FUNCTION}", f"expected a mapping of config keys, got {returned!r}")
            if returned:
                trial.set_user_attr(RETURNED, dict(returned))
            values = {**self.decode(trial.params), **(returned or {})}
        return values

    def values_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """Decoded values of a trial that ran, with what a define-by-run function returned."""
        return {**self.decode(trial.params), **trial.user_attrs.get(RETURNED, {})}

    def encode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Values as Optuna stores them."""
        known = {dim.name: dim for dim in self.dimensions}
        return {name: known[name].encode(value) if name in known else value for name, value in params.items()}

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Values as the config takes them."""
        known = {dim.name: dim for dim in self.dimensions}
        return {name: known[name].decode(value) if name in known else value for name, value in params.items()}

    def validate(self, params: Mapping[str, Any], key: str) -> None:
        """Check a parameter set that a user wrote; it may leave dimensions out.

        Raises:
            ConfigError: A key is not searched, or a value lies outside; names ``<key>.<dimension>``.
        """
        known = {dim.name: dim for dim in self.dimensions}
        for name, value in params.items():
            where = f"{key}.{name}"
            if name not in known:
                if self.function is not None:  # it may suggest any key
                    continue
                raise ConfigError(where, "is not searched", did_you_mean(str(name), known))
            dim = known[name]
            if not dim.type_matches(value):
                raise ConfigError(where, f"expected {_article(dim.kind)}, got {value!r}", dim.text)
            if not dim.contains(value):
                raise ConfigError(where, f"{value!r} lies outside {dim.text}")
            for parent, allowed in (dim.when or {}).items():
                if parent in params and not any(same(params[parent], value) for value in allowed):
                    raise ConfigError(where, f"exists only when {parent} is {_list(allowed)}, not {params[parent]!r}")

    def default_params(self, lookup: Lookup) -> tuple[dict[str, Any], list[str]]:
        """The base config as a parameter set.

        Returns:
            The value of every dimension that is active, and the names of those whose value lies outside.
        """
        values: dict[str, Any] = {}
        outside = []
        for dim in self.dimensions:
            if not active(dim, values):
                continue
            values[dim.name] = lookup(dim.name)
            if not dim.contains(values[dim.name]):
                outside.append(dim.name)
        return values, outside

    # -- grids -----------------------------------------------------------------------------------------------------
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
            raise ConfigError(f"space.{FUNCTION}", "a grid needs a space that is known beforehand", "sampler=random")
        grid = {}
        for dim in self.dimensions:
            values = dim.values()
            if values is None:
                hint = f"range({dim.low}, {dim.high}, step), choice(…), or sampler=random"
                raise ConfigError(dim.name, f"a grid needs finitely many values, got {dim.text}", hint)
            grid[dim.name] = [dim.encode(value) for value in values]
        return grid

    def points(self) -> Iterator[dict[str, Any]]:
        """Every point of the grid, encoded, each once: what is inactive is not varied.

        Raises:
            ConfigError: A dimension has infinitely many values.
        """
        self.grid()

        return (self.encode(point) for point in each_point(self.dimensions))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each dimension, conditions aside."""
        return {dim.name: dim.distribution() for dim in self.dimensions}

    # -- writing ---------------------------------------------------------------------------------------------------
    def to_json(self, defaults: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The entries of the study record; a define-by-run function is one of kind ``function``."""
        entries = [dim.to_json((defaults or {}).get(dim.name)) for dim in self.dimensions]
        if self.function is not None:
            entry = Dimension(FUNCTION, "function", text=self.function).to_json()
            entries.append({**entry, "extra": list(self.extra)})
        return entries

    @classmethod
    def from_json(cls, entries: Iterable[Mapping[str, Any]]) -> Space:
        """The space that :meth:`to_json` wrote."""
        dims, function, extra = [], None, ()
        for entry in entries:
            if entry["kind"] == "function":
                function, extra = entry["text"], tuple(entry.get("extra", ()))
            else:
                dims.append(Dimension.from_json(entry))
        return cls(tuple(dims), function, extra)

    def digest(self) -> str:
        """sha256 of the space: the same for the same space, however it was spelled."""
        entries = sorted(self.to_json(), key=lambda entry: str(entry["name"]))
        return hashlib.sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def table(self) -> list[dict[str, str]]:
        """Rows to show: ``name``, ``kind``, ``space``, ``when`` and ``values`` (their number)."""
        rows = []
        for dim in self.dimensions:
            when = ", ".join(f"{parent} is {_list(values)}" for parent, values in (dim.when or {}).items())
            kind, count = "group" if dim.is_group else dim.kind, dim.count()
            values = "∞" if count is None else str(count)
            rows.append({"name": dim.name, "kind": kind, "space": dim.text, "when": when, "values": values})
        if self.function is not None:
            rows.append({"name": FUNCTION, "kind": "function", "space": self.function, "when": "", "values": ""})
        return rows


def _list(values: Sequence[Any]) -> str:
    return " or ".join(map(str, values))


def _article(kind: str) -> str:
    return "an int" if kind == "int" else "a number"
