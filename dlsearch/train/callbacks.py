"""Callbacks of every training: report and prune, stop, keep the last and best checkpoints with all RNG states."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.callbacks import EarlyStopping as LightningEarlyStopping

from dlsearch.config.errors import ConfigError
from dlsearch.train import checkpoints
from dlsearch.train.fingerprint import metrics_digest
from dlsearch.train.micro import length
from dlsearch.train.run import Interrupted, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytorch_lightning as pl


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, on the study's objective unless told otherwise.

    Args:
        monitor: The metric to watch.
        mode: ``max`` or ``min``.
        patience: Validated epochs without improvement.
        min_delta: What counts as one.
        strict: Fail where the metric is not logged; of the objective, the trial's own callback says so.
    """

    def __init__(
        self, monitor: str, mode: str = "min", patience: int = 10, min_delta: float = 0.0, strict: bool = True
    ) -> None:
        """As Lightning's, but quiet about non-finite values: the trial's own callback reports these."""
        super().__init__(
            monitor=monitor, mode=mode, patience=patience, min_delta=min_delta, strict=strict, check_finite=False
        )


def rng_state() -> dict[str, Any]:
    """The state of every random number generator, of types that ``weights_only`` loads."""
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  # user code draws from the global
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: Mapping[str, Any]) -> None:
    """Put back what :func:`rng_state` took."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])


class RunCallback(Checkpoint):
    """Ties a training to its :class:`~dlsearch.train.run.Run`.

    A subclass of Lightning's ``Checkpoint``, because only those run after every other callback and the module itself
    have logged an epoch. After each validated epoch it checks that the numbers are finite, keeps `last.ckpt` and
    `best.ckpt`, reports, and stops the trainer when told to prune. (``TrialPruned`` raised inside ``fit`` would
    finalise the loggers as failed; a flag and ``should_stop`` do not.)

    Args:
        run: The surroundings.
    """

    def __init__(self, run: Run) -> None:
        """Nothing is written before the first epoch has ended."""
        super().__init__()
        self.run = run
        self.folder = run.folder / "ckpt"
        self.resumption = checkpoints.Resumption()
        self.pruned = False
        self.failure: str | None = None
        self.best: dict[str, Any] | None = None  # value, values, epoch, step, metrics
        self.history: list[list[float]] = []  # epoch, first objective
        self.metrics_sha256 = ""  # of the validated epochs so far, those before a resumption included
        self.resumed_epoch: int | None = None
        self.final: dict[str, float] = {}  # the metrics of the last epoch that was kept
        self.batch_size: int | None = None  # of the first batch; None before it
        self._epoch, self._step, self._stopped = -1, -1, False
        self._validated = False
        self._epoch_started = self._batch_ended = 0.0
        self._waited = 0.0

    # -- time and interruption -----------------------------------------------------------------------------------
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clocks."""
        self._epoch_started = self._batch_ended = time.perf_counter()
        self._waited = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the time since the last batch as waiting for data."""
        self._waited += time.perf_counter() - self._batch_ended
        if self.batch_size is None:
            self.batch_size = length(batch) or 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop when told to."""
        if self.run.stop():
            raise Interrupted
        self._batch_ended = time.perf_counter()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Stop when told to: a validation may take longer than a preemption's grace."""
        if self.run.stop():
            raise Interrupted

    # -- the end of an epoch -------------------------------------------------------------------------------------
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that this epoch has fresh validation metrics."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check, keep, report, prune."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch, step = trainer.current_epoch, trainer.global_step
        times = {
            "time/epoch_s": time.perf_counter() - self._epoch_started,
            "time/data_wait_s": self._waited,
        }
        if torch.cuda.is_initialized():
            times["gpu/peak_mem_mb"] = torch.cuda.max_memory_allocated() / 2**20
        self.run.journal.metrics(times, step)
        if self._validated:
            self.metrics_sha256 = metrics_digest([(epoch, step, metrics)], self.metrics_sha256)
        self.failure = _not_finite(metrics, self.run.objectives)
        if self.failure:
            trainer.should_stop = True
            self.run.journal.flush()
            return
        if self.run.refit_epochs is not None:
            self.best = {"value": None, "epoch": epoch, "step": step, "metrics": metrics}
            trainer.should_stop = trainer.should_stop or epoch + 1 >= self.run.refit_epochs
            self._keep(trainer, metrics)
        elif self._validated:
            self._validated = False
            self._note_best(metrics, epoch, step)
            self._keep(trainer, metrics)
            if self.run.report(epoch, step, metrics):
                self.pruned = True
                trainer.should_stop = True
        self.run.journal.flush()

    def _keep(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        """Write the last checkpoint, which may be the best one too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._epoch, self._step = trainer.current_epoch, trainer.global_step
        self.final, self._stopped = metrics, trainer.should_stop
        checkpoints.save(trainer, self.folder, best=self.best is not None and self.best["epoch"] == self._epoch)

    def _note_best(self, metrics: dict[str, float], epoch: int, step: int) -> None:
        if self.run.monitor not in metrics:
            known = ", ".join(sorted(metrics)) or "nothing"
            raise ConfigError("study.objective", f"{self.run.monitor!r} is not logged", f"the module logs {known}")
        value = metrics[self.run.monitor]
        self.history.append([epoch, value])
        sign = 1.0 if self.run.mode == "max" else -1.0
        if self.best is None or sign * value > sign * self.best["value"]:
            self.best = {"value": value, "epoch": epoch, "step": step, "metrics": metrics}

    # -- what a resumption needs ---------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Into the checkpoint: the best so far, the metrics' digest, and every RNG (Lightning saves none)."""
        state = {"rng": rng_state(), "best": self.best, "history": self.history, "metrics_sha256": self.metrics_sha256}
        return state | {"epoch": self._epoch, "step": self._step, "final": self.final, "stopped": self._stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best so far. The RNGs come back in :meth:`on_train_start`, after all set-up that draws from them."""
        self.best, self.metrics_sha256 = state_dict["best"], state_dict.get("metrics_sha256", "")
        self.history = state_dict.get("history", [])
        self.final, self._stopped = state_dict.get("final", {}), state_dict.get("stopped", False)
        self._epoch, self._step = state_dict.get("epoch", -1), state_dict.get("step", -1)
        if self.best is not None and self.best["epoch"] == self._epoch and self.resumption.path is not None:
            checkpoints.keep_best(self.resumption.path)  # a kill may have come between last.ckpt and best.ckpt
        self._rng = state_dict["rng"]
        self.resumed_epoch = self._epoch + 1  # also where none is left to train

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the last epoch of a resumed run again: a kill may have come between its checkpoint and its report."""
        if self.resumed_epoch is not None and self.final and self.run.refit_epochs is None:
            self.pruned = self.run.report(self._epoch, self._step, self.final)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the RNGs of a resumed run."""
        state = getattr(self, "_rng", None)
        if state is not None:
            restore_rng(state)
            self.resumed_epoch = trainer.current_epoch
            trainer.should_stop = self._stopped or self.pruned  # Lightning would train one more epoch, and then stop
            self._rng = None


def _not_finite(metrics: Mapping[str, float], objectives: list[str]) -> str | None:
    """``nan`` or ``inf`` where an objective or a loss is."""
    for name, value in metrics.items():
        if (name in objectives or "loss" in name) and not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf"
    return None
