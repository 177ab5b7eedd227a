"""What watches a training of one batch: the names that it logs, and when."""

from __future__ import annotations

import functools
import inspect
import math
import time
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from dlsearch.config.progress import ProgressUnit
from dlsearch.execution.rehearsal.messages import LoggedName, Stage
from dlsearch.tracking.logger import JournalLogger
from dlsearch.training.progress import unit_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dlsearch.tracking.journal import Journal

#: Epochs of a batch that are trained while an objective has not been logged: some are costly, and
#: logged in every fifth.
MAX_EPOCHS = 12


class ListeningLogger(JournalLogger):
    """The trial's logger; it notes the names that it is given.

    Args:
        journal: Of the rehearsal.
    """

    def __init__(self, journal: Journal) -> None:
        """Nothing is noted yet."""
        super().__init__(journal)
        self.names: set[str] = set()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Note the names, and keep no row."""
        self.names |= {str(name) for name in metrics}


class Listener(pl.Callback):
    """Notes each call of ``self.log``, and makes epochs short.

    All settings of the trainer are the trial's while optimizers and schedules are made, as these
    may count the batches. Only then is an epoch made shorter.

    Args:
        batches: Of an epoch.
    """

    def __init__(self, batches: int) -> None:
        """Nothing is noted yet."""
        self.batches = batches
        self.logged: set[LoggedName] = set()
        self.train_batches: int | None = None
        self.trained = 0
        self.epochs = 0
        self._stage = Stage.TRAIN
        self._in_batch = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stand before the module's ``log``."""
        log = pl_module.log
        signature = inspect.signature(log)

        @functools.wraps(log)
        def listen(*args: Any, **kwargs: Any) -> None:
            log(*args, **kwargs)
            given = signature.bind(*args, **kwargs).arguments
            self._note(str(given["name"]), given.get("on_step"), given.get("on_epoch"))

        pl_module.log = listen  # type: ignore[method-assign]

    def _note(self, name: str, on_step: bool | None, on_epoch: bool | None) -> None:
        is_training_step = self._stage is Stage.TRAIN and self._in_batch
        by_step = is_training_step if on_step is None else on_step
        by_epoch = not is_training_step if on_epoch is None else on_epoch
        self.logged.add(LoggedName(name, self._stage, by_step, by_epoch))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shorten the epoch."""
        self.epochs += 1
        self._stage = Stage.TRAIN
        self._in_batch = False
        whole = trainer.fit_loop.max_batches
        if self.train_batches is None and math.isfinite(whole):
            self.train_batches = int(whole)
        trainer.fit_loop.max_batches = min(whole, self.batches)
        trainer.val_check_batch = trainer.fit_loop.max_batches

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """A batch begins."""
        self._stage = Stage.TRAIN
        self._in_batch = True

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """A batch was trained."""
        self.trained += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is logged from now on is of the epoch."""
        self._stage = Stage.TRAIN
        self._in_batch = False

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is logged from now on is of the validation."""
        self._stage = Stage.VALIDATE
        self._in_batch = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The training goes on."""
        self._stage = Stage.TRAIN


class Ending(Checkpoint):
    """Looks at what an epoch's end knows, saves a checkpoint, and stops.

    A subclass of Lightning's ``Checkpoint``, because only those run after every other callback and
    the module itself have logged an epoch.

    Args:
        objectives: Without any of them a further epoch is trained.
        path: Where the checkpoint is saved; None saves none.
        until: When no further epoch is begun, by the monotonic clock.
    """

    def __init__(self, objectives: Sequence[str], path: Path | None, until: float) -> None:
        """Nothing is known yet."""
        super().__init__()
        self.objectives = set(objectives)
        self.path = path
        self.until = until
        self.reported: set[str] = set()
        self.is_validated = False
        self._epochs = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of what counts in steps, a report."""
        self.is_validated = True
        if unit_of(pl_module) is not ProgressUnit.EPOCH:
            self.reported |= set(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A report."""
        self._epochs += 1
        self.reported |= set(trainer.callback_metrics)
        if self.path is not None:
            trainer.save_checkpoint(self.path)
            self.path = None
        is_enough = self._epochs >= MAX_EPOCHS or time.monotonic() > self.until
        if is_enough or self.objectives <= self.reported:
            trainer.should_stop = True
