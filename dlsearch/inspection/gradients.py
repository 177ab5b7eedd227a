"""Gradient norms by depth: where they vanish, the first layers do not learn.

Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen" (1991); Glorot and Bengio,
"Understanding the difficulty of training deep feedforward neural networks" (2010).
"""

from __future__ import annotations

import copy
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

PREFIX = "gradient/"


class GradientNorms(pl.Callback):
    """Logs the Euclidean norm of the loss's gradient by the weights of each layer, ``gradient/<layer>``.

    Of single batches, before any clipping. Steps are Lightning's own then, which are a little
    slower than ours.

    Args:
        every_n_steps: How often.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        """Log nothing yet.

        Raises:
            ValueError: `every_n_steps` is not positive.
        """
        if (
            isinstance(every_n_steps, bool)
            or not isinstance(every_n_steps, int)
            or every_n_steps < 1
        ):
            raise ValueError(f"every_n_steps: expected a positive integer, got {every_n_steps!r}")
        self.every_n_steps = every_n_steps

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Measure."""
        if trainer.global_step % self.every_n_steps or trainer.logger is None:
            return
        net = getattr(pl_module, "net", None)
        norms = weight_norms(net if isinstance(net, nn.Module) else pl_module)
        trainer.logger.log_metrics(
            {f"{PREFIX}{name}": norm for name, norm in norms}, step=trainer.global_step
        )


def weight_norms(net: nn.Module) -> list[tuple[str, float]]:
    """Layers that have a weight of two or more dimensions, and the norms of its gradient, where there is one."""
    found = []
    for name, module in net.named_modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if weight is not None and weight.dim() > 1 and weight.grad is not None:
            found.append((name, weight.grad.detach().float().norm().item()))
    return found


def gradient_norms(net: nn.Module, x: Tensor, y: Tensor) -> list[tuple[str, float]] | None:
    """Of one batch, by layer, in the order in which the layers run; the net stays as it is.

    Batch normalisation takes the batch's statistics, as in training, and dropout drops nothing. The
    loss is the cross-entropy of classes, the mean squared error of numbers.

    Args:
        net: Takes (B, *in_shape).
        x: (B, *in_shape).
        y: (B,) classes, or numbers.

    Returns:
        None where no gradient reaches any weight.
    """
    net = copy.deepcopy(net).train().requires_grad_(True)
    order: list[str] = []
    for name, module in net.named_modules():
        if isinstance(module, (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)):
            module.eval()
        if not next(module.children(), None):
            module.register_forward_hook(lambda m, i, o, name=name: order.append(name))
    with torch.enable_grad():
        outputs = net(x)
        if not isinstance(outputs, Tensor) or not outputs.requires_grad:
            return None
        net.zero_grad(set_to_none=True)
        loss_of(outputs, y).backward()
    places = {name: place for place, name in reversed(list(enumerate(order)))}
    found = sorted(weight_norms(net), key=lambda row: places.get(row[0], len(order)))
    return found if any(norm > 0 for _, norm in found) else None


def loss_of(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits (B, classes) and whole numbers, else the mean squared error."""
    if outputs.dim() == 2 and outputs.shape[1] > 1 and not y.is_floating_point():
        return F.cross_entropy(outputs, y.long())
    return F.mse_loss(outputs.flatten(), y.flatten().to(outputs.dtype))


def rows(initial: Any, kept: Any) -> dict[str, Any] | None:
    """Both measurements by layer, for the study's record; None where neither found any gradient."""
    first = dict(initial or [])
    last = dict(kept or [])
    names = list(last or first)
    if not names:
        return None
    return {
        "layers": names,
        "initial": [_short(first.get(name)) for name in names] if first else None,
        "kept": [_short(last.get(name)) for name in names] if last else None,
    }


def _short(value: float | None) -> float | None:
    return (
        None
        if value is None or value != value or value in (float("inf"), float("-inf"))
        else float(f"{value:.4g}")
    )
