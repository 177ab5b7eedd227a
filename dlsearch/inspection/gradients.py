"""Gradient norms by depth: where they vanish, the first layers do not learn.

Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen" (1991); Glorot and Bengio,
"Understanding the difficulty of training deep feedforward neural networks" (2010).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlsearch.inspection.findings import GradientNorms as NormsOfRecord
from dlsearch.inspection.findings import round_to_digits
from dlsearch.inspection.layers import leaf_layers

PREFIX = "gradient/"
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)


class LayerNorm(NamedTuple):
    """The Euclidean norm of the loss's gradient by the weights of one layer."""

    layer: str
    norm: float


class GradientNorms(pl.Callback):
    """Logs the Euclidean norm of the gradient by the weights of each layer, ``gradient/<layer>``.

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
        is_number = isinstance(every_n_steps, int) and not isinstance(every_n_steps, bool)
        if not is_number or every_n_steps < 1:
            raise ValueError(f"every_n_steps: expected a positive integer, got {every_n_steps!r}")
        self.every_n_steps = every_n_steps

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Measure."""
        step = trainer.global_step
        if step % self.every_n_steps or trainer.logger is None:
            return
        net = getattr(pl_module, "net", None)
        if not isinstance(net, nn.Module):
            net = pl_module
        metrics = {f"{PREFIX}{each.layer}": each.norm for each in weight_norms(net)}
        trainer.logger.log_metrics(metrics, step=step)


def weight_norms(net: nn.Module) -> list[LayerNorm]:
    """Norms of the gradients of weights that have one, and two or more dimensions."""
    found: list[LayerNorm] = []
    for name, module in net.named_modules():
        parameters = dict(module.named_parameters(recurse=False))
        weight = parameters.get("weight")
        if weight is None or weight.dim() < 2 or weight.grad is None:
            continue
        gradient = weight.grad.detach().float()
        found.append(LayerNorm(name, gradient.norm().item()))
    return found


def gradient_norms(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
) -> list[LayerNorm] | None:
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
    net = copy.deepcopy(net)
    net.train()
    net.requires_grad_(True)
    for module in net.modules():
        if isinstance(module, DROPOUTS):
            module.eval()
    order = _note_order_of_calls(net)
    with torch.enable_grad():
        outputs = net(x)
        if not isinstance(outputs, Tensor) or not outputs.requires_grad:
            return None
        net.zero_grad(set_to_none=True)
        loss = loss_of(outputs, y)
        loss.backward()
    found = _in_order(weight_norms(net), order)
    reaches_a_weight = any(each.norm > 0 for each in found)
    return found if reaches_a_weight else None


def _note_order_of_calls(net: nn.Module) -> list[str]:
    """A list that the names of layers without children are added to when they run."""
    order: list[str] = []

    def noting(name: str) -> Any:
        return lambda module, inputs, output: order.append(name)

    for name, module in leaf_layers(net):
        module.register_forward_hook(noting(name))
    return order


def _in_order(
    norms: list[LayerNorm],
    order: list[str],
) -> list[LayerNorm]:
    """By the first call of each layer; those that were not called come last."""
    first_call: dict[str, int] = {}
    for place, name in enumerate(order):
        first_call.setdefault(name, place)
    last = len(order)
    return sorted(norms, key=lambda each: first_call.get(each.layer, last))


def loss_of(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits (B, classes) and whole numbers, else the mean squared error."""
    are_logits = outputs.dim() == 2 and outputs.shape[1] > 1
    if are_logits and not y.is_floating_point():
        return F.cross_entropy(outputs, y.long())
    numbers = outputs.flatten()
    targets = y.flatten().to(outputs.dtype)
    return F.mse_loss(numbers, targets)


def rows(
    initial: Sequence[LayerNorm] | None,
    kept: Sequence[LayerNorm] | None,
) -> NormsOfRecord | None:
    """Both measurements by layer, for the study's record; None where neither found any gradient."""
    first = dict(initial or [])
    last = dict(kept or [])
    layers = list(last or first)
    if not layers:
        return None
    return {
        "layers": layers,
        "initial": _norms_of(layers, first),
        "kept": _norms_of(layers, last),
    }


def _norms_of(
    layers: Sequence[str],
    norms: dict[str, float],
) -> list[float | None] | None:
    """A norm for each layer; None where nothing was measured."""
    if not norms:
        return None
    return [_short(norms.get(layer)) for layer in layers]


def _short(value: float | None) -> float | None:
    """Four digits of a finite number."""
    if value is None or not math.isfinite(value):
        return None
    return round_to_digits(value, 4)
