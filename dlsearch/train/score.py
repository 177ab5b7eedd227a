"""The test set: opened once, for all trainings of the configuration that has won."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from dlsearch.config.errors import ConfigError
from dlsearch.tracking.journal import Journal
from dlsearch.train.checkpoints import is_whole, weights
from dlsearch.train.describe import first_layer
from dlsearch.train.fit import build_data, build_task, build_trainer, fit, report_of
from dlsearch.train.inside import of_training
from dlsearch.train.run import Run

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass
class Trained:
    """A finished training.

    Args:
        cfg: What was trained.
        folder: Where; its best checkpoint is ``folder/ckpt/best.ckpt``.
        refit_epochs: Length of a training on train + validation; None for others.
    """

    cfg: DictConfig
    folder: Path
    refit_epochs: int | None = None

    @property
    def checkpoint(self) -> Path:
        """The weights that are scored."""
        return self.folder / "ckpt" / "best.ckpt"


def score(trained: Sequence[Trained], kept: int, run: Run) -> dict[str, Any]:
    """Score trainings of one configuration on its test set.

    A checkpoint that is damaged, or not on this machine, is made again first, from the same seed. Everything that can
    fail without the test set has been done when `run.unseal` is called; then one data module serves all.

    Args:
        trained: The trainings; they differ in their seeds alone.
        kept: The one whose whole report is returned; of the others the metrics.
        run: Its `unseal` is called once, `stop` while a checkpoint is made again.

    Returns:
        The report of `kept`, as tasks write it (``metrics n confusion classes errors``), its ``first_layer``, what
        is seen ``inside`` of it, and under ``each`` the metrics of all.

    Raises:
        ConfigError: The module or the data have no test.
        Interrupted: `run.stop` said so.
    """
    for each in trained:
        if not is_whole(each.checkpoint):
            _train_again(each, run)
    data = build_data(trained[kept].cfg)
    tasks = [_load(each) for each in trained]
    if not is_overridden("test_step", tasks[kept], pl.LightningModule):
        raise ConfigError("task", "has no test_step, so that nothing can be scored on the test set", "define one")
    if not is_overridden("test_dataloader", data, pl.LightningDataModule):
        raise ConfigError("data", "has no test_dataloader, so that there is no test set", "define one")
    drawn = _first_layer(tasks[kept], trained[kept].cfg)
    seen = of_training(trained[kept].cfg, tasks[kept], trained[kept].folder)
    run.unseal()
    if hasattr(data, "unseal"):
        data.unseal()
    report: dict[str, Any] = {}
    found: list[dict[str, float]] = []
    for number, (each, task) in enumerate(zip(trained, tasks, strict=True)):
        trainer = build_trainer(each.cfg, _silent(each, run), [])
        whole = report_of(trainer, task, data, examples=number == kept)
        found.append(whole["metrics"])
        if number == kept:
            report = whole
    inside = seen and {key: value for key, value in seen.items() if key != "first_layer"}
    return {**report, "first_layer": drawn, "inside": inside, "each": found}


def _load(each: Trained) -> pl.LightningModule:
    task = build_task(each.cfg)
    task.load_state_dict(weights(each.checkpoint))
    return task


def _silent(each: Trained, run: Run) -> Run:
    """Surroundings of a training whose rows nobody wants: they were written when it was trained."""
    return Run(
        each.folder, Journal(Path(os.devnull)), run.objectives, run.directions,
        stop=run.stop, refit_epochs=each.refit_epochs,
    )  # fmt: skip


def _train_again(each: Trained, run: Run) -> None:
    shutil.rmtree(each.folder / "ckpt", ignore_errors=True)  # half of a training is not gone on with
    result = fit(each.cfg, _silent(each, run))
    if result.state != "complete":
        raise RuntimeError(f"trained again, {each.folder.name} {result.state}: {result.error}")


def _first_layer(task: pl.LightningModule, cfg: DictConfig) -> dict[str, Any] | None:
    net, shape = getattr(task, "net", None), cfg.data.get("shape")
    return None if net is None or shape is None else first_layer(net, tuple(shape))
