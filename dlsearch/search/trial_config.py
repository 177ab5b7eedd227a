"""From a study's document and a trial's parameters to the trial's config; no Hydra, so that any machine can do it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from dlsearch.config.errors import ConfigError


def trial_config(
    document: Mapping[str, Any], params: Mapping[str, Any], *, seed: int, paths: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The config of one trial as a plain container, interpolations unresolved.

    Args:
        document: The study's document: ``config``, and for every config group that is searched its ``options``.
        params: Searched values by config key; a group's value is the option's name.
        seed: The trial's seed.
        paths: This machine's ``paths``; the study may have been opened on another.
    """
    config = copy.deepcopy(dict(document["config"]))
    options: Mapping[str, Mapping[str, Any]] = document.get("options", {})
    for name, value in params.items():
        if name in options:
            config[name] = copy.deepcopy(options[name][str(value)])
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


def check_project(name: Any) -> None:
    """The project part of an MLflow experiment's name.

    Raises:
        ConfigError: It is no short line of text.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 100 or not name.isprintable():
        raise ConfigError("tracking.project", f"expected a line of up to 100 characters, got {str(name)[:60]!r}")


def check_name(name: str) -> str:
    """A study's name, which is also a folder's.

    Raises:
        ConfigError: It could leave the store, or no file system takes it.
    """
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    if not name or len(name) > 100 or not set(name) <= allowed or name[0] in ".-":
        shown = name if len(name) < 60 else f"{name[:60]}…"
        raise ConfigError(
            "study.name", f"expected letters, digits, '.', '_' and '-', got {shown!r}", "study.name=nightly"
        )
    return name
