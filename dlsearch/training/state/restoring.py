"""A finished training's module, as it was trained.

It is made by Lightning's own hooks, loaded strictly, and validated again. This runs in the process
of a training or of its scoring alone: Lightning's checkpoint may hold any object.

A net may be made in ``setup``, ``configure_model`` or ``on_fit_start``: a module as its constructor
leaves it need not have the weights that its checkpoint holds. So it is taken through
``Trainer.fit`` up to its first step. Then Lightning loads the checkpoint at the place where it
always does, after the hooks, and what it loaded is compared with the file.
"""

from __future__ import annotations

import functools
import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.nn.parameter import is_lazy

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.checksum import Damaged, check
from dlsearch.training import transfer
from dlsearch.training.building import (
    build_callbacks,
    build_data,
    build_task,
    build_trainer,
    include_validation,
    seed_everything,
)
from dlsearch.training.compile import Compile
from dlsearch.training.fingerprint import state_digest
from dlsearch.training.run import Interrupted, Run
from dlsearch.training.state import checkpoints
from dlsearch.training.state.loading import (
    OpaqueState,
    StateDict,
    WeightsMismatchError,
    load_strictly,
)
from dlsearch.training.state.resume_record import ResumeRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from omegaconf import DictConfig

    from dlsearch.training.run import FitResult

#: Largest relative difference between a validation figure and the same computed again. On the CPU
#: it is the same to the last bit with the same threads and instructions; only user code that sums
#: in an order of its own needs any.
SAME_MACHINE = 1e-6
#: On a GPU, whose kernels are chosen at run time, on another class of CPU, or where the training's
#: net was compiled: outputs differ in their last digits (in bfloat16 these are the third), and a
#: few samples change sides.
OTHER_MACHINE = 1e-2

#: How torch begins what it says of weights that do not fit.
_TORCH_REFUSES = "Error(s) in loading state_dict"


@dataclass(frozen=True)
class Expected:
    """What a training reported of itself when it ended.

    Args:
        monitor: The objective.
        value: It, at the best epoch; None for a training on train + validation, which was not
            validated.
        best_epoch: From 0; None where it is not known.
        state_sha256: Digest of the best weights; None where an older dlsearch recorded none.
        same_machine: Whether it was trained on a CPU of this class, with as many threads.
    """

    monitor: str
    value: float | None = None
    best_epoch: int | None = None
    state_sha256: str | None = None
    same_machine: bool = False


def of_result(monitor: str, result: FitResult) -> Expected:
    """What a training that has just ended in this process reported of itself."""
    value = result.values[0] if result.values else None
    on_cpu = not torch.cuda.is_initialized()
    return Expected(
        monitor,
        value,
        result.best_epoch,
        result.state_sha256,
        same_machine=on_cpu,
    )


@dataclass
class Restored:
    """A module that :func:`restore` made.

    Args:
        cfg: What was trained.
        task: With its weights, in evaluation.
        data: Its data module, set up for fitting; None where the task brings its own loaders.
        run: Its folder and hooks.
        checkpoint: Where Lightning takes what the module, the data and callbacks keep beside the
            weights.
        is_own: Whether the checkpoint is known to be this user's own.
        weights: What is loaded.
        epoch: The epoch that they are of.
    """

    cfg: DictConfig
    task: pl.LightningModule
    data: pl.LightningDataModule | None
    run: Run
    checkpoint: Path
    is_own: bool
    weights: StateDict
    epoch: int

    @property
    def loaders(self) -> Any:
        """What gives its loaders: the data module, or the task itself."""
        return self.task if self.data is None else self.data

    def trainer(self, *observers: pl.Callback) -> pl.Trainer:
        """One that evaluates, in the epoch of the weights.

        It has the config's callbacks, of which some carry weights.

        Args:
            observers: Further callbacks, which see everything last.
        """
        guard = _Guard(self.run, self.weights)
        callbacks = [guard, *build_callbacks(self.cfg, self.run), *observers]
        trainer = build_trainer(self.cfg, self.run, callbacks)
        # what anneals a loss by the epoch must see the one that it was measured in
        trainer.fit_loop.epoch_progress.current.completed = self.epoch
        return trainer

    def evaluate(self, evaluation: Callable[..., Any], **source: Any) -> Any:
        """Call ``Trainer.validate``, ``test`` or ``predict``.

        It loads the checkpoint after all hooks.

        Args:
            evaluation: The method of a trainer of :meth:`trainer`.
            source: ``datamodule`` or ``dataloaders``.

        Raises:
            WeightsMismatchError: What it loaded is not what the checkpoint holds.
        """
        with _hide_advice():
            try:
                return evaluation(
                    self.task,
                    **source,
                    ckpt_path=str(self.checkpoint),
                    weights_only=not self.is_own,
                )
            except RuntimeError as error:
                if not str(error).startswith(_TORCH_REFUSES):
                    raise
                raise WeightsMismatchError(" ".join(str(error).split())) from error


