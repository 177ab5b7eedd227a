"""Micro-batches: a batch that does not fit into memory, trained in parts, with the same gradient.

The loss of a part is weighted by the part's share of the batch, and the gradients add up, so that
with a loss that is a mean over samples the step is that of the whole batch: the batch size that is
searched keeps its meaning, and loaders, schedules and counters see whole batches. What looks at a
batch as a whole does see parts: batch normalisation takes its statistics of each, and dropout draws
other masks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from dlsearch.core.versions import is_compared


class MicroBatches(pl.Callback):
    """Has the module train each batch in parts.

    Args:
        count: Parts of a batch; 1 changes nothing. A module that optimises by hand, or an optimizer
            that measures more than gradients, cannot be split, and trains whole batches whatever
            `count` says.
    """

    def __init__(self, count: int) -> None:
        """Nothing is changed before the training starts."""
        self.wanted = count
        self.count = 1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The optimizers are made by now."""
        if self.wanted > 1 and can_split(trainer, pl_module):
            self.count = self.wanted
            split_steps(pl_module, self.count)


def can_split(trainer: pl.Trainer, module: pl.LightningModule) -> bool:
    """Whether parts of a batch give the gradient of the whole."""
    return module.automatic_optimization and not any(
        hasattr(each, "attach") for each in trainer.optimizers
    )


def split_steps(module: Any, count: int) -> None:
    """Have `module` train each batch in `count` parts.

    ``backward`` makes the steps of all parts but the first.
    """
    step = module.training_step
    backward = module.backward
    rest: list[tuple[Any, float, tuple[Any, ...], dict[str, Any]]] = []

    @functools.wraps(step)
    def training_step(batch: Any, *args: Any, **kwargs: Any) -> Any:
        (first, share), *others = parts(batch, count)
        rest[:] = [(part, its, args, kwargs) for part, its in others]
        return _weigh_output(step(first, *args, **kwargs), share)

    @functools.wraps(backward)
    def whole_backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        backward(loss, *args, **kwargs)
        trainer = module.trainer
        precision = trainer.strategy.precision_plugin
        scaler = getattr(precision, "scaler", None)
        while rest:
            part, share, given, named = rest.pop(0)
            with _within_step(module), precision.train_step_context():
                output = step(part, *given, **named)
            found = output.get("loss") if isinstance(output, Mapping) else output
            if found is not None:
                found = found * (share / trainer.accumulate_grad_batches)
                backward(found if scaler is None else scaler.scale(found), *args, **kwargs)

    module.training_step = training_step
    module.backward = whole_backward


def parts(batch: Any, count: int) -> list[tuple[Any, float]]:
    """A batch in at most `count` parts of consecutive samples, each with its share of them.

    Args:
        batch: A tensor (B, …), or a tuple, list or mapping of such; what else is in it goes into
            every part.
        count: At most so many.
    """
    size = length(batch)
    if size is None or count < 2 or size < 2:
        return [(batch, 1.0)]
    each = -(-size // count)
    return [
        (_cut_part(batch, at, each), min(each, size - at) / size) for at in range(0, size, each)
    ]


def length(batch: Any) -> int | None:
    """Samples of a batch; None where its tensors do not agree on it, or there are none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    inner = (
        batch.values()
        if isinstance(batch, Mapping)
        else batch
        if isinstance(batch, (tuple, list))
        else ()
    )
    found = {length(each) for each in inner if isinstance(each, (Tensor, tuple, list, Mapping))}
    return found.pop() if len(found) == 1 else None


def _cut_part(batch: Any, at: int, size: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[at : at + size]
    if isinstance(batch, Mapping):
        return {key: _cut_part(value, at, size) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        cut = [_cut_part(each, at, size) for each in batch]
        return type(batch)(*cut) if hasattr(batch, "_fields") else type(batch)(cut)
    return batch


def _weigh_output(output: Any, share: float) -> Any:
    if share == 1.0:
        return output
    if isinstance(output, Mapping):
        return {**output, "loss": output["loss"] * share}
    return None if output is None else output * share


@contextmanager
def _within_step(module: Any) -> Iterator[None]:
    """What is logged belongs to the step; its rows are those of the first part, once a step."""
    loggers = [each for each in module.trainer.loggers if hasattr(each, "muted")]
    for each in loggers:
        each.muted = True
    try:
        with (
            _logging_in_step(module)
            if is_compared("pytorch_lightning")
            else _logging_nothing(module)
        ):
            yield
    finally:
        for each in loggers:
            each.muted = False


@contextmanager
def _logging_in_step(module: Any) -> Iterator[None]:
    """Have Lightning take ``log`` for a call in ``training_step``."""
    before = module._current_fx_name
    module._current_fx_name = "training_step"
    try:
        yield
    finally:
        module._current_fx_name = before


@contextmanager
def _logging_nothing(module: Any) -> Iterator[None]:
    """With an unverified version of Lightning, only the first part logs: its values are the step's, in means too."""
    module.log = lambda *_, **__: None
    try:
        yield
    finally:
        del module.log
