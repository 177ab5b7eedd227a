"""The options of searched config groups: each is composed once, and kept as plain data.

An option that writes only at its group's own place is one node. Where options write elsewhere too,
as experiments do, each is a recipe: the sections in which they differ. What is the whole study's
(its objective, sampler, pruner, …) must be the same in all of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from dlsearch.core.errors import ConfigError
from dlsearch.study.option_nodes import GLOBAL, is_global, place_of, put_option, take_option

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dlsearch.core.types import ConfigTree
    from dlsearch.space.dimension import Dimension
    from dlsearch.space.space import Space

Compose = Callable[[Sequence[str]], "DictConfig"]

#: For every searched config group: option → the group's config.
Options: TypeAlias = dict[str, dict[str, Any]]

#: What is one for all trials of a study.
_WHOLE_STUDY = ("allow_targets", "name", "paths", "pruner", "sampler", "seed", "study", "test",
                "tracking", "worker")  # fmt: skip
#: The length of a training: progress, rungs and budgets are counted by it.
_LENGTH = ("max_epochs", "max_steps")
#: How Hydra says that a group is not in the defaults list: it is to be added then.
_NOT_IN_DEFAULTS = "Could not override"


@dataclass
class Chosen:
    """What a config is, with an option of each searched group in its place.

    Args:
        config: Plain, its interpolations unresolved.
        options: Of each searched group.
        chosen: The option of each that the config has.
        space: What is searched.
        is_recipe: Whether options of a group are whole recipes.
    """

    config: ConfigTree
    options: Options
    chosen: dict[str, str]
    space: Space
    is_recipe: bool = False


@dataclass(frozen=True)
class OptionReader:
    """Composes options.

    Args:
        compose: Composes overrides without sweeps; the result has Hydra's node.
        given: The overrides that are not sweeps.
        to_plain: Makes plain data of a composed config.
        to_space: Reads the search space of a composed config.
    """

    compose: Compose
    given: Sequence[str]
    to_plain: Callable[[DictConfig], ConfigTree]
    to_space: Callable[[DictConfig], Space]

    def read(self, base: DictConfig, space: Space) -> Chosen:
        """The config with all options of the groups that are searched.

        Args:
            base: Composed without any of them.
            space: Its search space.

        Raises:
            ConfigError: An option does not exist, or options do not go together.
        """
        found = Chosen(
            self.to_plain(base),
            {},
            {},
            space,
        )
        groups = [dim for dim in space.dimensions if dim.is_group]
        for dim in groups:
            composed = self._compose_options(dim, self.given)
            plain = {option: self.to_plain(cfg) for option, cfg in composed.items()}
            nodes = _nodes_of(dim.name, plain)
            if nodes is None:
                self._add_recipes(
                    found,
                    dim,
                    composed,
                    plain,
                )
            else:
                found.options[dim.name] = nodes
                wanted = str(base.hydra.runtime.choices.get(dim.name))
                found.chosen[dim.name] = wanted if wanted in nodes else next(iter(nodes))
        _check_separate(found.options)
        for group, option in found.chosen.items():
            if not is_global(found.options[group][option]):
                put_option(found.config, group, found.options[group][option])
        return found

    def _compose_options(self, dim: Dimension, given: Sequence[str]) -> dict[str, DictConfig]:
        composed: dict[str, DictConfig] = {}
        for choice in dim.choices or ():
            word = "null" if choice is None else choice
            composed[str(choice)] = self._compose_option(dim.name, f"{word}", given)
        return composed

    def _compose_option(
        self,
        group: str,
        option: str,
        given: Sequence[str],
    ) -> DictConfig:
        try:
            return self.compose([*given, f"{group}={option}"])
        except ConfigError as error:
            if _NOT_IN_DEFAULTS not in error.expected:
                raise
        try:
            return self.compose([*given, f"+{group}={option}"])
        except ConfigError as error:
            name, _, package = group.partition("@")
            if not package or "." in package:
                raise
            raise ConfigError(
                group,
                f"the config has no section {package!r}, and takes no new one",
                f"+{name}@task.{package}={option}: within the section of the class that takes it",
            ) from error

    def _add_recipes(
        self,
        found: Chosen,
        dim: Dimension,
        composed: Mapping[str, DictConfig],
        plain: Mapping[str, ConfigTree],
    ) -> None:
        """Take over a group whose options write at several places.

        Args:
            found: Is changed: its config becomes the first recipe's.
            dim: The group.
            composed: Its options.
            plain: The same, as plain data.
        """
        if found.is_recipe:
            raise ConfigError(
                dim.name,
                "its options write outside their own group, as those of another searched group do",
                "search one of the two",
            )
        recipes = {option: copy.deepcopy(config) for option, config in plain.items()}
        names = {each["study"]["name"] for each in recipes.values()}
        name = names.pop() if len(names) == 1 else None
        if name is None and (names or dim.name == "experiment"):
            name = "_or_".join(recipes).replace("/", "_")
        for config in recipes.values():
            config["study"]["name"] = name
        _check_whole_study(dim.name, recipes, composed)
        first = next(iter(recipes))
        differing = [
            key
            for key in recipes[first]
            if key != "space"
            and any(each.get(key) != recipes[first][key] for each in recipes.values())
        ]
        found.config = copy.deepcopy(recipes[first])
        found.options[dim.name] = {
            option: {GLOBAL: {key: config.get(key) for key in differing}}
            for option, config in recipes.items()
        }
        found.chosen[dim.name] = first
        found.space = _join_spaces(
            dim, {option: self.to_space(cfg) for option, cfg in composed.items()}
        )
        found.is_recipe = True


def _nodes_of(group: str, plain: Mapping[str, ConfigTree]) -> dict[str, Any] | None:
    """The options as nodes at the group's place; None where one writes elsewhere too."""
    nodes: dict[str, Any] = {}
    others: ConfigTree | None = None
    for option, config in plain.items():
        rest = copy.deepcopy(config)
        nodes[option] = take_option(rest, group)
        if others is not None and rest != others:
            return None
        others = rest
    return nodes


