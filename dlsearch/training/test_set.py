"""The test set: opened once, when a training is over, and scored by the kind of its task."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.tracking.journal import Journal
from dlsearch.training.evaluation.base import TestObserver
from dlsearch.training.evaluation.table import evaluation_of
from dlsearch.training.state import checkpoints
from dlsearch.training.state.restoring import Restored, of_result, restore

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

    from dlsearch.core.types import JsonObject
    from dlsearch.training.run import FitResult, Run


def score_best(cfg: DictConfig, run: Run, result: FitResult) -> JsonObject:
    """Open the test set, once, and score the best checkpoint on it.

    Args:
        cfg: What was trained.
        run: Where; its `unseal` is called before the test set is opened.
        result: What the training came to.

    Returns:
        See :func:`report_of`.
    """
    best = checkpoints.find_weights(run.folder / "ckpt")
    silent = replace(run, journal=Journal(Path(os.devnull)), progress_bar=False)
    restored = restore(cfg, silent, best, of_result(run.monitor, result))
    run.unseal()
    open_test_set(restored.loaders)
    return report_of(restored, restored.data)


def open_test_set(loaders: Any) -> None:
    """Open the test set of a data module, or of a task, that keeps one sealed."""
    if hasattr(loaders, "unseal"):
        loaders.unseal()


def report_of(
    restored: Restored,
    data: pl.LightningDataModule | None,
    *,
    examples: bool = True,
) -> JsonObject:
    """Score a task on the test set, which is open.

    Args:
        restored: What is tested.
        data: Unsealed; None where the task brings its own loaders.
        examples: Whether the facts come with their pictures.

    Returns:
        Its ``metrics``, and the facts that its kind adds.
    """
    evaluation = evaluation_of(restored.task)
    trainer = restored.trainer(TestObserver(evaluation))
    test = functools.partial(trainer.test, verbose=False)
    scored = restored.evaluate(test, datamodule=data)
    metrics: dict[str, float] = {}
    for of_loader in scored:
        for name, value in of_loader.items():
            metrics[name] = float(value)
    facts = evaluation.facts(data if examples else None)
    return {"metrics": metrics, **facts}
