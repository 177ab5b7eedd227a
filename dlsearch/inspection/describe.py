"""What a net is: its layer table, found by running it once on no data, and what its first layer looks for."""

from __future__ import annotations

import base64
import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

try:
    from dlsearch.inspection.receptive_field import FieldTracer
except ImportError:  # torch has no public name for what it follows operations with
    FieldTracer = None  # type: ignore[assignment, misc]

#: Filters of a first layer that are kept as pictures, and the numbers that these may hold in all.
FILTERS = 64
NUMBERS = 65_536


def layer_table(net: nn.Module, in_shape: Sequence[int]) -> list[dict[str, Any]]:
    """One row for each layer without children, in the order in which they run.

    The net is copied to the meta device, so nothing is computed; a net that does not run there runs
    on its own. Parameters of a layer that runs twice are counted at its first row.

    Args:
        net: Takes (B, *in_shape).
        in_shape: Of one input.

    Returns:
        Rows with ``name``, ``type``, ``in`` and ``out`` (shapes without the batch), ``params``,
        ``macs`` of one input (those of convolutions and linear layers), and ``field``, the
        receptive field in pixels (height, width) of an image; None where the inputs are none.
    """
    try:
        return _trace_layers(
            copy.deepcopy(net).to("meta"), torch.zeros(1, *in_shape, device="meta")
        )
    except (NotImplementedError, RuntimeError):
        here = next((p.device for p in net.parameters()), torch.device("cpu"))
        if here.type == "meta":
            raise
        return _trace_layers(copy.deepcopy(net), torch.zeros(1, *in_shape, device=here))


def summary(net: nn.Module, in_shape: Sequence[int]) -> dict[str, Any]:
    """``n_params`` (trainable), ``macs`` of one input, and ``layers``, the table."""
    layers = layer_table(net, in_shape)
    return {
        "n_params": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "macs": sum(row["macs"] for row in layers),
        "layers": layers,
    }


def first_layer(model: nn.Module, in_shape: Sequence[int] | None = None) -> dict[str, Any] | None:
    """The weights of the first layer as small pictures, for the study's record.

    The first layer with a weight is looked at: a convolution over two dimensions, or a linear layer
    on an image, whose rows then are templates of the image's shape. At most :data:`FILTERS` filters
    are kept, fewer where these are large, in eight bits each: a weight is ``(byte - 128) * step``
    of its filter, so that zero stays zero.

    Args:
        model: The net, or a task that has it as ``net``.
        in_shape: Of one input, (C, H, W); what a linear layer needs.

    Returns:
        ``{"layer", "type", "total", "shape": [filters, C, H, W], "steps": one a filter, "data":
        base64 of uint8}``; None where the first layer is no picture or has weights that are not
        finite.
    """
    net = getattr(model, "net", None)
    net = net if isinstance(net, nn.Module) else model
    name, layer = _first_weighted_layer(net)
    weight = None if layer is None else _weight_as_images(layer, in_shape)
    if weight is None:
        return None
    if weight.shape[1] not in (1, 3):
        weight = weight.mean(dim=1, keepdim=True)
    total = len(weight)
    weight = weight[: max(1, min(FILTERS, NUMBERS // weight[0].numel()))]
    if not bool(torch.isfinite(weight).all()):
        return None
    steps = weight.abs().amax(dim=(1, 2, 3)) / 127
    scaled = weight / torch.where(steps > 0, steps, torch.ones_like(steps))[:, None, None, None]
    pixels = (scaled.round() + 128).clamp(0, 255).to(torch.uint8).contiguous()
    return {
        "layer": name,
        "type": type(layer).__name__,
        "total": total,
        "shape": list(weight.shape),
        "steps": [float(f"{float(step):.3g}") for step in steps],
        "data": base64.b64encode(pixels.numpy().tobytes()).decode(),
    }


def _first_weighted_layer(net: nn.Module) -> tuple[str, nn.Module | None]:
    for name, module in net.named_modules():
        if isinstance(getattr(module, "weight", None), Tensor):
            return name, module
    return "", None


def _weight_as_images(layer: nn.Module, in_shape: Sequence[int] | None) -> Tensor | None:
    """(filters, C, H, W) of a convolution, or of a linear layer on an image.

    None of other layers.
    """
    if not isinstance(layer, (nn.Conv2d, nn.Linear)):
        return None
    weight = layer.weight.detach().float().cpu()
    if isinstance(layer, nn.Linear) and in_shape is not None and len(in_shape) == 3:
        if math.prod(in_shape) != weight.shape[1]:
            return None
        weight = weight.reshape(-1, *in_shape)
    is_picture = weight.dim() == 4 and max(weight.shape[2:]) >= 2
    return weight if is_picture else None


def _trace_layers(net: nn.Module, example: Tensor) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    counted: set[int] = set()
    tracer = FieldTracer(example) if FieldTracer is not None and example.dim() == 4 else None

    def note(
        name: str,
        module: nn.Module,
        inputs: tuple[Any, ...],
        output: Any,
    ) -> None:
        parameters = [p for p in module.parameters() if id(p) not in counted]
        counted.update(id(p) for p in parameters)
        rows.append(
            {
                "name": name,
                "type": type(module).__name__,
                "in": _shape_of(inputs),
                "out": _shape_of(output),
                "params": sum(p.numel() for p in parameters),
                "macs": _count_macs(module, output),
                "field": tracer.size(output) if tracer is not None else None,
            }
        )

    for name, module in net.named_modules():
        if not next(module.children(), None):
            module.register_forward_hook(lambda m, i, o, name=name: note(name, m, i, o))
    with torch.no_grad(), tracer or nullcontext():
        net.eval()(example)
    return rows


def _shape_of(value: Any) -> list[int] | None:
    """Of the first tensor in it, without the batch."""
    if isinstance(value, Tensor):
        return list(value.shape[1:])
    if isinstance(value, (tuple, list)):
        return next((shape for shape in map(_shape_of, value) if shape is not None), None)
    return None


def _count_macs(module: nn.Module, output: Any) -> int:
    """Parameters of a kernel times the positions it is put at."""
    if not isinstance(output, Tensor):
        return 0
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        positions = output[0, 0].numel() // max(1, math.prod(module.stride))
        return module.weight.numel() * positions
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return module.weight.numel() * output[0, 0].numel()
    if isinstance(module, nn.Linear):
        return module.weight.numel() * (output[0].numel() // module.out_features)
    return 0
