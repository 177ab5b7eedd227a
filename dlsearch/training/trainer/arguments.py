"""The arguments of Lightning's Trainer that a config gives, as Lightning takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.plugins import Precision
from pytorch_lightning.strategies import ParallelStrategy

from dlsearch.config.build import BUILT_ARGUMENTS, build, build_placed, is_placed
from dlsearch.config.compose import resolve
from dlsearch.config.trainer_arguments import check_trainer, without_fast_dev_run
from dlsearch.core.errors import ConfigError
from dlsearch.training.trainer.places import check_places

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning.loggers import Logger

    from dlsearch.core.types import ConfigTree
    from dlsearch.training.run import Run

#: Arguments of which null says something: validation by batches, not epochs.
_NULL_MEANS = ("check_val_every_n_epoch",)
#: The precision of the built-in config: a plugin takes its place.
_USUAL_PRECISION = "32-true"


def trainer_settings(cfg: DictConfig, run: Run) -> ConfigTree:
    """The arguments of Lightning's Trainer that the config gives, and what stands in for others.

    Args:
        cfg: The config.
        run: Its folder, and whether a bar is shown.

    Raises:
        ConfigError: One of them is none that a trial can have.
    """
    given = resolve(cfg, "trainer")
    check_trainer(given)
    settings: ConfigTree = {
        "enable_progress_bar": run.progress_bar,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    for name, value in without_fast_dev_run(given).items():
        if value is not None or name in _NULL_MEANS:
            settings[name] = value
    for name in BUILT_ARGUMENTS:
        if name in settings:
            settings[name] = _build_argument(settings[name], f"trainer.{name}", cfg, run)
    if _has_precision(settings.get("plugins")) and settings.get("precision") == _USUAL_PRECISION:
        del settings["precision"]
    return settings


def _build_argument(value: Any, key: str, cfg: DictConfig, run: Run) -> Any:
    """The value of an argument, with the object that a node with a ``_target_`` describes."""
    if isinstance(value, list):
        return [
            _build_argument(each, f"{key}[{index}]", cfg, run) for index, each in enumerate(value)
        ]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        raise ConfigError(f"{key}._target_", "expected the dotted path of a class", "my.Class")
    check_places(value, key, cfg)
    node = dict(value)
    if key == "trainer.profiler" and "filename" in node:
        node.setdefault("dirpath", str(run.folder))
    if is_placed(node, key):
        return build_placed(node, key, key)
    return build(node, key)


def _has_precision(plugins: Any) -> bool:
    listed = plugins if isinstance(plugins, list) else [plugins]
    return any(isinstance(plugin, Precision) for plugin in listed)


def build_loggers(cfg: DictConfig, run: Run) -> list[Logger]:
    """The loggers of Lightning's that the config has beside the journal.

    One that is told no place writes into the run's folder.

    Raises:
        ConfigError: One of them is none, or writes elsewhere.
    """
    loggers: list[Logger] = []
    for name, node in (resolve(cfg, "logger") or {}).items():
        if node is None:
            continue
        key = f"logger.{name}"
        if not isinstance(node, Mapping) or "_target_" not in node:
            hint = f"{key}._target_=pytorch_lightning.loggers.CSVLogger"
            raise ConfigError(key, "expected a logger by its _target_", hint)
        check_places(node, key, cfg)
        if is_placed(node, "logger"):
            described = {"save_dir": str(run.folder), **node}
            logger = build_placed(described, "logger", key)
        else:
            logger = build(node, key)
        if not isinstance(logger, pl.loggers.Logger):
            raise ConfigError(f"{key}._target_", f"{node['_target_']!r} makes no logger")
        loggers.append(logger)
    return loggers


def check_strategy(trainer: pl.Trainer) -> None:
    """Refuse a strategy that shares a training out to several devices or processes.

    Raises:
        ConfigError: The trainer has such a one.
    """
    strategy = trainer.strategy
    if isinstance(strategy, ParallelStrategy):
        raise ConfigError(
            "trainer.strategy",
            f"a trial owns one device, and {type(strategy).__name__} wants several",
            "leave it out; trials run side by side, one a device",
        )
