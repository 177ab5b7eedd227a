"""Clipping under mixed precision, for fused optimizers too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch.optim import Optimizer


def let_clip(trainer: pl.Trainer) -> None:
    """Let gradients of fused optimizers be clipped under bf16-mixed.

    Lightning refuses it for every mixed precision, because a fused optimizer undoes the scaling of
    gradients itself, after the clip. With bfloat16 nothing is scaled.
    """
    plugin = trainer.precision_plugin
    if type(plugin) is MixedPrecision and plugin.scaler is None:
        trainer.strategy.precision_plugin = Bf16Mixed("bf16-mixed", plugin.device)


class Bf16Mixed(MixedPrecision):
    """Lightning's, without the check that is about scaled gradients."""

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        """Clip as in full precision."""
        Precision.clip_gradients(self, optimizer, clip_val, gradient_clip_algorithm)