def restore(
    cfg: DictConfig,
    run: Run,
    checkpoint: Path,
    expected: Expected,
    *,
    watch: Callable[[Any], None] = lambda _: None,
) -> Restored:
    """Make a training's module again, and load its weights.

    They must give the validation figure that they gave. The test set stays closed.

    Args:
        cfg: What was trained.
        run: Its journal takes what callbacks log.
        checkpoint: The file of weights, whole, with Lightning's checkpoint beside it; or that
            alone, of an earlier version.
        expected: What the training said at its end.
        watch: Given what has the loaders (the data module, or the task) before it is asked for
            data.

    Raises:
        ConfigError: The checkpoint is damaged.
        WeightsMismatchError: The weights are not those of the training, do not fit, or give another
            validation figure.
        Interrupted: `run.stop` said so.
    """
    found = checkpoints.read_weights(checkpoint)
    _check_digest(checkpoint, found.state, expected)
    beside = checkpoint.with_name(checkpoints.BEST)
    is_own = _is_own(beside, run)
    # In the order in which the training began: a split or a net that draws from the global
    # generators is the same.
    seed_everything(cfg.seed)
    data = build_data(cfg)
    if run.refit_epochs is not None:
        include_validation(data)
    if data is not None:
        watch(data)
    task = build_task(cfg)
    if data is None:
        watch(task)
    callbacks = [*transfer.begin(cfg, task), *build_callbacks(cfg, run)]
    _run_setup_hooks(cfg, task, data, run, callbacks)
    restored = Restored(
        cfg,
        task,
        data,
        run,
        beside,
        is_own,
        found.state,
        epoch=int(found.about["epoch"]),
    )
    is_compiled = any(isinstance(callback, Compile) for callback in callbacks)
    is_exact = expected.same_machine and not is_compiled
    _check_figure(
        restored,
        expected,
        SAME_MACHINE if is_exact else OTHER_MACHINE,
    )
    task.eval()
    return restored


def _is_own(checkpoint: Path, run: Run) -> bool:
    """Whether a checkpoint is known to be this user's own.

    Raises:
        ConfigError: It was changed, or is gone.
    """
    record = ResumeRecord(checkpoint.parent, run.resume_key)
    try:
        check(checkpoint)
        return checkpoints.is_own(checkpoint, record)
    except (Damaged, FileNotFoundError) as error:
        raise ConfigError(
            "checkpoint",
            str(error),
            "train it again: dlsearch verify NAME/NUMBER",
        ) from error


def _check_digest(checkpoint: Path, state: StateDict, expected: Expected) -> None:
    wanted = expected.state_sha256
    found = state_digest(state)
    if wanted is not None and wanted != found:
        raise WeightsMismatchError(
            f"{checkpoint.name} holds the weights {found[:12]}…,"
            f" the training ended with {wanted[:12]}…"
        )


def _run_setup_hooks(
    cfg: DictConfig,
    task: pl.LightningModule,
    data: pl.LightningDataModule | None,
    run: Run,
    callbacks: list[pl.Callback],
) -> None:
    """Take a module through all that ``Trainer.fit`` does before its first step."""
    trainer = build_trainer(cfg, run, [_StopBeforeTraining(), *callbacks])
    with _hide_advice():
        trainer.fit(task, datamodule=data)


