"""Numbers that are not finite: which of them end a training, and which are only noted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TRAINING_LOSS = "the training loss"
#: So many are kept apart.
MOST_LOSSES = 1_000


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


class TrainingLosses:
    """The losses of a training since they were looked at last.

    They stay where they are until then: to look at a loss on a GPU is to wait for it.
    """

    def __init__(self) -> None:
        """There is none yet."""
        self._losses: list[Tensor] = []

    def note(self, loss: Tensor) -> None:
        """Note a loss, without its graph."""
        self._losses.append(loss.detach() if loss.requires_grad else loss)
        if len(self._losses) >= MOST_LOSSES:
            self._losses = [_worst(self._losses), self._losses[-1]]

    def note_outputs(self, outputs: Any) -> None:
        """Note the loss that a ``training_step`` returned, if it did."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self.note(loss)

    def take(self, *, last_alone: bool) -> NonFinite | None:
        """What of them is not finite; None where all are, or there are none.

        Args:
            last_alone: Whether the others may be anything: a gradient scaler passes batches over.
        """
        losses = self._losses[-1:] if last_alone else self._losses
        self._losses = []
        if not losses:
            return None
        kind = name_of_number(float(_worst(losses)))
        return None if kind is None else NonFinite(kind, TRAINING_LOSS)


def _worst(losses: Sequence[Tensor]) -> Tensor:
    """NaN where there is one, or else the largest loss, whatever its sign."""
    device = losses[-1].device
    values = [loss.reshape(()).to(device, torch.float32) for loss in losses]
    return torch.stack(values).abs().max()


class ManualLosses(pl.Callback):
    """Notes the losses of a module that optimises by itself, and need not return one.

    Only for such modules: with this hook a step is Lightning's own.

    Args:
        losses: Takes them.
    """

    def __init__(self, losses: TrainingLosses) -> None:
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
