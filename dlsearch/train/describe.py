"""The layer table of a net: shapes, parameters and multiply-adds, found by running it once on no data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def layer_table(net: nn.Module, in_shape: Sequence[int]) -> list[dict[str, Any]]:
    """One row for each layer without children, in the order in which they run.

    The net is copied to the meta device, so nothing is computed; a net that does not run there runs on its own.
    Parameters of a layer that runs twice are counted at its first row.

    Args:
        net: Takes (B, *in_shape).
        in_shape: Of one input.

    Returns:
        Rows with ``name``, ``type``, ``in`` and ``out`` (shapes without the batch), ``params``, and ``macs`` of one
        input (those of convolutions and linear layers).
    """
    try:
        return _trace(copy.deepcopy(net).to("meta"), torch.zeros(1, *in_shape, device="meta"))
    except (NotImplementedError, RuntimeError):
        here = next((p.device for p in net.parameters()), torch.device("cpu"))
        if here.type == "meta":
            raise
        return _trace(copy.deepcopy(net), torch.zeros(1, *in_shape, device=here))


def summary(net: nn.Module, in_shape: Sequence[int]) -> dict[str, Any]:
    """``n_params`` (trainable), ``macs`` of one input, and ``layers``, the table."""
    layers = layer_table(net, in_shape)
    return {
        "n_params": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "macs": sum(row["macs"] for row in layers),
        "layers": layers,
    }


def _trace(net: nn.Module, example: Tensor) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    counted: set[int] = set()

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        parameters = [p for p in module.parameters() if id(p) not in counted]
        counted.update(id(p) for p in parameters)
        rows.append(
            {
                "name": name,
                "type": type(module).__name__,
                "in": _shape(inputs),
                "out": _shape(output),
                "params": sum(p.numel() for p in parameters),
                "macs": _macs(module, output),
            }
        )

    for name, module in net.named_modules():
        if not next(module.children(), None):
            module.register_forward_hook(lambda m, i, o, name=name: note(name, m, i, o))
    with torch.no_grad():
        net.eval()(example)
    return rows


def _shape(value: Any) -> list[int] | None:
    """Of the first tensor in it, without the batch."""
    if isinstance(value, Tensor):
        return list(value.shape[1:])
    if isinstance(value, (tuple, list)):
        return next((shape for shape in map(_shape, value) if shape is not None), None)
    return None


def _macs(module: nn.Module, output: Any) -> int:
    """Parameters of a kernel times the positions it is put at."""
    if not isinstance(output, Tensor):
        return 0
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        positions = output[0, 0].numel() // max(1, _product(module.stride))
        return module.weight.numel() * positions
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return module.weight.numel() * output[0, 0].numel()
    if isinstance(module, nn.Linear):
        return module.weight.numel() * (output[0].numel() // module.out_features)
    return 0


def _product(values: Sequence[int]) -> int:
    product = 1
    for value in values:
        product *= value
    return product
