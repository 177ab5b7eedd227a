"""A composed config as it will be once all is resolved, while Hydra has not yet acted on it.

``${hydra:…}`` cannot be resolved then, and some values of Hydra's node are not there yet. So a copy
is resolved in which both are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree

#: The keys that lead from the top of a config to a value.
KeyPath = tuple[Any, ...]

#: A text, and all texts of a file, may grow to so many characters; an interpolation counts as
#: fifty.
MAX_EXPANSION = 1_000_000
_PER_INTERPOLATION = 50
_MAX_CHAIN = 100
#: The beginning of an interpolation, up to its end or to one that lies inside.
_HEAD = re.compile(r"\$\{\s*([^${}]*)(\$\{)?")
_RESOLVER = re.compile(r"([\w.]+)\s*:(.*)", re.DOTALL)
#: Resolvers whose arguments are no keys.
_OF_VALUES = ("oc.env", "oc.create", "oc.decode", "now", "python_version")
#: Hydra's resolver for its own node.
_OF_HYDRA = re.compile(r"\$\{\s*hydra\s*:\s*")
#: A key of that node, in the node itself.
_IN_HYDRA = re.compile(r"\$\{\s*hydra\s*\.")
#: What Hydra fills in when a job begins.
_LATER = {("job", "id"): "0", ("job", "num"): 0, ("runtime", "output_dir"): "."}


def interpolates(value: Any) -> bool:
    """Whether a plain value holds an interpolation, or the escaped beginning of one."""
    return isinstance(value, str) and "${" in value


class Resolved:
    """Looks values up in a copy of a config.

    Args:
        cfg: A composed config with Hydra's node, or a plain one.
    """

    def __init__(self, cfg: Any) -> None:
        """Resolve nothing yet."""
        plain: Any
        if OmegaConf.is_config(cfg):
            plain = OmegaConf.to_container(cfg, resolve=False)
        else:
            plain = dict(cfg)  # of a config it would resolve what stands at the top
        self.raw: ConfigTree = plain

    def section(self, name: str) -> ConfigTree:
        """A section of Hydra's node with all interpolations resolved; empty where there is none.

        Raises:
            ConfigError: An interpolation leads nowhere, or the section is no mapping.
        """
        found = self.value((self.raw.get("hydra") or {}).get(name), ("hydra", name))
        if found in (None, "???"):
            return {}
        if not isinstance(found, dict):
            raise ConfigError(f"hydra.{name}", f"expected a mapping, got {found!r}")
        return found

    def value(self, raw: Any, path: KeyPath) -> Any:
        """`raw`, which stands at `path`, as a plain value with all interpolations resolved.

        Raises:
            ConfigError: One of them leads nowhere.
        """
        if isinstance(raw, Mapping):
            return {key: self.value(inner, (*path, key)) for key, inner in raw.items()}
        if isinstance(raw, (list, tuple)):
            return [self.value(inner, (*path, place)) for place, inner in enumerate(raw)]
        if not interpolates(raw):
            return raw
        try:
            return self.look(path)
        except (OmegaConfBaseException, LookupError, TypeError, ValueError) as error:
            key = ".".join(map(str, path))
            lines = str(error).splitlines() or [type(error).__name__]
            raise ConfigError(key, f"{raw!r} cannot be resolved: {lines[0]}") from error

    def look(self, path: KeyPath) -> Any:
        """The resolved value at `path` as a plain value.

        Raises:
            LookupError: There is none.
            OmegaConfBaseException: An interpolation leads nowhere, or a value is missing.
        """
        return _look_up(self._whole_config, path)

    def look_in_task(self, path: KeyPath) -> Any:
        """The same in the config that a task is given: Hydra's node is no part of it."""
        return _look_up(self._config_of_task, path)

    @cached_property
    def _whole_config(self) -> Any:
        content = _replace_in_texts(self.raw, _OF_HYDRA, "${hydra.")
        _fill_in_later_values(content.get("hydra"))
        return OmegaConf.create(content)

    @cached_property
    def _config_of_task(self) -> Any:
        content = _replace_in_texts(self.raw, _OF_HYDRA, "${of_hydra.")
        node = content.pop("hydra", {})
        node = _replace_in_texts(node, _IN_HYDRA, "${of_hydra.")
        _fill_in_later_values(node)
        content["of_hydra"] = node
        return OmegaConf.create(content)


def _look_up(node: Any, path: KeyPath) -> Any:
    for key in path:
        if not OmegaConf.is_config(node):
            raise LookupError(path)
        node = node[key]
    if OmegaConf.is_config(node):
        return OmegaConf.to_container(node, resolve=True)
    return node


