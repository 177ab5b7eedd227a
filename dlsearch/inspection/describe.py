"""What a net is: its layer table, and what its first layer looks for.

The table is found by running the net once on no data.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dlsearch.inspection.findings import FirstLayer, LayerRow, NetSummary, round_to_digits
from dlsearch.inspection.layers import leaf_layers
from dlsearch.inspection.tiles import WHITE, ZERO, bytes_as_text

try:
    from dlsearch.inspection.receptive_field import FieldTracer
except ImportError:  # torch has no public name for what it follows operations with
    FieldTracer = None  # type: ignore[assignment, misc]

#: Filters of a first layer that are kept as pictures, and the numbers that these may hold in all.
FILTERS = 64
NUMBERS = 65_536

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def layer_table(
    net: nn.Module,
    in_shape: Sequence[int],
) -> list[LayerRow]:
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
        on_meta = copy.deepcopy(net).to("meta")
        no_data = torch.zeros(1, *in_shape, device="meta")
        return _trace_layers(on_meta, no_data)
    except (NotImplementedError, RuntimeError):
        device = _device_of(net)
        if device.type == "meta":
            raise
        zeros = torch.zeros(1, *in_shape, device=device)
        return _trace_layers(copy.deepcopy(net), zeros)


def _device_of(net: nn.Module) -> torch.device:
    for parameter in net.parameters():
        return parameter.device
    return torch.device("cpu")


def summary(net: nn.Module, in_shape: Sequence[int]) -> NetSummary:
    """``n_params`` (trainable), ``macs`` of one input, and ``layers``, the table."""
    layers = layer_table(net, in_shape)
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return {
        "n_params": _count_numbers(trainable),
        "macs": sum(row["macs"] for row in layers),
        "layers": layers,
    }


def _count_numbers(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


# -- the first layer ------------------------------------------------------------------------------
def first_layer(
    model: nn.Module,
    in_shape: Sequence[int] | None = None,
) -> FirstLayer | None:
    """The weights of the first layer as small pictures, for the study's record.

    The first layer with a weight is looked at: a convolution over two dimensions, or a linear layer
    on an image, whose rows then are templates of the image's shape. At most :data:`FILTERS` filters
    are kept, fewer where these are large, in eight bits each: a weight is ``(byte - 128) * step``
    of its filter, so that zero stays zero.

    Args:
        model: The net, or a task that has it as ``net``.
        in_shape: Of one input, (C, H, W); what a linear layer needs.

    Returns:
        None where the first layer is no picture or has weights that are not finite.
    """
    net = getattr(model, "net", None)
    if not isinstance(net, nn.Module):
        net = model
    name, layer = _first_weighted_layer(net)
    if layer is None:
        return None
    weight = _weight_as_images(layer, in_shape)
    if weight is None:
        return None
    if weight.shape[1] not in (1, 3):
        weight = weight.mean(dim=1, keepdim=True)
    kept = _keep_first_filters(weight)
    if not bool(torch.isfinite(kept).all()):
        return None
    largest = kept.abs().amax(dim=(1, 2, 3))
    steps = largest / (WHITE - ZERO)
    pixels = _in_steps(kept, steps)
    return {
        "layer": name,
        "type": type(layer).__name__,
        "total": len(weight),
        "shape": list(kept.shape),
        "steps": [round_to_digits(float(step), 3) for step in steps],
        "data": bytes_as_text(pixels),
    }


def _first_weighted_layer(net: nn.Module) -> tuple[str, nn.Module | None]:
    """The name of the first layer that has a weight, and the layer."""
    for name, module in net.named_modules():
        if isinstance(getattr(module, "weight", None), Tensor):
            return name, module
    return "", None


def _weight_as_images(
    layer: nn.Module,
    in_shape: Sequence[int] | None,
) -> Tensor | None:
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


def _keep_first_filters(weight: Tensor) -> Tensor:
    """At most :data:`FILTERS` of (filters, C, H, W), and fewer where these are large."""
    numbers_of_filter = weight[0].numel()
    affordable = NUMBERS // numbers_of_filter
    kept = max(1, min(FILTERS, affordable))
    return weight[:kept]


def _in_steps(weight: Tensor, steps: Tensor) -> Tensor:
    """Bytes that count the steps of each filter from :data:`ZERO`; all zeros where it has none."""
    ones = torch.ones_like(steps)
    divisors = torch.where(steps > 0, steps, ones)
    scaled = weight / divisors[:, None, None, None]
    counted = (scaled.round() + ZERO).clamp(0, WHITE)
    return counted.to(torch.uint8).contiguous()


# -- the table ------------------------------------------------------------------------------------
class _TableWriter:
    """Writes a row for each layer that runs.

    Args:
        tracer: Follows the receptive fields; None where inputs are no images.
    """

    def __init__(self, tracer: FieldTracer | None) -> None:
        self.rows: list[LayerRow] = []
        self._tracer = tracer
        self._counted: set[int] = set()

    def hook_for(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        """A forward hook of the layer of this name."""

        def note_call(
            module: nn.Module,
            inputs: Any,
            output: Any,
        ) -> None:
            self.rows.append(
                self._describe_call(
                    name,
                    module,
                    inputs,
                    output,
                )
            )

        return note_call

    def _describe_call(
        self,
        name: str,
        module: nn.Module,
        inputs: Any,
        output: Any,
    ) -> LayerRow:
        return {
            "name": name,
            "type": type(module).__name__,
            "in": _shape_of(inputs),
            "out": _shape_of(output),
            "params": self._count_new_parameters(module),
            "macs": _count_macs(module, output),
            "field": None if self._tracer is None else self._tracer.size(output),
        }

    def _count_new_parameters(self, module: nn.Module) -> int:
        """The numbers in those parameters that no earlier row has counted."""
        fresh = [each for each in module.parameters() if id(each) not in self._counted]
        self._counted.update(id(parameter) for parameter in fresh)
        return _count_numbers(fresh)


def _trace_layers(net: nn.Module, example: Tensor) -> list[LayerRow]:
    """Run a net on one example, and describe its layers in the order of their calls.

    The net keeps the hooks.
    """
    tracer: FieldTracer | None = None
    if FieldTracer is not None and example.dim() == 4:
        tracer = FieldTracer(example)
    writer = _TableWriter(tracer)
    for name, module in leaf_layers(net):
        module.register_forward_hook(writer.hook_for(name))
    following: AbstractContextManager[Any] = nullcontext() if tracer is None else tracer
    net.eval()
    with torch.no_grad(), following:
        net(example)
    return writer.rows


def _shape_of(value: Any) -> list[int] | None:
    """Of the first tensor in it, without the batch."""
    if isinstance(value, Tensor):
        return list(value.shape[1:])
    if not isinstance(value, (tuple, list)):
        return None
    for element in value:
        shape = _shape_of(element)
        if shape is not None:
            return shape
    return None


def _count_macs(module: nn.Module, output: Any) -> int:
    """Parameters of a kernel times the positions it is put at."""
    if not isinstance(output, Tensor):
        return 0
    if isinstance(module, TRANSPOSED):
        outputs = output[0, 0].numel()
        positions = outputs // max(1, math.prod(module.stride))
    elif isinstance(module, CONVOLUTIONS):
        positions = output[0, 0].numel()
    elif isinstance(module, nn.Linear):
        positions = output[0].numel() // module.out_features
    else:
        return 0
    return module.weight.numel() * positions
