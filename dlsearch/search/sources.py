"""Where a space comes from: the ``space`` group, ``hydra.sweeper.params`` and the command line, the later winning."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Glob, Override, Sweep

from dlsearch.config.errors import ConfigError
from dlsearch.search.grammar import from_mapping, from_sweep, from_text, is_form, parse_override, plain

if TYPE_CHECKING:
    from dlsearch.search.dimension import Dimension

FUNCTION = "_function_"
#: What is the study's own, and no hyperparameter of a trial.
_NOT_SEARCHED = (
    "allow_targets", "hydra", "name", "paths", "pruner", "sampler", "seed", "study", "test", "tracking", "worker",
)  # fmt: skip
_KEY = re.compile(r"[A-Za-z_$][\w$-]*(\.[\w$-]+)*")
_GROUP = re.compile(r"[\w$-]+(/[\w$-]+)*(@[\w$.-]*)?")


@dataclass
class Sources:
    """What was collected.

    Args:
        dimensions: By name, in the order in which they were written.
        strict: Dimensions whose ``when`` must match their parent's values exactly: both come from one place.
        fixed: Overrides that are not sweeps, as typed.
        values: What these overrides set.
        function: Dotted path of a define-by-run function.
    """

    dimensions: dict[str, Dimension] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    function: str | None = None

    def search(self, dim: Dimension, origin: str) -> None:
        """Add a dimension in the place of one with the same name."""
        old = self.dimensions.get(dim.name)
        if old is not None and dim.when is None and origin == "argv":
            # The command line cannot say `when`: it narrows the values and leaves the condition.
            dim = dataclasses.replace(dim, when=old.when)
        for kept in (self.fixed, self.values):
            kept.pop(dim.name, None)
        self.dimensions[dim.name], self.origin[dim.name] = dim, origin

    def fix(self, key: str, text: str, value: Any, *, deleted: bool = False) -> None:
        """Note a fixed override: the key is searched no more."""
        self.dimensions.pop(key, None)
        self.fixed.setdefault(key, []).append(text)
        if not deleted:
            self.values[key] = value


def collect(
    group: Mapping[str, Any] | None, params: Mapping[str, Any] | None, overrides: Iterable[str], groups: set[str]
) -> Sources:
    """Read all sources.

    Raises:
        ConfigError: One of them is wrong.
    """
    sources = Sources()
    if group:
        group = dict(group)
        sources.function = _function(group.pop(FUNCTION, None))
        for name, value in _flat(group, "space"):
            # null takes a dimension out of a group that this one extends; `~space.model.dropout` leaves an empty node
            if value is not None and (value != {} or "." in name):
                sources.search(_dimension(name, value, groups), "group")
    if params:
        _params(sources, params, groups)
    _argv(sources, overrides, groups)
    _check_overlap(sources.dimensions)
    return sources


def _function(given: Any) -> str | None:
    if given is not None and (not isinstance(given, str) or not given):
        raise ConfigError(f"space.{FUNCTION}", f"expected a dotted path, got {given!r}", "mypackage.space")
    return given


def _flat(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Dotted key → what is said of it; a dotted key wins over the same key written nested."""
    if not isinstance(node, Mapping):
        raise ConfigError(where, f"expected a mapping from keys to values, got {node!r}", "optimizer: {lr: ...}")
    found: dict[str, tuple[int, Any]] = {}

    def walk(inner: Mapping[Any, Any], prefix: str, depth: int) -> None:
        for key, value in inner.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping) and value and not is_form(value):
                walk(value, f"{name}.", depth + 1)
            elif name not in found or depth < found[name][0]:
                found[name] = (depth, value)

    walk(node, "", 0)
    return ((name, value) for name, (_, value) in found.items())


def _check_name(name: str, groups: set[str]) -> bool:
    """Whether the key `name` is a config group; it must be one that can be searched."""
    first = re.split(r"[./@]", name)[0]
    if first in _NOT_SEARCHED:
        hint = "hydra/sweeper=basic runs one job a value" if first != "hydra" else "give one value"
        raise ConfigError(name, "belongs to the study and cannot be searched", hint)
    is_group = name.partition("@")[0] in groups
    if not (_GROUP if is_group else _KEY).fullmatch(name):
        raise ConfigError(name or "space", f"expected a config key or group to search, got {name!r}", "optimizer.lr")
    return is_group


def _dimension(name: str, value: Any, groups: set[str]) -> Dimension:
    is_group = _check_name(name, groups)
    if isinstance(value, str):
        return from_text(name, value, is_group=is_group)
    if is_form(value):
        return from_mapping(name, value, is_group=is_group)
    listed = isinstance(value, list) and value
    hint = f"choice({', '.join(map(str, value))})" if listed else "interval(0, 1), choice(a, b)"
    raise ConfigError(name, f"expected values to search, got {value!r}", hint)


def _params(sources: Sources, params: Mapping[str, Any], groups: set[str]) -> None:
    for key, value in _flat(params, "hydra.sweeper.params"):
        if is_form(value):
            name = key.lstrip("+")
            dim = _dimension(name, value, groups)
            sources.search(dataclasses.replace(dim, added=key.startswith("+")), "params")
            continue
        text = value if isinstance(value, str) else _literal(value)
        _take(sources, parse_override(f"{key}={text}"), "params", groups)


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _argv(sources: Sources, overrides: Iterable[str], groups: set[str]) -> None:
    said: dict[str, str] = {}
    for text in overrides:
        override = parse_override(text)
        name, sweep = _name(override), override.is_sweep_override()
        if name in said and (sweep or name in sources.dimensions):
            raise ConfigError(name, f"is given twice: {said[name]} and {text}")
        if name not in said:
            # Whatever the block in the config fixed, the command line says it now.
            sources.fixed.pop(name, None)
        said[name] = text
        _take(sources, override, "argv", groups)


def _name(override: Override) -> str:
    name = override.key_or_group
    if override.package is not None:
        name = f"{name}@{override.package}"
    # `space.optimizer.lr=choice(1, 2)` is what it looks like.
    if override.is_sweep_override():
        name = name.removeprefix("space.")
    return str(name)


def _take(sources: Sources, override: Override, origin: str, groups: set[str]) -> None:
    name, value, text = _name(override), override.value(), override.input_line or ""
    if isinstance(value, (Sweep, Glob)):
        is_group = _check_name(name, groups)
        dim = from_sweep(name, value, is_group=is_group, added=override.is_add() or override.is_force_add())
        sources.search(dim, origin)
    else:
        sources.fix(name, text, plain(value), deleted=override.is_delete())


def _check_overlap(dimensions: Mapping[str, Dimension]) -> None:
    for name in dimensions:
        parts = name.split(".")
        for end in range(1, len(parts)):
            above = dimensions.get(".".join(parts[:end]))
            if above is not None and not above.is_group:
                raise ConfigError(name, f"lies inside {above.name}, which is searched as well")
