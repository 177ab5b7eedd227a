"""From a feature back to pixels: the deconvolutional net of Zeiler and Fergus (2014), section 2.1.

"Visualizing and understanding convolutional networks". Convolutions are passed backwards by their
transposes, max pools by the positions of their maxima (switches), activations by a rectification,
which lets positive signals pass. Beyond the paper: average pools spread a signal evenly, batch
normalisation is part of the linear map before it, and local response normalisation divides by what
it divided by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

RECTIFIED = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Sigmoid)
IDLE = (nn.Dropout, nn.Identity)
Undo = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Chain:
    """Layers that can be passed backwards, one after another, the first of which sees an image.

    Args:
        names: Of the layers in their net.
        layers: The layers.
    """

    names: tuple[str, ...]
    layers: tuple[nn.Module, ...]

    def features(self) -> list[int]:
        """Indices of what is worth looking at: each convolution's activations, or its sums where it has none."""
        ends = [i for i, layer in enumerate(self.layers) if isinstance(layer, nn.Conv2d)][1:]
        found = []
        for start, end in zip([0, *ends], [*ends, len(self.layers)], strict=True):
            block = [
                i for i in range(start, end) if isinstance(self.layers[i], (*RECTIFIED, nn.Conv2d))
            ]
            found += block[-1:]
        return found

    def run(self, x: Tensor, layer: int) -> Tensor:
        """The output of the layer with that index."""
        for module in self.layers[: layer + 1]:
            x = module(x)
        return x


