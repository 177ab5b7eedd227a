"""The test set: opened once, for all trainings of the configuration that has won."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.utilities.model_helpers import is_overridden

from dlsearch.core.errors import ConfigError
from dlsearch.inspection.describe import first_layer
from dlsearch.inspection.inside import of_training
from dlsearch.study.states import AttemptState
from dlsearch.tracking.journal import Journal
from dlsearch.training.fit import fit
from dlsearch.training.run import Run
from dlsearch.training.state import portable
from dlsearch.training.state.checkpoints import find_weights, is_whole
from dlsearch.training.state.restoring import Expected, Restored, has_loader, of_result, restore
from dlsearch.training.state.resume_record import ResumeRecord
from dlsearch.training.test_set import open_test_set, report_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dlsearch.core.types import JsonObject
    from dlsearch.inspection.findings import FirstLayer


@dataclass
class Trained:
    """A finished training.

    Args:
        cfg: What was trained.
        folder: Where; its checkpoints lie in ``folder/ckpt``.
        refit_epochs: Length of a training on train + validation; None for others.
        micro_batches: Parts in which each batch was trained.
        expected: What it said at its end; None where nothing is known of it.
    """

    cfg: DictConfig
    folder: Path
    refit_epochs: int | None = None
    micro_batches: int = 1
    expected: Expected | None = None

    @property
    def checkpoint(self) -> Path:
        """The weights that are scored."""
        return find_weights(self.folder / "ckpt")


def score(trained: Sequence[Trained], kept: int, run: Run) -> JsonObject:
    """Score trainings of one configuration on its test set.

    A checkpoint that is damaged, or not on this machine, is made again first, from the same seed.
    Everything that can fail without the test set has been done when `run.unseal` is called: each
    module was made as its training made it, its weights were loaded strictly, and its validation
    figure was computed again from them. Then one data module serves all.

    Args:
        trained: The trainings; they differ in their seeds alone.
        kept: The one whose whole report is returned; of the others the metrics.
        run: Its `unseal` is called once, `stop` while a checkpoint is made again.

    Returns:
        The report of `kept` (``metrics`` and the facts of its kind), its ``first_layer``, what is
        seen ``inside`` of it, and under ``each`` the metrics of all.

    Raises:
        ConfigError: The module or the data have no test.
        WeightsMismatchError: The weights of a training cannot be loaded, or give another figure
            than it reported.
        Interrupted: `run.stop` said so.
    """
    restored = [_restored(each, run) for each in trained]
    _check_test(restored[kept])
    task = restored[kept].task
    data = restored[kept].data
    drawn = _first_layer(task, trained[kept].cfg)
    seen = of_training(trained[kept].cfg, task, trained[kept].folder)
    portable.write(task, data, trained[kept].cfg, trained[kept].folder)
    run.unseal()
    if data is not None:
        open_test_set(data)
    report: JsonObject = {}
    found: list[dict[str, float]] = []
    for number, each in enumerate(restored):
        if data is None:
            open_test_set(each.task)
        whole = report_of(each, data, examples=number == kept)
        found.append(whole["metrics"])
        if number == kept:
            report = whole
    inside: JsonObject | None = None
    if seen is not None:
        inside = {key: value for key, value in seen.items() if key != "first_layer"}
    return {
        **report,
        "first_layer": drawn,
        "inside": inside,
        "each": found,
    }


def _check_test(restored: Restored) -> None:
    """Check that there is a test set, and something to score on it.

    Raises:
        ConfigError: The module or the data have no test.
    """
    if not is_overridden("test_step", restored.task, pl.LightningModule):
        raise ConfigError(
            "task",
            "has no test_step, so that nothing can be scored on the test set",
            "define one",
        )
    if not has_loader("test_dataloader", restored.loaders):
        raise ConfigError(
            "task" if restored.data is None else "data",
            "has no test_dataloader, so that there is no test set",
            "define one",
        )


def _restored(each: Trained, run: Run) -> Restored:
    """The module of a training with its weights, which are made again where they are not here."""
    expected = each.expected or Expected(run.monitor)
    record = ResumeRecord(each.checkpoint.parent, run.resume_key)
    if not is_whole(each.checkpoint, record):
        expected = _train_again(each, run)
    restored = restore(each.cfg, _silent(each, run), each.checkpoint, expected)
    # it holds on to loaders, and a data set in memory for each replica is too many
    restored.task.trainer = None
    return restored


def _silent(each: Trained, run: Run) -> Run:
    """A run without a journal: the rows of the training were written when it was trained."""
    return Run(
        each.folder,
        Journal(Path(os.devnull)),
        run.objectives,
        run.directions,
        stop=run.stop,
        refit_epochs=each.refit_epochs,
        micro_batches=each.micro_batches,
        resume_key=run.resume_key,
    )


def _train_again(each: Trained, run: Run) -> Expected:
    """Train it again from its seed.

    What it says at its end, which on another class of machine is another figure.
    """
    # half of a training is not resumed
    shutil.rmtree(each.folder / "ckpt", ignore_errors=True)
    result = fit(each.cfg, _silent(each, run))
    if result.state != AttemptState.COMPLETE:
        raise RuntimeError(f"trained again, {each.folder.name} {result.state}: {result.error}")
    return of_result(run.monitor, result)


def _first_layer(task: pl.LightningModule, cfg: DictConfig) -> FirstLayer | None:
    net = getattr(task, "net", None)
    shape = OmegaConf.select(cfg, "data.shape")
    return None if net is None or shape is None else first_layer(net, tuple(shape))
