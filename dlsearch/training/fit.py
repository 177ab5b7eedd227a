"""``fit``: from a config to a result, readable in one screen."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dlsearch.core.failure_cause import FailureCause
from dlsearch.core.files.disk import is_full
from dlsearch.tracking.layout import SYSTEM_PREFIX
from dlsearch.tracking.system import SystemSampler
from dlsearch.training import determinism, transfer
from dlsearch.training.building import (
    build_callbacks,
    build_data,
    build_task,
    build_trainer,
    count_parameters,
    include_validation,
    seed_everything,
)
from dlsearch.training.callbacks import RunCallback
from dlsearch.training.cuda_check import quick_cuda_check
from dlsearch.training.failures import first_line, is_out_of_memory
from dlsearch.training.fingerprint import state_digest
from dlsearch.training.metrics.finiteness import ManualLosses
from dlsearch.training.micro_batches import MicroBatches, can_split
from dlsearch.training.progress import completed_units, unit_of
from dlsearch.training.run import FitResult, Run
from dlsearch.training.state import checkpoints
from dlsearch.training.test_guard import Seal
from dlsearch.training.test_set import score_best

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

    from dlsearch.config.progress import ProgressUnit
    from dlsearch.training.building import ParameterCount
    from dlsearch.training.state.loading import StateDict


def fit(cfg: DictConfig, run: Run) -> FitResult:
    """Train the configuration `cfg` within `run`, going on from its last checkpoint, if any.

    Raises:
        ConfigError: The config describes nothing that can be built.
        Interrupted: `run.stop` said so.
    """
    with Seal(run.folder) as seal:
        started = time.perf_counter()
        training = _prepare(cfg, run, seal)
        result = _train(training)
        result.seconds = time.perf_counter() - started
        _note_course(result, training)
        seal.lift()
        if run.test and result.state == "complete":
            result.test = score_best(cfg, run, result)
        _log_end(run, result, training.trainer.global_step)
    return result


@dataclass(frozen=True)
class _Training:
    """All that takes part in one training."""

    run: Run
    task: pl.LightningModule
    data: pl.LightningDataModule | None
    trainer: pl.Trainer
    keeper: RunCallback
    micro: MicroBatches
    counted: ParameterCount
    unit: ProgressUnit

    @property
    def completed(self) -> int:
        """Units of progress so far."""
        return completed_units(self.trainer, self.task, self.unit)

    @property
    def n_params(self) -> int:
        """How many numbers it trains; of lazy layers as many as there are by now."""
        if self.counted.lazy == 0:
            return self.counted.numbers
        return count_parameters(self.task).numbers


def _prepare(cfg: DictConfig, run: Run, seal: Seal) -> _Training:
    """Make all that takes part, in an order that no draw of random numbers may change."""
    seed_everything(cfg.seed)
    data = build_data(cfg)
    if run.refit_epochs is not None:
        include_validation(data)
    if data is not None:
        seal.watch(data)
    task = build_task(cfg)
    if data is None:
        seal.watch(task)
    transferring = transfer.begin(cfg, task)
    unit = unit_of(task, cfg.trainer)
    keeper = RunCallback(run, unit)
    micro = MicroBatches(run.micro_batches)
    manual = [] if task.automatic_optimization else [ManualLosses(keeper.losses)]
    callbacks = [*transferring, *build_callbacks(cfg, run), *manual, micro, keeper]
    trainer = build_trainer(cfg, run, callbacks)
    keeper.resumption = checkpoints.resume(keeper.folder, keeper.record)
    counted = count_parameters(task)
    resumption = keeper.resumption.to_json()
    run.began({"micro_batches": run.micro_batches, "resumption": resumption})
    if counted.lazy == 0:
        run.journal.metrics({"model/n_params": counted.numbers}, 0)
    return _Training(run, task, data, trainer, keeper, micro, counted, unit)


def _train(training: _Training) -> FitResult:
    """Run Lightning's trainer; a result also where memory or disk did not suffice."""
    try:
        nondeterministic = _run_trainer(training)
        result = _result_of(training)
        _note_digests(result, training)
        result.nondeterministic = nondeterministic
        return result
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        result = _failed_result(training, "oom", error)
        result.halve = _may_halve(training)
        return result
    except OSError as error:
        if not is_full(error):
            raise
        return _failed_result(training, "disk", error)


def _run_trainer(training: _Training) -> list[str]:
    """Train; returns the operations without a deterministic implementation that were called."""
    run = training.run
    last = training.keeper.resumption.path
    with (
        SystemSampler(run.journal, run.system_metrics_s),
        quick_cuda_check(),
        determinism.noted() as nondeterministic,
    ):
        training.trainer.fit(
            training.task,
            datamodule=training.data,
            ckpt_path=None if last is None else str(last),
            weights_only=not training.keeper.resumption.is_own,
        )
    return sorted(nondeterministic)