def _check_figure(restored: Restored, expected: Expected, tolerance: float) -> None:
    """Load the weights and compare the objective with what the training reported.

    A training on train + validation has no such figure, and neither has an objective that
    validation alone does not log (a training loss): their weights are known by their digest.
    """
    if expected.value is None or not _can_validate(restored):
        _load_weights(restored)
        return
    again = _compute_figure(restored, expected.monitor)
    if again is None or _figures_agree(again, expected.value, tolerance):
        return
    if _compute_figure(restored, expected.monitor) != again:
        # validation itself is random: no two passes agree, and the digest alone says whose weights
        # these are
        return
    name = restored.checkpoint.parent.parent.name
    raise WeightsMismatchError(
        f"{expected.monitor} is {again:.6g} with the weights of {name},"
        f" and was {expected.value:.6g} when they were trained"
    )


def _can_validate(restored: Restored) -> bool:
    task = restored.task
    if not is_overridden("validation_step", task, pl.LightningModule):
        return False
    return has_loader("val_dataloader", restored.data) or has_loader("val_dataloader", task)


def has_loader(name: str, source: pl.LightningDataModule | pl.LightningModule | None) -> bool:
    """Whether a data module or a task defines a loader; None has none."""
    if source is None:
        return False
    if isinstance(source, pl.LightningModule):
        return is_overridden(name, source, pl.LightningModule)
    return is_overridden(name, source, pl.LightningDataModule)


def _compute_figure(restored: Restored, name: str) -> float | None:
    trainer = restored.trainer()
    validate = functools.partial(trainer.validate, verbose=False)
    restored.evaluate(validate, datamodule=restored.data)
    value = trainer.callback_metrics.get(name)
    return None if value is None else float(value)


def _figures_agree(again: float, before: float, tolerance: float) -> bool:
    return math.isclose(
        again,
        before,
        rel_tol=tolerance,
        abs_tol=0.0,
    )


def _load_weights(restored: Restored) -> None:
    """Load the weights where nothing is evaluated: strictly, by the module's own hook."""
    saved: Any = checkpoints.read(restored.checkpoint, is_own=restored.is_own)
    restored.task.on_load_checkpoint(saved)  # which may change it
    load_strictly(restored.task, _complete(restored.weights, saved["state_dict"]))


def _complete(state: StateDict, saved: Mapping[str, Any]) -> StateDict:
    """Weights with the extra state that only the training's checkpoint holds."""
    found = dict(state)
    for name, value in state.items():
        if isinstance(value, OpaqueState) and name in saved:
            found[name] = saved[name]
    return found


def _holds_weights(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a state dict has the tensors of another, in whatever precision it keeps them."""
    tensors: dict[str, Tensor] = {}
    held: dict[str, Tensor] = {}
    for name, value in wanted.items():
        if isinstance(value, Tensor) and not is_lazy(value):
            tensors[name] = value
            held[name] = state[name].to(value.dtype)
    return state_digest(held) == state_digest(tensors)


class _StopBeforeTraining(pl.Callback):
    """Ends a fit before its first step."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop: all is set up but for what the module's own hook of this name does next."""
        trainer.should_stop = True


class _Guard(pl.Callback):
    """Loads the weights where Lightning has loaded its checkpoint, and looks whether it has them.

    It also ends an evaluation that was asked to stop.

    The first of all callbacks: others may put weights of their own into the module.

    Args:
        run: Its ``stop`` is asked after every batch.
        weights: What is loaded.
    """

    def __init__(self, run: Run, weights: StateDict) -> None:
        self._run = run
        self._weights = weights

    def on_load_checkpoint(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        checkpoint: StateDict,
    ) -> None:
        """Called by Lightning when the weights have just been loaded."""
        wanted = _complete(self._weights, checkpoint["state_dict"])
        load_strictly(pl_module, wanted)
        if not _holds_weights(pl_module.state_dict(), wanted):
            raise WeightsMismatchError(
                f"{type(pl_module).__name__} does not hold the weights that were loaded into it"
            )

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Stop when asked to."""
        self._stop_if_asked()

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """Stop when asked to."""
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._run.stop():
            raise Interrupted


@contextmanager
def _hide_advice() -> Iterator[None]:
    """Without Lightning's advice about callbacks that trained and are not needed to evaluate."""
    with warnings.catch_warnings():
        for words in (".*callbacks used to create the checkpoint.*", ".*outside the 'fit' stage.*"):
            warnings.filterwarnings("ignore", message=words)
        yield
