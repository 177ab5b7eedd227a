"""Callbacks of every training.

They report and prune, stop, and keep the last and best checkpoints with all RNG states.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.callbacks import EarlyStopping as LightningEarlyStopping

from dlsearch.config.progress import ProgressUnit
from dlsearch.core.errors import ConfigError
from dlsearch.training.fingerprint import metrics_digest
from dlsearch.training.metrics.finiteness import (
    NonFinite,
    TrainingLosses,
    find_non_finite,
    name_of_number,
)
from dlsearch.training.metrics.fresh import (
    FreshMetrics,
    explain_missing_objective,
    is_same_place,
)
from dlsearch.training.micro_batches import length
from dlsearch.training.progress import completed_units, unit_of
from dlsearch.training.run import Interrupted, Run
from dlsearch.training.state import checkpoints, weights_file
from dlsearch.training.state.checkpoints import Note
from dlsearch.training.state.kept_state import kept_state, plain_json
from dlsearch.training.state.resume_record import Place, ResumeRecord
from dlsearch.training.state.rng import RngState, restore_rng, rng_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytorch_lightning as pl

    from dlsearch.training.state.loading import StateDict

#: Objectives that no training logs.
BUILT_IN = ("model/n_params",)


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, on the study's objective unless another metric is named.

    Args:
        monitor: The metric to watch.
        mode: ``max`` or ``min``.
        patience: Validated epochs without improvement; those that did not log it do not count.
        min_delta: What counts as one.
        strict: Fail where the metric is not logged; of the objective, the trial's own callback says
            so.
    """

    def __init__(
        self,
        monitor: str,
        mode: str = "min",
        patience: int = 10,
        min_delta: float = 0.0,
        strict: bool = True,
    ) -> None:
        """As Lightning's, but quiet about values that are not finite: the trial reports these."""
        super().__init__(
            monitor=monitor,
            mode=mode,
            patience=patience,
            min_delta=min_delta,
            strict=strict,
            check_finite=False,
        )
        self._at_epoch_start: Any = None
        self._at_validation_start: Any = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the value of the epoch before, which Lightning keeps."""
        self._at_epoch_start = trainer.callback_metrics.get(self.monitor)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the value of the validation before."""
        self._at_validation_start = trainer.callback_metrics.get(self.monitor)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at a value that was logged anew: an epoch without one is not without improvement."""
        if self._is_new(trainer, self._at_epoch_start):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, where Lightning looks at it after each validation."""
        if self._is_new(trainer, self._at_validation_start):
            super().on_validation_end(trainer, pl_module)

    def _is_new(self, trainer: pl.Trainer, before: Any) -> bool:
        """Whether there is another value than before, or one is missed that must be there."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            return self.strict
        return not is_same_place(value, before)


class BestState(TypedDict):
    """:class:`BestPoint` as a checkpoint holds it; an older dlsearch wrote no ``position``."""

    value: float | None
    position: NotRequired[int]
    epoch: int
    step: int
    metrics: dict[str, float]


class RunState(TypedDict):
    """What :class:`RunCallback` puts into a checkpoint; an older dlsearch wrote less.

    Args:
        rng: Of every generator: Lightning saves none.
        best: The best report so far.
        history: (position, first objective) of every report so far.
        metrics_sha256: Digest of the metrics of all validated epochs so far.
        epoch: Position of the last report.
        step: Global step of the last report.
        final: The metrics of the last report.
        stopped: Whether the training was over with it.
        passed_over: How many epochs, or validations, had no value of an objective.
        not_finite: In how many reports each auxiliary metric was NaN or infinite.
    """

    rng: RngState
    best: BestState | None
    history: NotRequired[list[list[float]]]
    metrics_sha256: NotRequired[str]
    epoch: NotRequired[int]
    step: NotRequired[int]
    final: NotRequired[dict[str, float]]
    stopped: NotRequired[bool]
    passed_over: NotRequired[int]
    not_finite: NotRequired[dict[str, int]]


@dataclass
class BestPoint:
    """Where a training was best so far.

    Args:
        value: The first objective; None in a training that is not validated.
        position: The last unit of progress that was completed, counted from 0.
        epoch: Lightning's.
        step: The global step.
        metrics: All that were logged.
    """

    value: float | None
    position: int
    epoch: int
    step: int
    metrics: dict[str, float]


class RunCallback(Checkpoint):
    """Ties a training to its :class:`~dlsearch.training.run.Run`.

    A subclass of Lightning's ``Checkpoint``, because only those run after every other callback and
    the module itself have logged an epoch. At each *report* it checks that the numbers are finite,
    keeps `last.ckpt` and `best.ckpt`, reports, and stops the trainer when asked to prune.
    (``TrialPruned`` raised inside ``fit`` would finalise the loggers as failed; a flag and
    ``should_stop`` do not.)

    A task that counts its progress in epochs reports after each validated epoch, or after every one
    where nothing is validated. One that counts in steps or episodes reports after each validation,
    or, where it has none, at every ``trainer.log_every_n_steps`` steps by which it has logged the
    objective. What has not logged all objectives anew is passed over, and counted.

    A training has failed when an objective, or its own loss, is not finite. Other metrics may be
    anything.

    Args:
        run: Its folder, journal, objectives and hooks.
        unit: What its progress is counted in; None where the task says it.
    """

    def __init__(self, run: Run, unit: ProgressUnit | None = None) -> None:
        """Nothing is written before the first report."""
        super().__init__()
        self.run = run
        self._given_unit = unit
        self.folder = run.folder / "ckpt"
        self.record = ResumeRecord(self.folder, run.resume_key)
        self.resumption = checkpoints.Resumption()
        self.pruned = False
        self.failure: NonFinite | None = None
        self.losses = TrainingLosses()
        self.passed_over = 0  # epochs, or validations, without a value of an objective
        self.not_finite: dict[str, int] = {}  # reports in which an auxiliary metric was not
        self.best: BestPoint | None = None
        self.history: list[list[float]] = []  # position, first objective
        # of all reports so far, those before a resumption included
        self.metrics_sha256 = ""
        self.resumed_epoch: int | None = None
        self.final: dict[str, float] = {}  # the metrics of the last report that was kept
        self.batch_size: int | None = None  # of the first batch; None before it
        self._position = -1
        self._step = -1
        self._stopped = False
        self._validated = False
        self._epoch_started = 0.0
        self._batch_ended = 0.0
        self._waited = 0.0
        self._rng_to_restore: RngState | None = None
        self._last_reported_step = -1
        self._fresh = FreshMetrics()
        self._seen: dict[str, float] = {}  # the newest value of each metric
        # a checkpoint that is being written or read, with its module
        self._handled: tuple[pl.LightningModule, StateDict] | None = None

    # -- time and interruption ---------------------------------------------------------------------
    def on_train_epoch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        """Start the epoch's clocks."""
        now = time.perf_counter()
        self._epoch_started = now
        self._batch_ended = now
        self._waited = 0.0
        if self._unit is ProgressUnit.EPOCH:
            self._fresh.begin_epoch(trainer)

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the time since the last batch as waiting for data."""
        self._waited += time.perf_counter() - self._batch_ended
        if self.batch_size is None:
            self.batch_size = length(batch) or 1

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop when asked to; report, if reports come by steps and no validation makes them."""
        if self.run.stop():
            raise Interrupted
        self.losses.note_outputs(outputs)
        if self._unit is not ProgressUnit.EPOCH:
            self._end_batch_of_steps(trainer, pl_module)
            self._validate_at_last_step(trainer)
        self._batch_ended = time.perf_counter()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Stop when asked to: a validation may take longer than a preemption's grace."""
        if self.run.stop():
            raise Interrupted

    # -- reports -----------------------------------------------------------------------------------
    def setup(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        stage: str,
    ) -> None:
        """Look up in what the task counts its progress."""
        self._unit = self._given_unit or unit_of(pl_module)

    def on_validation_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        """Note that there are fresh validation metrics; by steps, report them at once."""
        self._validated = not trainer.sanity_checking
        if self._validated and self._unit is not ProgressUnit.EPOCH:
            position = completed_units(trainer, pl_module, self._unit) - 1
            self._report_progress(trainer, position, self._read_metrics(trainer))
            self._fresh.begin_validation()
            self.run.journal.flush()

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        """Log the epoch's times.

        Report a validated epoch, or keep one of a training that is not validated.
        """
        self._log_times(trainer)
        is_refit = self.run.refit_epochs is not None
        if is_refit or self._unit is ProgressUnit.EPOCH:
            metrics = self._read_metrics(trainer)
            if is_refit:
                self._end_epoch_of_refit(trainer, pl_module, metrics)
            else:
                self._validated = self._validated or not trainer.enable_validation
                self._report_progress(trainer, trainer.current_epoch, metrics)
        self.run.journal.flush()

    def _read_metrics(self, trainer: pl.Trainer) -> dict[str, float]:
        """What was logged since the last report, or since this epoch began."""
        metrics = self._fresh.read(trainer)
        self._seen |= metrics
        return metrics

    def _log_times(self, trainer: pl.Trainer) -> None:
        times = {
            "time/epoch_s": time.perf_counter() - self._epoch_started,
            "time/data_wait_s": self._waited,
        }
        if torch.cuda.is_initialized():
            times["gpu/peak_mem_mb"] = torch.cuda.max_memory_allocated() / 2**20
        self.run.journal.metrics(times, trainer.global_step)

    def _end_batch_of_steps(
        self,
        trainer: pl.Trainer,
        task: pl.LightningModule,
    ) -> None:
        """After a batch of a task that counts in steps or episodes."""
        completed = completed_units(trainer, task, self._unit)
        if self.run.refit_epochs is not None:
            if completed >= self.run.refit_epochs:
                _end_training(trainer)
            return
        # its logger connector sets it
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.enable_validation or not every:
            return
        intervals = trainer.global_step // every
        reported_intervals = max(0, self._last_reported_step) // every
        is_due = intervals > reported_intervals
        if is_due and self._fresh.is_logged_anew(trainer, self.run.monitor):
            self._validated = True
            self._report_progress(trainer, completed - 1, self._read_metrics(trainer))
            self.run.journal.flush()

    def _validate_at_last_step(self, trainer: pl.Trainer) -> None:
        """Have a training validated that ends within its first epoch, before any validation.

        Lightning validates where a training is asked to stop, and not where its steps are done.
        """
        is_last = 0 < trainer.max_steps <= trainer.global_step
        if is_last and trainer.enable_validation and not self.history:
            _end_training(trainer)

    def _end_epoch_of_refit(
        self,
        trainer: pl.Trainer,
        task: pl.LightningModule,
        metrics: dict[str, float],
    ) -> None:
        """Keep the epoch of a training on train + validation; end it where it is long enough."""
        if self._check_finite(trainer, metrics):
            return
        if self._unit is ProgressUnit.EPOCH:
            completed = trainer.current_epoch + 1
        else:
            completed = completed_units(trainer, task, self._unit)
        position = completed - 1
        self.best = BestPoint(
            value=None,
            position=position,
            epoch=trainer.current_epoch,
            step=trainer.global_step,
            metrics=metrics,
        )
        assert self.run.refit_epochs is not None
        if completed >= self.run.refit_epochs:
            _end_training(trainer)
        self._keep_checkpoint(trainer, position, metrics)

    def _report_progress(
        self,
        trainer: pl.Trainer,
        position: int,
        metrics: dict[str, float],
    ) -> None:
        """Check, keep, report, prune.

        Args:
            trainer: At the end of an epoch or of a validation.
            position: The last unit of progress that was completed, from 0.
            metrics: Logged anew.
        """
        step = trainer.global_step
        self._last_reported_step = step
        if self._validated:
            row = (position, step, metrics)
            self.metrics_sha256 = metrics_digest([row], self.metrics_sha256)
        if self._check_finite(trainer, metrics) or not self._validated:
            return
        self._validated = False
        if not self._has_objectives(metrics):
            self.passed_over += 1
            self._keep_checkpoint(trainer, position, metrics)
            return
        is_over = self._is_over(trainer, position)
        self._note_best(trainer, position, metrics)
        self._keep_checkpoint(trainer, position, metrics)
        if self.run.report(position, step, metrics) and not is_over:
            self.pruned = True
            _end_training(trainer)

    def _has_objectives(self, metrics: Mapping[str, float]) -> bool:
        """Whether all objectives that a training logs have a value; the first is one of them."""
        first, *others = self.run.objectives
        if first not in metrics:
            return False
        return all(name in metrics or name in BUILT_IN for name in others)

    def _is_over(self, trainer: pl.Trainer, position: int) -> bool:
        """Whether the training ends with this report, whatever the pruner says."""
        if self.run.prunes_at_end:
            return False
        if _is_last(trainer, self._unit, position, trainer.global_step):
            return True
        is_long_enough = trainer.current_epoch + 1 >= (
            trainer.min_epochs or 0
        ) and trainer.global_step >= (trainer.min_steps or 0)
        return trainer.should_stop and is_long_enough

    def _check_finite(self, trainer: pl.Trainer, metrics: dict[str, float]) -> bool:
        """Stop a training whose objective or own loss is not finite; whether this is one."""
        has_scaler = getattr(trainer.precision_plugin, "scaler", None) is not None
        in_losses = self.losses.take(last_alone=has_scaler)
        self.failure = find_non_finite(metrics, self.run.objectives) or in_losses
        for name, value in metrics.items():
            if self._validated and name_of_number(value) is not None:
                self.not_finite[name] = self.not_finite.get(name, 0) + 1
        if self.failure is None:
            return False
        _end_training(trainer)
        return True

    def _keep_checkpoint(
        self,
        trainer: pl.Trainer,
        position: int,
        metrics: dict[str, float],
    ) -> None:
        """Write the last checkpoint, which may be the best one too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._position = position
        self._step = trainer.global_step
        self.final = metrics
        self._stopped = trainer.should_stop
        is_best = self.best is not None and self.best.position == position
        note = Note(
            self.record,
            Place(trainer.current_epoch, trainer.global_step),
            None if self.best is None else Place(self.best.epoch, self.best.step),
            self._write_weights,
        )
        try:
            checkpoints.save(trainer, self.folder, best=is_best, note=note)
        finally:
            self._handled = None  # it holds the state of the optimizers

    def _write_weights(self, path: Path) -> None:
        """Write the weights of the checkpoint that is being written or read."""
        assert self._handled is not None
        module, checkpoint = self._handled
        about = {
            "epoch": int(checkpoint["epoch"]),
            "step": int(checkpoint["global_step"]),
            "input": plain_json(checkpoints.input_of(cast("checkpoints.Checkpoint", checkpoint))),
        }
        weights_file.write(path, kept_state(module, checkpoint["state_dict"]), about)

    def _note_best(
        self,
        trainer: pl.Trainer,
        position: int,
        metrics: dict[str, float],
    ) -> None:
        value = metrics[self.run.monitor]
        self.history.append([position, value])
        if self._is_better(value):
            self.best = BestPoint(
                value=value,
                position=position,
                epoch=trainer.current_epoch,
                step=trainer.global_step,
                metrics=metrics,
            )

    def _is_better(self, value: float) -> bool:
        if self.best is None or self.best.value is None:
            return True
        if self.run.mode == "max":
            return value > self.best.value
        return value < self.best.value

    # -- what a resumption needs -------------------------------------------------------------------
    def on_save_checkpoint(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        checkpoint: StateDict,
    ) -> None:
        """Keep hold of it: the module's own hook, which comes after this one, may change it."""
        self._handled = (pl_module, checkpoint)

    def on_load_checkpoint(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        checkpoint: StateDict,
    ) -> None:
        """Keep hold of it: it may be the best one, whose weights a kill kept from their file."""
        self._handled = (pl_module, checkpoint)

    def state_dict(self) -> StateDict:
        """Into the checkpoint: the best so far, the metrics' digest, and every RNG."""
        best = None if self.best is None else cast("BestState", asdict(self.best))
        state: RunState = {
            "rng": rng_state(),
            "best": best,
            "history": self.history,
            "metrics_sha256": self.metrics_sha256,
            "epoch": self._position,
            "step": self._step,
            "final": self.final,
            "stopped": self._stopped,
            "passed_over": self.passed_over,
            "not_finite": self.not_finite,
        }
        return cast("StateDict", state)

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Take over the best so far.

        The RNGs come back in :meth:`on_train_start`, after all set-up that draws from them.
        """
        state = cast("RunState", state_dict)
        self.best = _best_of_state(state["best"])
        self.metrics_sha256 = state.get("metrics_sha256", "")
        self.history = state.get("history", [])
        self.final = state.get("final", {})
        self._stopped = state.get("stopped", False)
        self.passed_over = state.get("passed_over", 0)
        self.not_finite = state.get("not_finite", {})
        self._position = state.get("epoch", -1)
        self._step = state.get("step", -1)
        self._last_reported_step = self._step
        is_best = self.best is not None and self.best.position == self._position
        if is_best and self.resumption.path is not None:
            # a kill may have come between last.ckpt and best.ckpt
            place = None if self.best is None else Place(self.best.epoch, self.best.step)
            checkpoints.keep_best(
                self.resumption.path,
                place,
                None if self._handled is None else self._write_weights,
            )
        self._handled = None
        self._rng_to_restore = state["rng"]
        self.resumed_epoch = self._position + 1  # also where nothing is left to train

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Repeat the last report of a resumed run.

        A kill may have come between its checkpoint and its report.
        """
        is_validated = self.run.refit_epochs is None
        if self.resumed_epoch is None or not self.final or not is_validated:
            return
        if self._has_objectives(self.final):
            is_pruned = self.run.report(self._position, self._step, self.final)
            is_last = _is_last(trainer, self._unit, self._position, self._step)
            is_over = (self._stopped or is_last) and not self.run.prunes_at_end
            self.pruned = is_pruned and not is_over

    def check_objectives(self, trainer: pl.Trainer) -> None:
        """Check, after a training, that its objectives had a value.

        Raises:
            ConfigError: One never had, or they had none in the same epoch.
        """
        if self.best is not None:
            return
        seen = {**self.final, **self._seen}
        for name in self.run.objectives:
            if name not in seen and name not in BUILT_IN:
                expected, hint = explain_missing_objective(name, seen, trainer)
                raise ConfigError("study.objective", expected, hint)
        raise ConfigError("study.objective", f"no {self._unit} logged all objectives")

    def on_train_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        """Restore the RNGs of a resumed run."""
        if self._rng_to_restore is None:
            return
        restore_rng(self._rng_to_restore)
        self._rng_to_restore = None
        self.resumed_epoch = completed_units(trainer, pl_module, self._unit)
        # Lightning would train one more epoch, and then stop
        if self._stopped or self.pruned:
            _end_training(trainer)
        else:
            trainer.should_stop = False


def _end_training(trainer: pl.Trainer) -> None:
    """Let this epoch, or this batch, be the last, whatever ``min_epochs`` and ``min_steps`` say."""
    trainer.should_stop = True
    trainer.fit_loop.min_epochs = None
    trainer.fit_loop.epoch_loop.min_steps = None


def _is_last(trainer: pl.Trainer, unit: ProgressUnit, position: int, step: int) -> bool:
    """Whether a training has its whole length after the unit at `position`, at a global step."""
    if unit is ProgressUnit.EPOCH and position + 1 == trainer.max_epochs:
        return True
    return step == trainer.max_steps


def _best_of_state(state: BestState | None) -> BestPoint | None:
    """The best point that a checkpoint holds; one of an older dlsearch counts in epochs alone."""
    if state is None:
        return None
    return BestPoint(
        value=state["value"],
        position=state.get("position", state["epoch"]),
        epoch=state["epoch"],
        step=state["step"],
        metrics=state["metrics"],
    )
