"""Where the objects of Lightning that a config names may write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.compose import resolve
from dlsearch.config.foreign import is_inside_one
from dlsearch.core import permission
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

#: Arguments of Lightning's callbacks, loggers and profilers that name a folder or a file.
_PLACES = ("dirpath", "exclude_batches_path", "save_dir", "log_dir")
#: Those that name a file or a folder in such a place, with an example.
_NAMES = {"filename": "best-{epoch}", "name": "mine", "version": "first", "sub_dir": "mine"}


def check_places(
    node: Mapping[Any, Any],
    key: str,
    cfg: DictConfig,
) -> None:
    """Refuse an object of a library that would write elsewhere.

    That is, elsewhere than below the store or the working folder.

    Args:
        node: The description of a callback, a logger or a profiler.
        key: Where it stands in the config.
        cfg: The whole config.

    Raises:
        ConfigError: An argument of it names another place.
    """
    if not str(node.get("_target_")).startswith("pytorch_lightning."):
        return
    roots = [Path.cwd(), Path(resolve(cfg, "paths.store")), *permission.folders()]
    for name in _PLACES:
        value = node.get(name)
        if value is None:
            continue
        if not is_inside_one(Path(str(value)), roots):
            raise ConfigError(
                f"{key}.{name}",
                f"{str(value)!r} lies outside the working folder and the store",
                "leave it out: the run's folder;"
                " or allow_paths in [tool.dlsearch] of pyproject.toml",
            )
    for name, example in _NAMES.items():
        text = str(node.get(name) or "")
        if os.sep in text or text == "..":
            raise ConfigError(f"{key}.{name}", "expected a name, not a path", example)