@dataclass(frozen=True)
class Geometry:
    """Where the units of a layer look, in pixels of the image, height before width.

    Args:
        size: Of a receptive field.
        jump: Between neighbouring units.
        start: Centre of the first unit's field.
    """

    size: tuple[int, int]
    jump: tuple[int, int]
    start: tuple[float, float]

    def box(
        self,
        row: int,
        column: int,
        sides: Sequence[int],
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width of a unit's field, moved into an image of `sides` where it reaches over it."""
        ends = []
        for i, place in enumerate((row, column)):
            size = min(self.size[i], sides[i])
            low = math.floor(self.start[i] + place * self.jump[i] - (size - 1) / 2)
            ends.append((min(max(low, 0), sides[i] - size), size))
        return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


def geometry(layers: Sequence[nn.Module]) -> Geometry:
    """Of the last of these layers."""
    size = [1, 1]
    jump = [1, 1]
    start = [0.0, 0.0]
    for layer in layers:
        if not isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
            continue
        for i in (0, 1):
            kernel, stride, pad = (
                _at(getattr(layer, key), i) for key in ("kernel_size", "stride", "padding")
            )
            reach = (kernel - 1) * _at(getattr(layer, "dilation", 1), i)
            size[i] += reach * jump[i]
            start[i] += (reach / 2 - pad) * jump[i]
            jump[i] *= stride
    return Geometry((size[0], size[1]), (jump[0], jump[1]), (start[0], start[1]))


@torch.no_grad()
def find_chain(net: nn.Module, x: Tensor) -> Chain | None:
    """The layers with the most convolutions that can be passed backwards to something of an image's shape.

    Args:
        net: In evaluation mode.
        x: One image, (1, C, H, W).

    Returns:
        None where no convolution is among them. A net with branches has the layers up to its first
        sum.
    """
    calls = _record_calls(net, x)
    best: list[_Call] = []
    # from a layer's place to the layers that lead there, itself the last
    ways: dict[int, list[_Call]] = {}
    # the place of the layer that made a tensor last; `calls` holds all tensors, so that no address
    # comes twice
    made: dict[int, int] = {}
    for place, call in enumerate(calls):
        before = made.get(id(call.given))
        if isinstance(call.out, Tensor):
            made[id(call.out)] = place
        if not _goes_back(call.module) or not isinstance(call.given, Tensor):
            continue
        if before is None:
            if call.given.shape != x.shape:
                continue
            ways[place] = [call]
        elif before in ways:
            ways[place] = [*ways[before], call]
        else:
            continue
        if _count_convolutions(ways[place]) >= max(1, _count_convolutions(best)):
            best = ways[place]
    if not best:
        return None
    return Chain(tuple(call.name for call in best), tuple(call.module for call in best))


class _Call(NamedTuple):
    """One call of a layer without children."""

    name: str
    module: nn.Module
    given: Any
    out: Any


def _record_calls(net: nn.Module, x: Tensor) -> list[_Call]:
    """Run a net, and note every call of a layer without children, in order."""
    calls: list[_Call] = []
    hooks = [
        module.register_forward_hook(
            lambda m, i, o, name=name: calls.append(_Call(name, m, i[0], o))
        )
        for name, module in net.named_modules()
        if not next(module.children(), None)
    ]
    try:
        net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _count_convolutions(way: list[_Call]) -> int:
    return sum(isinstance(call.module, nn.Conv2d) for call in way)


@torch.no_grad()
def project(
    layers: Sequence[nn.Module],
    x: Tensor,
    layer: int,
    channels: int | Sequence[int],
) -> Tensor:
    """Map what feature maps answer most to back to pixels.

    The strongest activity of the map is kept and all others are set to 0; then the layers are
    passed backwards.

    Args:
        layers: Convolutions, pools, activations and normalisations, one after another, in
            evaluation mode.
        x: (B, C, H, W).
        layer: Index of the layer whose output is looked at.
        channels: Of that output: one for all images, or one for each.

    Returns:
        (B, C, H, W): what of each image made the map's strongest activity.

    Raises:
        ValueError: A layer cannot be passed backwards, or there is no such layer or channel.
    """
    if not 0 <= layer < len(layers):
        raise ValueError(f"layer: expected 0 to {len(layers) - 1}, got {layer}")
    back: list[Undo] = []  # from the signal after a layer to the one before it
    for module in list(layers)[: layer + 1]:
        x, undo = _passed(module, x)
        back.append(undo)
    wanted = [channels] * len(x) if isinstance(channels, int) else list(channels)
    wrong = next((c for c in wanted if not 0 <= c < x.shape[1]), None)
    if wrong is not None:
        raise ValueError(f"channel: expected 0 to {x.shape[1] - 1}, got {wrong}")
    signal = _keep_strongest(x, wanted)
    for undo in reversed(back):
        signal = undo(signal)
    return signal


def _keep_strongest(x: Tensor, channels: list[int]) -> Tensor:
    """Maps (B, C, H, W) of which one channel of each image keeps its strongest activity.

    All else is 0.
    """
    maps = x.flatten(2)  # (B, channels, H · W)
    rows = torch.arange(len(x), device=x.device)
    chosen = torch.tensor(channels, device=x.device)
    strongest = maps[rows, chosen].argmax(1)
    signal = torch.zeros_like(maps)
    signal[rows, chosen, strongest] = maps[rows, chosen, strongest]
    return signal.view(x.shape)


def _goes_back(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if isinstance(module, nn.MaxPool2d):
        return not module.ceil_mode or module.padding == 0
    return isinstance(module, (nn.AvgPool2d, nn.BatchNorm2d, *RECTIFIED, *IDLE)) or hasattr(
        module, "divisor"
    )


def _passed(module: nn.Module, x: Tensor) -> tuple[Tensor, Undo]:
    """The output of a layer, and how a signal passes it backwards."""
    if isinstance(module, nn.Conv2d):
        how = (module.stride, module.padding, module.dilation, module.groups)
        return module(x), lambda signal: conv2d_input(x.shape, module.weight, signal, *how)
    if isinstance(module, nn.MaxPool2d):
        pooled, where = F.max_pool2d(
            x,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.ceil_mode,
            return_indices=True,
        )
        empty = torch.zeros_like(x).flatten(2)
        return pooled, lambda signal: empty.scatter_add(
            2, where.flatten(2), signal.flatten(2)
        ).view(x.shape)
    if isinstance(module, nn.AvgPool2d):
        return module(x), lambda signal: _transposed(module, x, signal)
    if isinstance(module, nn.BatchNorm2d):
        assert module.running_var is not None
        scale = (module.running_var + module.eps).rsqrt() * (
            1 if module.weight is None else module.weight
        )
        return module(x), lambda signal: signal * scale[:, None, None]
    if isinstance(module, RECTIFIED):
        return module(x.clone()), F.relu  # one that works in place would change what lies before it
    if isinstance(module, IDLE):
        return x, lambda signal: signal
    if hasattr(module, "divisor"):  # local response normalisation
        divisor: Tensor = module.divisor(x)  # type: ignore[operator]
        return x / divisor, lambda signal: signal / divisor
    raise ValueError(
        f"layers: expected convolutions, pools, activations and normalisations, got {type(module).__name__}"
    )


def _transposed(module: nn.Module, x: Tensor, signal: Tensor) -> Tensor:
    """A linear layer backwards."""
    with torch.enable_grad():
        given = torch.zeros_like(x, requires_grad=True)
        (found,) = torch.autograd.grad(module(given), given, signal)
    return found


def _at(value: Any, axis: int) -> int:
    return int(value if isinstance(value, int) else value[axis])
