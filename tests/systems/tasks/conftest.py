"""Whole configurations out of the YAMLs, without Hydra."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from collections.abc import Callable

CONF = Path(__file__).parents[3] / "conf"
GROUPS = {
    "data": "digits",
    "model": "linear",
    "task": "classification",
    "optimizer": "adamw",
    "scheduler": "constant",
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def compose(cache: Path) -> Callable[..., DictConfig]:
    """A config of the groups, with changes by dotted key."""

    def make(changes: dict[str, Any] | None = None, **groups: str) -> DictConfig:
        cfg = OmegaConf.create({"seed": 0, "paths": {"data": str(cache), "cache": str(cache)}})
        for group, option in {**GROUPS, **groups}.items():
            cfg[group] = OmegaConf.load(CONF / group / f"{option}.yaml")
        for key, value in (changes or {}).items():
            OmegaConf.update(cfg, key, value)
        torch.manual_seed(0)
        return cfg

    return make


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., pl.Trainer]:
    """A quiet Trainer on the CPU."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    def make(**settings: Any) -> pl.Trainer:
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "accelerator": "cpu",
            "devices": 1,
            "log_every_n_steps": 1,
            "default_root_dir": tmp_path,
        }
        return pl.Trainer(**quiet | settings)

    return make
