"""From a study's document and a trial's parameters to the trial's config.

No Hydra, so that any machine can do it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.study.option_nodes import in_order, put_option, sections_of
from dlsearch.study.trial_secrets import BUILT_GROUPS, NO_SECRETS, TrialSecrets, option_path

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree


def trial_config(
    document: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    seed: int,
    paths: Mapping[str, Any] | None = None,
    secrets: TrialSecrets = NO_SECRETS,
) -> ConfigTree:
    """The config of one trial as a plain container, interpolations unresolved.

    Args:
        document: The study's document: ``config``, and for every config group that is searched its
            ``options``.
        params: Searched values by config key; a group's value is the option's name.
        seed: The trial's seed.
        paths: This machine's ``paths``; the study may have been opened on another.
        secrets: What the masks of the document hide.

    Raises:
        ConfigError: It needs a secret that is not among `secrets`.
    """
    options = document.get("options", {})
    chosen = {name: str(value) for name, value in params.items() if name in options}
    config = _choose_options(document["config"], options, chosen, secrets)
    config["seed"] = seed
    if paths is not None:
        config["paths"] = dict(paths)

    cfg = OmegaConf.create(config)
    for name, value in params.items():
        if name in chosen:
            continue
        OmegaConf.update(
            cfg,
            name,
            value,
            force_add=True,
        )
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _choose_options(
    config: ConfigTree,
    options: Mapping[str, Mapping[str, ConfigTree]],
    chosen: Mapping[str, str],
    secrets: TrialSecrets,
) -> ConfigTree:
    """A copy of the config with the options that were chosen, and with its secrets.

    Args:
        config: The study's.
        options: The options of each searched group.
        chosen: The option of each group that has one.
        secrets: What the masks hide.
    """
    found = copy.deepcopy(dict(config))
    nodes = {}
    replaced: set[str] = set()
    for group, option in chosen.items():
        nodes[group] = secrets.reveal(options[group][option], option_path(group, option))
        replaced |= sections_of(group, nodes[group])
    for section in BUILT_GROUPS:
        if section in found and section not in replaced:
            found[section] = secrets.reveal(found[section], (section,))
    for group in in_order(nodes):
        put_option(found, group, nodes[group])
    return found


def lookup(
    config: Mapping[str, Any],
    key: str,
) -> Any:
    """The value at a dotted `key`; raises KeyError where there is none."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise KeyError(key)
        node = node[part]
    return node
