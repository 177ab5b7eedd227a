"""Where the options of searched config groups stand in a config.

A group's option stands at the group's package: ``task/head`` at ``task.head``, ``optimizer@second``
at ``second``. An option that writes at several places, such as an experiment, is kept as
``{"_global_": {section: content, …}}``, and takes the place of these sections. Imports nothing
heavy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree

#: The key of an option that writes at several places; no config group is called so.
GLOBAL = "_global_"


def place_of(group: str) -> str:
    """The dotted key at which the options of a group stand."""
    name, _, package = group.partition("@")
    return package or name.replace("/", ".")


def is_global(node: Any) -> bool:
    """Whether an option writes at several places."""
    return isinstance(node, Mapping) and set(node) == {GLOBAL}


def in_order(nodes: Mapping[str, Any]) -> list[str]:
    """Groups in the order in which their options are put into a config.

    Those that write at several places come first, then the outer before the inner.

    Args:
        nodes: By group, the option that was chosen.
    """

    def rank(group: str) -> tuple[bool, int]:
        return (not is_global(nodes[group]), place_of(group).count("."))

    return sorted(nodes, key=rank)


def put_option(config: ConfigTree, group: str, node: Any) -> None:
    """Put an option of a group into a config.

    Args:
        config: Is changed.
        group: The group's name.
        node: The option; it is copied.
    """
    if is_global(node):
        config.update(copy.deepcopy(dict(node[GLOBAL])))
        return
    *parents, last = place_of(group).split(".")
    found: Any = config
    for part in parents:
        if not isinstance(found.get(part), dict):
            found[part] = {}
        found = found[part]
    found[last] = copy.deepcopy(node)


def take_option(config: ConfigTree, group: str) -> Any:
    """What stands at a group's place, which is taken out of the config; None where nothing does."""
    *parents, last = place_of(group).split(".")
    found: Any = config
    for part in parents:
        found = found.get(part)
        if not isinstance(found, dict):
            return None
    return found.pop(last, None)


def sections_of(group: str, node: Any) -> set[str]:
    """The sections of a config that an option takes the place of as a whole."""
    if is_global(node):
        return set(node[GLOBAL])
    place = place_of(group)
    return set() if "." in place else {place}


def owner_of(key: str, groups: Iterable[str]) -> tuple[str, str] | None:
    """The searched group at whose place a key stands, and the rest of the key.

    Args:
        key: A dotted config key.
        groups: Names of searched groups.
    """
    found: tuple[str, str] | None = None
    longest = 0
    for group in groups:
        place = place_of(group)
        if key.startswith(f"{place}.") and len(place) > longest:
            found = (group, key[len(place) + 1 :])
            longest = len(place)
    return found