def _result_of(training: _Training) -> FitResult:
    """What a training came to that Lightning has ended."""
    run = training.run
    keeper = training.keeper
    completed = training.completed
    # Nothing is left to train, and so to log, where a kill came between the last checkpoint and the
    # result.
    logged = {name: float(value) for name, value in training.trainer.callback_metrics.items()}
    failure = keeper.failure
    result = FitResult(
        "failed",
        None if failure is None else failure.kind,
        epochs=completed,
        n_params=training.n_params,
    )
    result.add_summary("final/", logged or keeper.final)
    best = keeper.best
    if best is not None:
        result.best_epoch = best.position
        result.best_step = best.step
        result.add_summary("best/", best.metrics)
    if run.refit_epochs is not None and failure is None:
        result.state = "complete"
    elif failure is not None:
        unit = training.unit
        result.error = f"{failure.kind} after {unit} {completed}: {failure.what}"
        result.cause = FailureCause(failure.kind, failure.what)
    elif keeper.pruned:
        result.state = "pruned"
    else:
        keeper.check_objectives(training.trainer)
        assert best is not None
        known = {**best.metrics, "model/n_params": float(training.n_params)}
        result.state = "complete"
        result.values = [known[name] for name in run.objectives]
    return result


def _failed_result(
    training: _Training,
    reason: str,
    error: BaseException,
) -> FitResult:
    return FitResult(
        "failed",
        reason,
        first_line(error),
        epochs=training.completed,
        n_params=training.n_params,
    )


def _may_halve(training: _Training) -> bool:
    """Whether the training might fit into memory with each batch in twice as many parts."""
    parts = 2 * training.micro.count
    batch_size = training.keeper.batch_size or 0
    return parts <= batch_size and can_split(training.trainer, training.task)


def _note_digests(result: FitResult, training: _Training) -> None:
    """Note the digests by which a repetition is compared."""
    keeper = training.keeper
    data = training.data
    # what was kept, not what a callback made of the weights since
    if result.state == "complete":
        weights = checkpoints.read_weights(checkpoints.find_weights(keeper.folder)).state
    elif result.state == "pruned":
        weights = _last_weights(keeper)
    else:
        weights = training.task.state_dict()
    result.state_sha256 = state_digest(weights)
    result.metrics_sha256 = keeper.metrics_sha256 or None
    if data is not None and hasattr(data, "describe"):
        result.split_sha256 = data.describe().get("digests") or None


def _last_weights(keeper: RunCallback) -> StateDict:
    path = keeper.folder / checkpoints.LAST
    is_own = checkpoints.is_own(path, keeper.record)
    return checkpoints.read(path, mmap=True, is_own=is_own)["state_dict"]


def _note_course(result: FitResult, training: _Training) -> None:
    """Note what is known of the way a training went, whatever its end."""
    keeper = training.keeper
    result.resumed_epoch = keeper.resumed_epoch
    result.history = keeper.history
    result.micro_batches = training.micro.count
    result.resumption = keeper.resumption.to_json()
    result.progress_unit = training.unit
    result.notes = _notes_on(keeper, result)


def _notes_on(keeper: RunCallback, result: FitResult) -> list[str]:
    """What a reader of the trial should know of its metrics."""
    notes = []
    if keeper.passed_over:
        unit = result.progress_unit
        times = keeper.passed_over
        counted = f"1 {unit} was" if times == 1 else f"{times} {unit}s were"
        notes.append(f"{counted} passed over: {', '.join(keeper.run.objectives)} not logged")
    for name, times in sorted(keeper.not_finite.items()):
        if name not in keeper.run.objectives:
            notes.append(f"{name} was not finite in {times} of its reports")
    return notes


def _log_end(run: Run, result: FitResult, step: int) -> None:
    """The last rows of a training; where the disk is full, as many as it takes."""
    if torch.cuda.is_initialized():
        result.peak_memory_mib = torch.cuda.max_memory_reserved() / 2**20
        name = f"{SYSTEM_PREFIX}peak_memory_mib"
        run.journal.metrics({name: result.peak_memory_mib}, step)
    rows = dict(result.summary)
    if result.values is not None:
        rows["objective"] = result.values[0]
        rows["best/epoch"] = result.best_epoch or 0
        rows["best/step"] = result.best_step or 0
    rows["time/total_s"] = result.seconds
    with suppress(OSError) if result.reason == "disk" else nullcontext():
        run.journal.metrics(rows, step)
        run.journal.flush()
