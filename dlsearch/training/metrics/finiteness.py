"""Numbers that are not finite: which of them end a training, and which are only noted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TRAINING_LOSS = "the training loss"


@dataclass(frozen=True)
class NonFinite:
    """A number for which a training has failed.

    Args:
        kind: ``nan`` or ``inf``.
        what: An objective's name, or the training loss.
    """

    kind: str
    what: str


def name_of_number(value: float) -> str | None:
    """``nan``, ``inf`` or ``-inf``; None for a finite number."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return None


def find_non_finite(metrics: Mapping[str, float], names: Sequence[str]) -> NonFinite | None:
    """The first of the named metrics that has a value which is not finite."""
    for name in names:
        if name in metrics:
            kind = name_of_number(metrics[name])
            if kind is not None:
                return NonFinite(kind.lstrip("-"), name)
    return None


class LastLosses:
    """The losses of the last batch, which are looked at when an epoch ends.

    They stay where they are until then: to look at a loss on a GPU is to wait for it. A training
    that has diverged has no finite loss any more. One whose loss was not finite for a batch and
    that has gone on, as with a gradient scaler, has not.
    """

    def __init__(self) -> None:
        """There is none yet."""
        self._losses: list[Tensor] = []

    def begin_batch(self) -> None:
        """Forget those of the batch before."""
        self._losses = []

    def note(self, loss: Tensor) -> None:
        """Note a loss of this batch, without its graph."""
        self._losses.append(loss.detach() if loss.requires_grad else loss)

    def note_outputs(self, outputs: Any) -> None:
        """Note the loss that a ``training_step`` returned, if it did."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self.note(loss)

    def find(self) -> NonFinite | None:
        """What of them is not finite; None where all are, or there are none."""
        for loss in self._losses:
            kind = name_of_number(float(loss))
            if kind is not None:
                return NonFinite(kind.lstrip("-"), TRAINING_LOSS)
        return None


class ManualLosses(pl.Callback):
    """Notes the losses of a module that optimises by itself, and need not return one.

    Only for such modules: with this hook a step is Lightning's own.

    Args:
        losses: Takes them.
    """

    def __init__(self, losses: LastLosses) -> None:
        """Nothing is noted yet."""
        self._losses = losses

    def on_before_backward(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        loss: Tensor,
    ) -> None:
        """Note a loss."""
        if loss.numel() == 1:
            self._losses.note(loss)
