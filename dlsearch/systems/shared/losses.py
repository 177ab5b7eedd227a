"""Losses by name, and the penalties on weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


def multiclass_hinge(scores: Tensor, target: Tensor, margin: float = 1.0) -> Tensor:
    """Multiclass SVM loss (Weston and Watkins, 1999).

    Σ over j ≠ y of max(0, s_j − s_y + margin), mean over the batch.

    Args:
        scores: (B, K).
        target: (B,) classes.
        margin: By which the right class must lead.
    """
    right = scores.gather(1, target[:, None])  # (B, 1)
    lead = scores - right + margin
    violations = lead.clamp(min=0)
    # the right class itself always adds `margin`
    losses = violations.sum(1) - margin
    return losses.mean()


def classification_loss(name: str, label_smoothing: float = 0.0) -> Loss:
    """``cross_entropy`` or ``hinge``.

    Raises:
        ValueError: There is no such loss, or it knows no smoothing.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing: expected 0 to 1 (1 excluded), got {label_smoothing}")
    if name == "cross_entropy":
        return partial(F.cross_entropy, label_smoothing=label_smoothing)
    if name == "hinge":
        if label_smoothing:
            raise ValueError(
                "label_smoothing: expected 0 with the hinge loss (hint: task.loss=cross_entropy)"
            )
        return multiclass_hinge
    raise ValueError(f"loss: expected cross_entropy or hinge, got {name!r}")


def regression_loss(name: str) -> Loss:
    """``mse`` (quadratic) or ``l1`` (absolute).

    Raises:
        ValueError: There is no such loss.
    """
    losses: dict[str, Loss] = {"mse": F.mse_loss, "l1": F.l1_loss}
    if name not in losses:
        raise ValueError(f"loss: expected mse or l1, got {name!r}")
    return losses[name]


class Penalty:
    """``l1 · Σ|w| + l2 · Σw²`` over the weights, not the biases.

    That is L1, L2, or with both the elastic net (Zou and Hastie, 2005). Unlike an optimiser's
    weight decay it is part of the loss, so adaptive optimisers rescale it.

    Args:
        l1: Factor of the absolute values.
        l2: Factor of the squares.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        if l1 < 0:
            raise ValueError(f"l1: expected 0 or more, got {l1}")
        if l2 < 0:
            raise ValueError(f"l2: expected 0 or more, got {l2}")
        self.l1 = l1
        self.l2 = l2

    def __bool__(self) -> bool:
        return bool(self.l1 or self.l2)

    def __call__(self, weights: Iterable[Tensor]) -> Tensor:
        """One number."""
        flat = torch.cat([w.flatten() for w in weights])
        total = flat.new_zeros(())
        if self.l1:
            total = total + self.l1 * flat.abs().sum()
        if self.l2:
            total = total + self.l2 * flat.square().sum()
        return total


def weights_of(net: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters of more than one dimension.

    So there are no biases, and no scales of a normalisation.
    """
    return [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
