"""Makes what takes part in a training of its config: data, task, callbacks and trainer."""

from __future__ import annotations

import logging
import random
import warnings
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.model_helpers import is_overridden

from dlsearch.config.build import build, locate
from dlsearch.config.moved import current_name
from dlsearch.core.errors import ConfigError
from dlsearch.tracking.logger import JournalLogger
from dlsearch.training import determinism
from dlsearch.training.failures import first_line
from dlsearch.training.lean_loop import make_lean
from dlsearch.training.trainer.arguments import build_loggers, check_strategy, trainer_settings
from dlsearch.training.trainer.places import check_places
from dlsearch.training.trainer.precision import let_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytorch_lightning.loggers import Logger

    from dlsearch.core.types import ConfigTree
    from dlsearch.training.run import Run

Made = TypeVar("Made")

_OUR_EARLY_STOPPING = "dlsearch.training.callbacks.EarlyStopping"
#: Warnings of Lightning's own making, or known and meant.
_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*LeafSpec.*",
)
#: Precisions whose gradients are scaled; a fused optimizer unscales them itself, after the clip.
_SCALED_PRECISIONS = ("16", "16-mixed")

for _chatty in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)  # devices and tips, once a trial


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch.

    Lightning's own function prints, and its environment variables outlive a trial.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # user code draws from the global generator
    torch.manual_seed(seed)


def build_data(cfg: DictConfig) -> pl.LightningDataModule | None:
    """The data module, None where the task brings its own loaders.

    A refused argument is named under ``data``.
    """
    if OmegaConf.select(cfg, "data") is None:
        return None

    def make() -> pl.LightningDataModule:
        data: pl.LightningDataModule = build(cfg.data, "data")
        return data

    return _build_named("data", make)


def include_validation(data: pl.LightningDataModule | None) -> None:
    """Have a data module train on train + validation.

    Raises:
        ConfigError: It cannot.
    """
    check_refit(data)
    data.include_validation()  # type: ignore[union-attr]  # it was looked for


def check_refit(data: pl.LightningDataModule | None) -> None:
    """Check that a data module can train on train + validation.

    Raises:
        ConfigError: It cannot.
    """
    if not hasattr(data, "include_validation"):
        owner = "a data module" if data is None else type(data).__name__
        hint = f"give {owner} a method include_validation(), or study.confirm.refit=false"
        raise ConfigError(
            "study.confirm.refit",
            "expected data that can train on train + validation",
            hint,
        )


def build_task(cfg: DictConfig) -> pl.LightningModule:
    """The LightningModule with all that it is made of."""
    # named by their own group, not by the task that takes them
    for group in ("model", "optimizer", "scheduler"):
        node = OmegaConf.select(cfg, group)
        if node is not None and "_target_" in node:
            locate(node["_target_"], group)

    def make() -> pl.LightningModule:
        task: pl.LightningModule = build(cfg.task, "task")
        return task

    return _build_named("task", make)


def build_anywhere(cfg: DictConfig) -> pl.LightningModule:
    """The task on the meta device, or on the CPU where its constructor needs real tensors.

    Raises:
        ConfigError: It cannot be built there either.
    """
    try:
        with torch.device("meta"):
            return build_task(cfg)
    except Exception:  # of user code
        seed_everything(cfg.seed)
        return build_task(cfg)


def check_optimizer(cfg: DictConfig) -> None:
    """Make the optimizer of one parameter: what it refuses is known before anything is written."""
    clips = OmegaConf.select(cfg, "trainer.gradient_clip_val")
    precision = str(OmegaConf.select(cfg, "trainer.precision"))
    is_fused = OmegaConf.select(cfg, "optimizer.fused")
    if clips and is_fused and precision in _SCALED_PRECISIONS:
        raise ConfigError(
            "optimizer.fused",
            "expected false where trainer.precision=16-mixed clips gradients",
            "or bf16-mixed",
        )
    if OmegaConf.select(cfg, "optimizer._partial_"):
        make = build(cfg.optimizer, "optimizer")
        parameter = torch.nn.Parameter(torch.zeros(1))
        _build_named("optimizer", lambda: make([parameter]))


def _build_named(group: str, make: Callable[[], Made]) -> Made:
    """What `make` makes; what it refuses is named under the config group."""
    try:
        return make()
    except ConfigError:
        raise
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise ConfigError(group, first_line(error)) from error


