"""Makes what takes part in a training of its config: data, task, callbacks and trainer."""

from __future__ import annotations

import logging
import os
import random
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType

from dlsearch.config.build import build, locate
from dlsearch.config.compose import resolve
from dlsearch.config.foreign import is_inside_one
from dlsearch.config.moved import current_name
from dlsearch.core import permission
from dlsearch.core.errors import ConfigError
from dlsearch.tracking.logger import JournalLogger
from dlsearch.training import determinism
from dlsearch.training.failures import first_line
from dlsearch.training.lean_loop import make_lean

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from dlsearch.core.types import ConfigTree
    from dlsearch.training.run import Run

Made = TypeVar("Made")

_OUR_EARLY_STOPPING = "dlsearch.training.callbacks.EarlyStopping"
#: Arguments of Lightning's callbacks that name what is written.
_PLACES = ("dirpath", "exclude_batches_path")
#: Arguments of Lightning's Trainer of which null says something: validation by batches, not epochs.
_NULL_MEANS = ("check_val_every_n_epoch",)
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
    callbacks: list[pl.Callback] = []
    for name, node in (cfg.callbacks or {}).items():
        if node is None:
            continue
        callback = _build_callback(node, f"callbacks.{name}", cfg, run)
        # on train + validation nothing is validated, and the length is known
        is_early_stopping = isinstance(callback, pl.callbacks.EarlyStopping)
        if run.refit_epochs is not None and is_early_stopping:
            continue
        callbacks.append(callback)
    return callbacks


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
    _check_places(node, key, cfg)
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


def _check_places(node: DictConfig, key: str, cfg: DictConfig) -> None:
    """Refuse a callback of a library that writes elsewhere.

    That is, elsewhere than below the store or the working folder.
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
    if os.sep in str(node.get("filename") or ""):
        raise ConfigError(
            f"{key}.filename",
            "expected a name, not a path",
            "best-{epoch}",
        )


def build_trainer(
    cfg: DictConfig,
    run: Run,
    callbacks: list[pl.Callback],
) -> pl.Trainer:
    """A Trainer for small steps.

    It has no sanity check, no summary, no checkpointing but ours, and no bar unless asked.
    """
    settings = _trainer_settings(cfg)
    determinism.check(settings.get("deterministic"))
    if run.refit_epochs is not None:
        settings["limit_val_batches"] = 0
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    try:
        trainer = pl.Trainer(
            **settings,
            logger=JournalLogger(run.journal),
            callbacks=callbacks,
            default_root_dir=run.folder,
            enable_checkpointing=True,
            enable_progress_bar=run.progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError("trainer", first_line(error)) from error
    make_lean(trainer)
    _let_clip(trainer)
    return trainer


def _let_clip(trainer: pl.Trainer) -> None:
    """Let gradients of fused optimizers be clipped under bf16-mixed.

    Lightning refuses it for every mixed precision, because a fused optimizer undoes the scaling of
    gradients itself, after the clip. With bfloat16 nothing is scaled.
    """
    plugin = trainer.precision_plugin
    if type(plugin) is MixedPrecision and plugin.scaler is None:
        trainer.strategy.precision_plugin = _Bf16Mixed("bf16-mixed", plugin.device)


class _Bf16Mixed(MixedPrecision):
    """Lightning's, without the check that is about scaled gradients."""

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        """Clip as in full precision."""
        Precision.clip_gradients(self, optimizer, clip_val, gradient_clip_algorithm)


def _trainer_settings(cfg: DictConfig) -> ConfigTree:
    """The arguments of Lightning's Trainer that the config gives."""
    settings: ConfigTree = {}
    for name, value in resolve(cfg, "trainer").items():
        if value is not None or name in _NULL_MEANS:
            settings[name] = value
    return settings
