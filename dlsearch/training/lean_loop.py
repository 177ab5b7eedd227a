"""The lean training loop, for the versions of Lightning that it was compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.core.versions import is_compared

if TYPE_CHECKING:
    import pytorch_lightning as pl


def make_lean(trainer: pl.Trainer) -> None:
    """Give `trainer` the lean loop; with an unverified version of Lightning it keeps its own."""
    if not is_compared("pytorch_lightning"):
        return

    from dlsearch.training.steps import LeanEpochLoop

    loop = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = LeanEpochLoop(
        trainer,
        min_steps=loop.min_steps,
        max_steps=loop.max_steps,
    )