def _replace_in_texts(node: Any, pattern: re.Pattern[str], by: str) -> Any:
    """A copy of plain data with `pattern` replaced in all of its texts."""
    if isinstance(node, Mapping):
        return {key: _replace_in_texts(value, pattern, by) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_replace_in_texts(value, pattern, by) for value in node]
    if isinstance(node, str):
        return pattern.sub(by, node)
    return node


def _fill_in_later_values(node: Any) -> None:
    """Put something where Hydra's node has what is known only once a job begins."""
    if not isinstance(node, dict):
        return
    for (name, key), value in _LATER.items():
        section = node.get(name)
        if isinstance(section, dict) and section.get(key) == "???":
            section[key] = value


def check_expansion(raw: Mapping[str, Any]) -> None:
    """Refuse a config whose interpolations would grow beyond all memory; resolves none of them.

    Raises:
        ConfigError: They would.
    """
    expansion = Expansion(raw)
    total = 0
    for key in raw:
        total += expansion.size((key,))
        if total > MAX_EXPANSION:
            shown = f"its interpolations grow to more than {MAX_EXPANSION:,} characters"
            raise ConfigError(str(key), shown, "a config has no such size")


class Expansion:
    """How long the texts of a config become once their interpolations are resolved.

    Resolves none of them.

    A text that holds another one twice, which holds a third one twice, and so on, grows beyond all
    memory in forty lines. What is counted is rather too much: every word of an interpolation counts
    as the key that it may be.

    Args:
        raw: The whole config, plain and unresolved.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        """Count nothing yet."""
        self._raw = raw
        self._sizes: dict[KeyPath, int] = {}
        self._open: list[KeyPath] = []

    def size(self, path: KeyPath) -> int:
        """The characters of all texts at, or below, `path`.

        More than `MAX_EXPANSION` stands for anything beyond it.
        """
        if path in self._sizes:
            return self._sizes[path]
        # a circle: nobody can say how often it is gone round
        if path in self._open or len(self._open) > _MAX_CHAIN:
            return MAX_EXPANSION + 1
        self._open.append(path)
        size = self._count_node(self._find_node(path), path)
        self._open.pop()
        self._sizes[path] = size
        return size

    def _count_node(self, node: Any, path: KeyPath) -> int:
        if isinstance(node, str):
            return self._count_text(node, path)
        keys: Iterable[Any] = ()
        if isinstance(node, Mapping):
            keys = node.keys()
        elif isinstance(node, list):
            keys = range(len(node))
        total = 0
        for key in keys:
            total += self.size((*path, key))
            if total > MAX_EXPANSION:
                break
        return total

    def _count_text(self, text: str, path: KeyPath) -> int:
        total = len(text)
        if not interpolates(text):
            return total
        for head, inner in _HEAD.findall(text):
            is_computed = bool(inner)
            for reference in _find_references(head, computed=is_computed):
                total += _PER_INTERPOLATION
                target = self._find_target(
                    reference,
                    path,
                    computed=is_computed,
                )
                if target is not None:
                    total += self.size(target)
                if total > MAX_EXPANSION:
                    return total
        return total

    def _find_target(
        self,
        reference: str,
        path: KeyPath,
        *,
        computed: bool,
    ) -> KeyPath | None:
        """The path that a reference at `path` leads to; None where nothing is there."""
        key = reference.lstrip(".")
        dots = len(reference) - len(key)
        target: KeyPath = ()
        if dots:
            target = path[: max(len(path) - dots, 0)]
        node = self._find_node(target)
        for part in filter(None, re.split(r"[.\[\]]+", key)):
            step = _find_step(node, part)
            if step is None:
                # the rest of the name is computed: any key below may be meant
                return target if computed else None
            target = (*target, step)
            node = node[step]
        return target

    def _find_node(self, path: KeyPath) -> Any:
        node: Any = self._raw
        for key in path:
            node = node[key]
        return node


def _find_step(node: Any, part: str) -> str | int | None:
    """The key of a node that a part of a reference names; None where it has none."""
    if isinstance(node, list):
        is_place = part.isdecimal() and int(part) < len(node)
        return int(part) if is_place else None
    if isinstance(node, Mapping) and part in node:
        return part
    return None


def _find_references(head: str, *, computed: bool) -> list[str]:
    """The keys in the beginning of an interpolation.

    ``""``, the whole config, where any may be meant.
    """
    resolver = _RESOLVER.fullmatch(head.strip())
    if resolver is None:
        return [head.strip()]
    name, arguments = resolver.groups()
    if name in _OF_VALUES:
        return []
    if computed:
        return [""]
    keys = [each.strip(" \t\n'\"") for each in arguments.split(",")]
    if name != "hydra":
        return keys
    return [f"hydra.{key}" for key in keys]
