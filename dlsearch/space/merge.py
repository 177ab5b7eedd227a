"""Where a space comes from: the ``space`` group, ``hydra.sweeper.params``, the command line.

Each key takes one way, whatever its source: :mod:`dlsearch.space.grammar` reads it,
:mod:`dlsearch.space.builders` makes a dimension of it, and :class:`Sources` merges the dimensions,
of which a later source's wins.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.space.builders import build_dimension
from dlsearch.space.grammar import is_form, parse_override, parse_value

if TYPE_CHECKING:
    from dlsearch.core.types import Params
    from dlsearch.space.dimension import Dimension
    from dlsearch.space.spec import DimensionSpec, OverrideSpec

#: The key of the ``space`` group that names a define-by-run function.
FUNCTION = "_function_"
#: What belongs to the study, and is no hyperparameter of a trial.
_NOT_SEARCHED = (
    "allow_targets",
    "hydra",
    "name",
    "paths",
    "pruner",
    "sampler",
    "seed",
    "study",
    "test",
    "tracking",
    "worker",
)
_CONFIG_KEY = re.compile(r"[A-Za-z_$][\w$-]*(\.[\w$-]+)*")
_CONFIG_GROUP = re.compile(r"[\w$-]+(/[\w$-]+)*(@[\w$.-]*)?")


class Origin(StrEnum):
    """Where a dimension was written."""

    GROUP = "group"
    PARAMS = "params"
    ARGUMENTS = "argv"


@dataclass
class Sources:
    """What was collected.

    Args:
        groups: Names of config groups.
        dimensions: By name, in the order in which they were written.
        origins: Where each dimension was written.
        fixed: Overrides that are not sweeps, as typed, by key.
        values: What these overrides set.
        function: Dotted path of a define-by-run function.
    """

    groups: set[str]
    dimensions: dict[str, Dimension] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    fixed: dict[str, list[str]] = field(default_factory=dict)
    values: Params = field(default_factory=dict)
    function: str | None = None

    # -- the three sources -------------------------------------------------------------------------
    def read_group(self, group: Mapping[str, Any]) -> None:
        """Read the ``space`` group.

        Raises:
            ConfigError: It is wrong.
        """
        entries = dict(group)
        self.function = _check_function(entries.pop(FUNCTION, None))
        for name, written in _flatten_mapping(entries, "space").items():
            # null takes a dimension out of a group that this one extends.
            if written is None:
                continue
            # `~space.model.dropout` leaves an empty node where `model` was.
            if written == {} and "." not in name:
                continue
            self._check_name(name)
            self._add_dimension(parse_value(name, written), Origin.GROUP)

    def read_params(self, params: Mapping[str, Any]) -> None:
        """Read ``hydra.sweeper.params``, also as the official Optuna sweeper took them.

        Raises:
            ConfigError: They are wrong.
        """
        for key, written in _flatten_mapping(params, "hydra.sweeper.params").items():
            if is_form(written):
                name = key.lstrip("+")
                self._check_name(name)
                spec = parse_value(name, written)
                spec = dataclasses.replace(spec, added=key.startswith("+"))
                self._add_dimension(spec, Origin.PARAMS)
            else:
                override = parse_override(f"{key}={_write_literal(written)}")
                self._take_override(override, Origin.PARAMS)

    def read_arguments(self, overrides: Iterable[str]) -> None:
        """Read what was typed after ``-m``.

        Raises:
            ConfigError: An override is wrong, or a key that is searched is given twice.
        """
        typed: dict[str, str] = {}
        for text in overrides:
            override = parse_override(text)
            name = override.name
            is_searched = override.searched is not None or name in self.dimensions
            if name in typed and is_searched:
                raise ConfigError(name, f"is given twice: {typed[name]} and {text}")
            if name not in typed:
                # Whatever the block in the config fixed, the command line sets it now.
                self.fixed.pop(name, None)
            typed[name] = text
            self._take_override(override, Origin.ARGUMENTS)

    # -- merging -----------------------------------------------------------------------------------
    def _take_override(
        self,
        override: OverrideSpec,
        origin: Origin,
    ) -> None:
        if override.searched is not None:
            self._check_name(override.name)
            self._add_dimension(override.searched, origin)
        else:
            self._fix_key(override)

    def _add_dimension(
        self,
        spec: DimensionSpec,
        origin: Origin,
    ) -> None:
        """Add a dimension in the place of one with the same name."""
        dimension = build_dimension(spec, is_group=self._is_group(spec.name))
        name = dimension.name
        earlier = self.dimensions.get(name)
        if earlier is not None and dimension.when is None and origin is Origin.ARGUMENTS:
            # The command line cannot say `when`: it narrows the values and leaves the condition.
            dimension = dataclasses.replace(dimension, when=earlier.when)
        self.fixed.pop(name, None)
        self.values.pop(name, None)
        self.dimensions[name] = dimension
        self.origins[name] = origin

    def _fix_key(self, override: OverrideSpec) -> None:
        """Note a fixed override: its key is searched no more."""
        self.dimensions.pop(override.name, None)
        self.fixed.setdefault(override.name, []).append(override.text)
        if not override.deletes:
            self.values[override.name] = override.value

    # -- checks ------------------------------------------------------------------------------------
    def _is_group(self, name: str) -> bool:
        group = name.partition("@")[0]
        return group in self.groups

    def _check_name(self, name: str) -> None:
        """Check that the key or group `name` can be searched."""
        first = re.split(r"[./@]", name)[0]
        if first in _NOT_SEARCHED:
            hint = "hydra/sweeper=basic runs one job a value"
            if first == "hydra":
                hint = "give one value"
            raise ConfigError(name, "belongs to the study and cannot be searched", hint)
        pattern = _CONFIG_GROUP if self._is_group(name) else _CONFIG_KEY
        if not pattern.fullmatch(name):
            raise ConfigError(
                name or "space",
                f"expected a config key or group to search, got {name!r}",
                "optimizer.lr",
            )

    def check_overlap(self) -> None:
        """Check that no dimension lies inside another.

        Raises:
            ConfigError: One does.
        """
        for name in self.dimensions:
            parts = name.split(".")
            for length in range(1, len(parts)):
                above = self.dimensions.get(".".join(parts[:length]))
                if above is not None and not above.is_group:
                    raise ConfigError(name, f"lies inside {above.name}, which is searched as well")


def collect_sources(
    group: Mapping[str, Any] | None,
    params: Mapping[str, Any] | None,
    overrides: Iterable[str],
    groups: set[str],
) -> Sources:
    """Read and merge all sources.

    Args:
        group: The ``space`` group.
        params: ``hydra.sweeper.params``.
        overrides: What was typed after ``-m``.
        groups: Names of config groups.

    Raises:
        ConfigError: One of them is wrong.
    """
    sources = Sources(groups)
    if group:
        sources.read_group(group)
    if params:
        sources.read_params(params)
    sources.read_arguments(overrides)
    sources.check_overlap()
    return sources


def _check_function(given: Any) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not given:
        raise ConfigError(
            f"space.{FUNCTION}",
            f"expected a dotted path, got {given!r}",
            "mypackage.space",
        )
    return given


def _flatten_mapping(
    node: Any,
    where: str,
) -> Params:
    """What is written for each dotted key; a dotted key wins over the same key written nested.

    Args:
        node: Keys that are flat, nested or both.
        where: The config key of `node`.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(
            where,
            f"expected a mapping from keys to values, got {node!r}",
            "optimizer: {lr: ...}",
        )
    values: Params = {}
    depths: dict[str, int] = {}

    def visit_keys(
        inner: Mapping[Any, Any],
        prefix: str,
        depth: int,
    ) -> None:
        for key, value in inner.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping) and value and not is_form(value):
                visit_keys(value, f"{name}.", depth + 1)
            elif name not in values or depth < depths[name]:
                values[name] = value
                depths[name] = depth

    visit_keys(node, "", 0)
    return values


def _write_literal(value: Any) -> str:
    """A value of YAML as the command line would have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