def build_callbacks(cfg: DictConfig, run: Run) -> list[pl.Callback]:
    """The config's callbacks.

    Those that watch a metric watch the objective unless they name another.
    """
    callbacks: dict[str, pl.Callback] = {}
    for name, node in (cfg.callbacks or {}).items():
        if node is None:
            continue
        callback = _build_callback(node, f"callbacks.{name}", cfg, run)
        # on train + validation nothing is validated, and the length is known
        is_early_stopping = isinstance(callback, pl.callbacks.EarlyStopping)
        if run.refit_epochs is not None and is_early_stopping:
            continue
        callbacks[f"callbacks.{name}"] = callback
    check_state_keys(callbacks)
    return list(callbacks.values())


def _build_callback(
    node: DictConfig,
    key: str,
    cfg: DictConfig,
    run: Run,
) -> pl.Callback:
    target = node.get("_target_")
    defaults: ConfigTree = {}
    if current_name(str(target)) == _OUR_EARLY_STOPPING:
        defaults = _watch_objective(node, run)
    check_places(node, key, cfg)
    callback = build(node, key, **defaults)
    if not isinstance(callback, pl.Callback):
        raise ConfigError(f"{key}._target_", f"{target!r} makes no callback")
    return callback


def _watch_objective(node: DictConfig, run: Run) -> ConfigTree:
    """Arguments of our early stopping that its config leaves out."""
    usual: ConfigTree = {
        "monitor": run.monitor,
        "mode": run.mode,
        "strict": "monitor" in node,
    }
    return {name: value for name, value in usual.items() if name not in node}


def check_state_keys(callbacks: Mapping[str, pl.Callback]) -> None:
    """Check that checkpoints can tell the states of callbacks apart.

    Args:
        callbacks: By the key of the config at which each stands.

    Raises:
        ConfigError: Two of them have one state key, as two of one class that watch one metric.
    """
    seen: dict[str, str] = {}
    for name, callback in callbacks.items():
        if not is_overridden("state_dict", callback, parent=pl.Callback):
            continue
        other = seen.setdefault(callback.state_key, name)
        if other != name:
            raise ConfigError(
                name,
                f"a checkpoint cannot tell it from {other}: both are {callback.state_key}",
                f"{name}=null, or another monitor or mode for one of them",
            )


class ParameterCount(NamedTuple):
    """What a module trains.

    Args:
        numbers: How many numbers.
        lazy: How many of its parameters have no shape yet: those of lazy layers get theirs from the
            first batch.
    """

    numbers: int
    lazy: int


def count_parameters(module: torch.nn.Module) -> ParameterCount:
    """Count what a module trains."""
    numbers = 0
    lazy = 0
    for parameter in module.parameters():
        if isinstance(parameter, torch.nn.parameter.UninitializedParameter):
            lazy += 1
        elif parameter.requires_grad:
            numbers += parameter.numel()
    return ParameterCount(numbers, lazy)


def build_trainer(
    cfg: DictConfig,
    run: Run,
    callbacks: list[pl.Callback],
    *,
    logger: JournalLogger | None = None,
) -> pl.Trainer:
    """A Trainer for small steps.

    It has no checkpointing but ours, and no sanity check, summary or bar unless asked.

    Args:
        cfg: Its arguments are under ``trainer``.
        run: Its folder and journal.
        callbacks: All of them.
        logger: Takes the place of those that write into the run's journal and elsewhere.

    Raises:
        ConfigError: Lightning refuses an argument.
    """
    settings = trainer_settings(cfg, run)
    loggers: list[Logger] = [] if logger is None else [logger]
    if logger is None:
        loggers = [JournalLogger(run.journal), *build_loggers(cfg, run)]
    determinism.check(settings.get("deterministic"))
    if run.refit_epochs is not None:
        settings["limit_val_batches"] = 0
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    try:
        trainer = pl.Trainer(
            **settings,
            logger=loggers,
            callbacks=callbacks,
            default_root_dir=run.folder,
            enable_checkpointing=True,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError("trainer", first_line(error)) from error
    check_strategy(trainer)
    make_lean(trainer)
    let_clip(trainer)
    return trainer