def _check_separate(options: Options) -> None:
    """Check that no group is searched whose section recipes set as well."""
    for group, nodes in options.items():
        for other in options:
            section = place_of(other).partition(".")[0]
            is_set = any(is_global(node) and section in node[GLOBAL] for node in nodes.values())
            if other != group and is_set:
                raise ConfigError(
                    other,
                    f"cannot be searched beside {group}, whose options set {section} as well",
                    f"search one of the two, or {other}=… for all",
                )


def _check_whole_study(
    group: str,
    recipes: Mapping[str, ConfigTree],
    composed: Mapping[str, DictConfig],
) -> None:
    """Check that the recipes say the same of what is one for the whole study.

    Raises:
        ConfigError: They do not; its hint says it for all.
    """
    differing: list[str] = []
    words: list[str] = []
    first, *others = recipes
    for section in (*_WHOLE_STUDY, *(f"trainer.{name}" for name in _LENGTH)):
        for other in others:
            left = _value_at(recipes[first], section)
            for key in _differing_keys(left, _value_at(recipes[other], section), section):
                choices = composed[first].hydra.runtime.choices
                is_group = section in ("sampler", "pruner")
                name = section if is_group else key
                value = choices.get(section) if is_group else _value_at(recipes[first], key)
                if name not in differing:
                    differing.append(name)
                    words.append(f"{name}={value}")
    if differing:
        raise ConfigError(
            group,
            f"{' and '.join(recipes)} differ in what is one for a study: {', '.join(differing)}",
            f"{' '.join(words)} says it for all",
        )


def _differing_keys(left: Any, right: Any, at: str) -> list[str]:
    """The dotted keys below `at` of which two trees have different values."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        found = []
        for key in {**left, **right}:
            found += _differing_keys(left.get(key), right.get(key), f"{at}.{key}")
        return found
    return [] if left == right else [at]


def _value_at(config: ConfigTree, key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return "null" if node is None else node


def _join_spaces(group: Dimension, spaces: Mapping[str, Space]) -> Space:
    """One space of several recipes': what only some of them search is conditional on these.

    Raises:
        ConfigError: Two of them search one key in different ways.
    """
    joined: dict[str, Dimension] = {}
    having: dict[str, list[str]] = {}
    for option, space in spaces.items():
        if space.function is not None:
            raise ConfigError(
                group.name,
                f"{option} has a search space that is a function",
                f"{group.name}={option} searches it alone",
            )
        for dim in space.dimensions:
            known = joined.setdefault(dim.name, dim)
            if known != dim:
                raise ConfigError(
                    dim.name,
                    f"is searched differently by the options of {group.name}:"
                    f" {known.text} and {dim.text}",
                    f"{dim.name}='{known.text}' says it for all",
                )
            having.setdefault(dim.name, []).append(option)
    dims = []
    for name, dim in joined.items():
        options = having[name]
        if len(options) < len(spaces):
            dim = dataclasses.replace(dim, when={**(dim.when or {}), group.name: options})
        dims.append(dim)
    space = next(iter(spaces.values()))
    return space.replace_dimensions(dims)
