"""From a study's document and a trial's parameters to the trial's config.

No Hydra, so that any machine can do it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from dlsearch.core.errors import ConfigError
from dlsearch.core.masking import MASK, mask

#: Secrets of the config by path, as the command of this process knows them: the study's database
#: has them masked. Inherited by the jobs that are forked from it.
_secrets: dict[tuple[str, ...], Any] = {}
#: What a trial is built from: elsewhere a mask is as good as what it hides.
_BUILT = ("callbacks", "data", "model", "optimizer", "scheduler", "task", "transfer")


def remember(config: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep what of a config, and of the options of its groups, is masked where it is written.

    Its trials need it.
    """
    _differences(config, mask(config), ())
    for group, nodes in options.items():
        for option, node in nodes.items():
            _differences(node, mask(node, group), (f"{group}={option}",))


def _differences(plain: Any, masked: Any, path: tuple[str, ...]) -> None:
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            _differences(value, masked[key], (*path, str(key)))
    elif isinstance(plain, (list, tuple)):
        for index, value in enumerate(plain):
            _differences(value, masked[index], (*path, str(index)))
    elif plain != masked:
        _secrets[path] = plain


def check_known(document: Mapping[str, Any]) -> None:
    """Check that every secret which a trial of the study could need is known to this process.

    Raises:
        ConfigError: One is not.
    """
    options: Mapping[str, Mapping[str, Any]] = document.get("options", {})
    for name in _BUILT:
        if name not in options:
            _reveal(document["config"].get(name), (name,))
    for group, nodes in options.items():
        for option, node in nodes.items():
            _reveal(node, (f"{group}={option}",))


def _reveal(node: Any, path: tuple[str, ...]) -> Any:
    """`node` with the secrets that are known here in the place of their masks.

    Raises:
        ConfigError: One of them is not known here.
    """
    if isinstance(node, Mapping):
        return {key: _reveal(value, (*path, str(key))) for key, value in node.items()}
    if isinstance(node, list):
        return [_reveal(value, (*path, str(index))) for index, value in enumerate(node)]
    if isinstance(node, str) and MASK in node:
        if path in _secrets:
            return _secrets[path]
        raise ConfigError(
            ".".join(path),
            "is a secret, which the study's database does not hold",
            "the study's command can name it as ${oc.env:NAME}; NAME is then set on every machine",
        )
    return node


def trial_config(
    document: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    seed: int,
    paths: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The config of one trial as a plain container, interpolations unresolved.

    Args:
        document: The study's document: ``config``, and for every config group that is searched its
            ``options``.
        params: Searched values by config key; a group's value is the option's name.
        seed: The trial's seed.
        paths: This machine's ``paths``; the study may have been opened on another.

    Raises:
        ConfigError: It needs a secret that this process does not know.
    """
    config = copy.deepcopy(dict(document["config"]))
    options: Mapping[str, Mapping[str, Any]] = document.get("options", {})
    for name, value in params.items():
        if name in options:
            config[name] = _reveal(copy.deepcopy(options[name][str(value)]), (f"{name}={value}",))
    for name in _BUILT:
        if name in config and name not in (set(params) & set(options)):
            config[name] = _reveal(config[name], (name,))
    config["seed"] = seed
    if paths is not None:
        config["paths"] = dict(paths)
    cfg = OmegaConf.create(config)
    for name, value in params.items():
        if name not in options:
            OmegaConf.update(cfg, name, value, force_add=True)
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted `key`; raises KeyError where there is none."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise KeyError(key)
        node = node[part]
    return node
