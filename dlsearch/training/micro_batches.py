"""Micro-batches: a batch that does not fit into memory, trained in parts, with the same gradient.

The loss of a part is weighted by the part's share of the batch, and the gradients add up, so that
with a loss that is a mean over samples the step is that of the whole batch: the batch size that is
searched keeps its meaning, and loaders, schedules and counters see whole batches. What looks at a
batch as a whole does see parts: batch normalisation takes its statistics of each, and dropout draws
other masks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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

    def on_train_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        """The optimizers are made by now."""
        if self.wanted > 1 and can_split(trainer, pl_module):
            self.count = self.wanted
            split_steps(pl_module, self.count)


def can_split(trainer: pl.Trainer, module: pl.LightningModule) -> bool:
    """Whether parts of a batch give the gradient of the whole."""
    measures_more = any(hasattr(each, "attach") for each in trainer.optimizers)
    return module.automatic_optimization and not measures_more


@dataclass(frozen=True)
class _Call:
    """A call of ``training_step`` that is still to be made.

    Args:
        part: Of the batch.
        share: Of the batch's samples that are in it.
        arguments: What else the step is given.
        keywords: What else the step is given by name.
    """

    part: Any
    share: float
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)


def split_steps(module: Any, count: int) -> None:
    """Have `module` train each batch in `count` parts.

    ``backward`` makes the steps of all parts but the first.
    """
    step = module.training_step
    backward = module.backward
    waiting: list[_Call] = []

    @functools.wraps(step)
    def training_step(batch: Any, *args: Any, **kwargs: Any) -> Any:
        (first, share), *others = parts(batch, count)
        waiting.clear()
        for part, its_share in others:
            waiting.append(_Call(part, its_share, args, kwargs))
        output = step(first, *args, **kwargs)
        return _weigh_output(output, share)

    @functools.wraps(backward)
    def whole_backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        backward(loss, *args, **kwargs)
        trainer = module.trainer
        precision = trainer.strategy.precision_plugin
        scaler = getattr(precision, "scaler", None)
        while waiting:
            call = waiting.pop(0)
            with _within_step(module), precision.train_step_context():
                output = step(call.part, *call.arguments, **call.keywords)
            part_loss = _loss_of(output)
            if part_loss is None:
                continue
            part_loss = part_loss * (call.share / trainer.accumulate_grad_batches)
            if scaler is not None:
                part_loss = scaler.scale(part_loss)
            backward(part_loss, *args, **kwargs)

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
    part_size = -(-size // count)
    found: list[tuple[Any, float]] = []
    for start in range(0, size, part_size):
        share = min(part_size, size - start) / size
        found.append((_cut_part(batch, start, part_size), share))
    return found


def length(batch: Any) -> int | None:
    """Samples of a batch; None where its tensors do not agree on it, or there are none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    inner: Iterable[Any] = ()
    if isinstance(batch, Mapping):
        inner = batch.values()
    elif isinstance(batch, (tuple, list)):
        inner = batch
    lengths: set[int | None] = set()
    for each in inner:
        if isinstance(each, (Tensor, tuple, list, Mapping)):
            lengths.add(length(each))
    return lengths.pop() if len(lengths) == 1 else None


def _cut_part(batch: Any, start: int, size: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[start : start + size]
    if isinstance(batch, Mapping):
        return {
            key: _cut_part(
                value,
                start,
                size,
            )
            for key, value in batch.items()
        }
    if isinstance(batch, (tuple, list)):
        cut = [_cut_part(each, start, size) for each in batch]
        is_named_tuple = hasattr(batch, "_fields")
        return type(batch)(*cut) if is_named_tuple else type(batch)(cut)
    return batch


def _loss_of(output: Any) -> Any:
    """The loss in what a ``training_step`` returned; None where there is none."""
    return output.get("loss") if isinstance(output, Mapping) else output


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
        known_version = is_compared("pytorch_lightning")
        with _logging_in_step(module) if known_version else _logging_nothing(module):
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
    """With an unverified version of Lightning, only the first part logs.

    Its values are the step's, in means too.
    """
    module.log = lambda *_, **__: None
    try:
        yield
    finally:
        del module.log
