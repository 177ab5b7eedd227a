"""Every recipe of conf/experiment trains and validates: two batches of its own data, of digits where that is absent."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from dlsearch.config.compose import compose_config, config_dir
from dlsearch.training.building import build_data, build_task
from tests.kinds import quick_if
from tests.systems.heavy import is_light

RECIPES = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))
OWN = ("digits", "diabetes", "truth_table")  # data that need no files


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


#: each way of training, and the losses and layers that half precision could harm
HALF = ("googlenet_cifar10", "svm_mnist", "polynomial_diabetes", "stn_mnist", "softmax_mnist")

#: others differ from these in their sizes
ALIKE = ("depth_cifar10", "perceptron_or", "perceptron_and", "convnet_cifar10", "resnet20_cifar10")


@pytest.mark.parametrize(
    ("name", "precision"),
    quick_if(
        [*((name, "32-true") for name in RECIPES), *((name, "bf16-mixed") for name in HALF)],
        lambda case: is_light(case[0].rpartition("_")[0]) and case[0] not in ALIKE,
    ),
)
# torchvision's own, on reading
@pytest.mark.filterwarnings("default", "ignore:.*LeafSpec:FutureWarning")
def test_runs_two_batches(name: str, precision: Any, cache: Path, tmp_path: Path) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.manual_seed(0)
    words = [
        f"experiment={name}",
        f"paths.cache={cache}",
        f"paths.store={tmp_path}",
        "data.eval_batch_size=32",
    ]
    recipe = compose_config([f"experiment={name}"]).data
    words += ["data.batch_size=8"] if recipe.batch_size > 8 else []
    data_name = recipe._target_.rsplit(".", 1)[-1].lower()
    root = os.environ.get("DLSEARCH_DATA")
    if data_name not in [each.replace("_", "") for each in OWN] and root is None:
        # the recipe's sizes are for its own data
        words += ["data=digits", "data.train_size=null", "data.val_size=360"]
    elif root is not None:
        words.append(f"paths.data={root}")
    cfg = compose_config(words)
    data, task = build_data(cfg), build_task(cfg)
    trainer = pl.Trainer(
        max_epochs=1, limit_train_batches=2, limit_val_batches=1, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=tmp_path, precision=precision,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    objective = cfg.study.objective
    assert objective in trainer.callback_metrics
    assert all(torch.isfinite(value) for value in trainer.callback_metrics.values())
    assert trainer.global_step == 2
