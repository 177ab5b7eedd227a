"""Lightning's training step without the machinery that a plain step does not use.

On a small net, Lightning's closures, hook dispatch, profiler contexts and batch transfer cost as
much as an eighth of the step. :class:`LeanEpochLoop` calls the same things in the same order where
nothing in the module, the callbacks, the precision or the strategy asks for more, and hands every
other step to Lightning.

This works on private names of Lightning: :func:`dlsearch.training.lean_loop.make_lean` imports it
only where :func:`dlsearch.core.versions.is_compared` says that this version was compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.fetchers import _DataFetcher, _PrefetchDataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from dlsearch.training.determinism import unfilled
from dlsearch.training.trainer.precision import Bf16Mixed

if TYPE_CHECKING:
    from collections.abc import Callable

#: What hooks at a batch's end are given: ``loss``, and what else a ``training_step`` returned.
StepOutputs: TypeAlias = dict[str, Any]

#: Hooks that a lean step does not call: a module that defines one of them gets Lightning's step.
MODULE_HOOKS = (
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_before_zero_grad",
    "optimizer_zero_grad",
    "on_before_backward",
    "backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
    "optimizer_step",
    "toggle_optimizer",
    "untoggle_optimizer",
)
DATA_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
CALLBACK_HOOKS = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


class LeanEpochLoop(_TrainingEpochLoop):
    """Lightning's epoch with lean steps.

    What a lean step keeps: ``on_train_batch_start`` and ``on_train_batch_end`` of the module and of
    callbacks, logging within the step, gradient clipping by the trainer's own settings, learning
    rate schedules, all progress counters (so checkpoints are Lightning's), validation within the
    epoch, stopping. The weights are the same to the last bit.
    """

    _lean: _Step | None = None
    _has_begun = False

    def run(self, data_fetcher: _DataFetcher) -> None:
        """An epoch."""
        with unfilled():
            super().run(data_fetcher)

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Decide again in every epoch: callbacks may have changed the trainer in between.

        Lightning makes the first epoch's iterator before ``on_train_start``, where a resumed
        training gets its random numbers back. A shuffling loader draws from these when its iterator
        is made: here it is made again, where later epochs of an uninterrupted training make it.
        """
        fit_loop = self.trainer.fit_loop
        is_made_early = fit_loop.is_resuming or self.restarting
        is_first_after_resuming = not self._has_begun and self.trainer.current_epoch > 0
        self._has_begun = True
        super().on_run_start(data_fetcher)
        if is_first_after_resuming and is_made_early and self.batch_progress.current.ready == 0:
            iter(data_fetcher)
        self._lean = _Step(self) if is_plain(self.trainer, data_fetcher) else None

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """One batch."""
        lean = self._lean
        if lean is None or self.restarting:
            super().advance(data_fetcher)
        else:
            lean.advance(data_fetcher)

    def _should_accumulate(self) -> bool:
        """A lean step is an optimizer's step: Lightning works that out four times a batch."""
        return self._lean is None and super()._should_accumulate()

    def update_lr_schedulers(
        self,
        interval: str,
        update_plateau_schedulers: bool,
    ) -> None:
        """Lightning's, where there are schedules."""
        if self.trainer.strategy.lr_scheduler_configs:
            super().update_lr_schedulers(interval, update_plateau_schedulers)

    def teardown(self) -> None:
        """Let go of the module."""
        self._lean = None
        super().teardown()


def is_plain(trainer: Any, data_fetcher: _DataFetcher) -> bool:
    """Whether a lean step does all that a step of this training does."""
    return (
        type(data_fetcher) is _PrefetchDataFetcher
        and _has_plain_trainer(trainer)
        and _has_plain_module(trainer)
        and _has_no_step_hooks(trainer)
    )


def _has_plain_trainer(trainer: Any) -> bool:
    """One device, no accumulation, no profiler, and a precision that scales no loss."""
    precision = trainer.precision_plugin
    is_plain_precision = type(precision) is Precision or (
        type(precision) in (MixedPrecision, Bf16Mixed) and precision.scaler is None
    )
    return bool(
        is_plain_precision
        and type(trainer.strategy) is SingleDeviceStrategy
        and type(trainer.profiler) is PassThroughProfiler
        and trainer.accumulate_grad_batches == 1
        and not trainer.fast_dev_run
    )


def _has_plain_module(trainer: Any) -> bool:
    """Automatic optimization of the module itself by one optimizer of torch's."""
    module = trainer.lightning_module
    return bool(
        module.automatic_optimization
        and trainer.strategy.model is module
        and len(trainer.optimizers) == 1
        and _is_torchs(trainer.optimizers[0])
    )


def _has_no_step_hooks(trainer: Any) -> bool:
    """Neither module, data nor callbacks define a hook that a lean step leaves out."""
    data = trainer.datamodule
    if _defines_any(trainer.lightning_module, pl.LightningModule, MODULE_HOOKS):
        return False
    if data is not None and _defines_any(
        data,
        pl.LightningDataModule,
        DATA_HOOKS,
    ):
        return False
    return not any(
        _defines_any(
            callback,
            pl.Callback,
            CALLBACK_HOOKS,
        )
        for callback in trainer.callbacks
    )


def _is_torchs(optimizer: torch.optim.Optimizer) -> bool:
    """One of torch's that steps without calling a closure again."""
    return type(optimizer).__module__.startswith("torch.optim.") and not isinstance(
        optimizer, torch.optim.LBFGS
    )


def _defines_any(thing: Any, base: type, names: tuple[str, ...]) -> bool:
    """Whether a class or an instance has its own version of one of `names`."""
    return any(
        name in vars(thing) or getattr(type(thing), name) is not getattr(base, name)
        for name in names
    )


def _takes_index(step: Callable[..., Any]) -> bool:
    """Whether a ``training_step`` takes the batch's index too; its name is free."""
    from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature

    return bool(is_param_in_hook_signature(step, "batch_idx", min_args=2))


class _Step:
    """What a lean step needs, looked up once an epoch."""

    def __init__(self, loop: LeanEpochLoop) -> None:
        self.loop = loop
        self.trainer = loop.trainer
        self.module: pl.LightningModule = self.trainer.lightning_module
        self.device = self.trainer.strategy.root_device
        self.optimizer = self.trainer.optimizers[0]
        self.with_index = _takes_index(self.module.training_step)
        self.autocast = isinstance(self.trainer.precision_plugin, MixedPrecision)
        self.clips = bool(self.trainer.gradient_clip_val)
        self.before = self._hooks_named("on_train_batch_start")
        self.after = self._hooks_named("on_train_batch_end")
        # `self.log` wants to know where it is called from. Through the module's own __setattr__,
        # which looks for parameters and submodules first, saying so costs microseconds, some forty
        # times a step.
        self.place = vars(self.module)

    def _hooks_named(self, name: str) -> list[Callable[..., Any]]:
        """The callbacks' hooks that do something, in Lightning's order.

        The module's is the caller's.
        """
        return [
            getattr(callback, name)
            for callback in self.trainer.callbacks
            if _defines_any(callback, pl.Callback, (name,))
        ]

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """One batch, as :meth:`_TrainingEpochLoop.advance` does it."""
        loop = self.loop
        trainer = self.trainer
        module = self.module
        place = self.place
        connector = trainer._logger_connector
        progress = loop.batch_progress
        if loop.val_loop.restarting:  # the setter goes through all that a loop holds
            loop.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        index = loop.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        if not self._is_here(batch):
            batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        progress.increment_ready()
        connector.on_batch_start(batch)
        place["_current_fx_name"] = "on_train_batch_start"
        for hook in self.before:
            hook(trainer, module, batch, index)
        skip = module.on_train_batch_start(batch, index) == -1
        if skip:
            progress.increment_by(0, is_last_batch=True)
        else:
            progress.increment_started()
            outputs = self._take_step(batch, index)
        progress.increment_processed()
        place["_current_fx_name"] = None
        loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        if loop._num_ready_batches_reached():
            loop.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        if skip:
            raise StopIteration
        place["_current_fx_name"] = "on_train_batch_end"
        for hook in self.after:
            hook(trainer, module, outputs, batch, index)
        module.on_train_batch_end(outputs, batch, index)
        place["_current_fx_name"] = None
        connector.on_batch_end()
        progress.increment_completed()
        every = trainer.log_every_n_steps
        if trainer.should_stop or (every and (loop._batches_that_stepped + 1) % every == 0):
            connector.update_train_step_metrics()

    def _is_here(self, batch: Any) -> bool:
        """Whether a batch is tensors on the training device, as those of our loaders are."""
        if isinstance(batch, Tensor):
            return batch.device == self.device
        if not isinstance(batch, tuple | list):
            return False
        return all(isinstance(x, Tensor) and x.device == self.device for x in batch)

    def _take_step(self, batch: Any, index: int) -> StepOutputs:
        """Forward, zero_grad, backward, clip, step.

        Returns what the hooks at the batch's end are given.
        """
        module = self.module
        optimizer = self.optimizer
        place = self.place
        progress = self.loop.automatic_optimization.optim_progress.optimizer
        progress.step.increment_ready()
        with torch.enable_grad():
            place["_current_fx_name"] = "training_step"
            arguments = (batch, index) if self.with_index else (batch,)
            if self.autocast:
                with self.trainer.precision_plugin.train_step_context():
                    output = module.training_step(*arguments)
            else:
                output = module.training_step(*arguments)
            loss, outputs = _read_output(output)
            progress.zero_grad.increment_ready()
            progress.zero_grad.increment_started()
            optimizer.zero_grad()
            progress.zero_grad.increment_completed()
            if loss is not None:
                place["_current_fx_name"] = "backward"
                loss.backward()
        if self.clips:
            place["_current_fx_name"] = "configure_gradient_clipping"
            module.configure_gradient_clipping(
                optimizer,
                self.trainer.gradient_clip_val,
                self.trainer.gradient_clip_algorithm,
            )
        place["_current_fx_name"] = "optimizer_step"
        optimizer.step()
        progress.step.increment_completed()
        return outputs


def _read_output(output: Any) -> tuple[Tensor | None, StepOutputs]:
    """The loss, and what ``on_train_batch_end`` is given, of what a ``training_step`` returned.

    Raises:
        MisconfigurationException: It is neither a tensor, nor a mapping with ``loss``, nor None.
    """
    if isinstance(output, Tensor) and not isinstance(output, nn.Parameter):
        return output, {"loss": output.detach()}
    from pytorch_lightning.loops.optimization.automatic import ClosureResult

    result = ClosureResult.from_training_step_output(output, 1)
    if result.loss is None:
        return result.closure_loss, {}
    return result.closure_loss, dict(result.asdict())
