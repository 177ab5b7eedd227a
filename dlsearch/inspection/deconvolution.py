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

from dlsearch.inspection.layers import leaf_layers, run_hooked

RECTIFIED = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Sigmoid)
IDLE = (nn.Dropout, nn.Identity)
#: Layers with kernels, which widen a receptive field.
KERNELS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)

#: From the signal after a layer to the one before it.
Undo = Callable[[Tensor], Tensor]


# -- the layers -----------------------------------------------------------------------------------
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
        """Indices of what is worth looking at.

        Each convolution's activations, or its sums where it has none.
        """
        found: list[int] = []
        block: list[int] = []
        seen_convolution = False
        for index, layer in enumerate(self.layers):
            if isinstance(layer, nn.Conv2d):
                if seen_convolution:
                    found += block[-1:]
                    block = []
                seen_convolution = True
            if isinstance(layer, (*RECTIFIED, nn.Conv2d)):
                block.append(index)
        found += block[-1:]
        return found

    def run(self, x: Tensor, layer: int) -> Tensor:
        """The output of the layer with that index."""
        for module in self.layers[: layer + 1]:
            x = module(x)
        return x


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Tensor) -> Tensor:
        """The same rectangle of (C, H, W)."""
        rows = slice(self.top, self.top + self.height)
        columns = slice(self.left, self.left + self.width)
        return image[:, rows, columns]


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
    ) -> Box:
        """A unit's field, moved into an image of `sides` where it reaches over it."""
        height = min(self.size[0], sides[0])
        width = min(self.size[1], sides[1])
        return Box(
            top=self._begin(
                0,
                row,
                height,
                sides[0],
            ),
            left=self._begin(
                1,
                column,
                width,
                sides[1],
            ),
            height=height,
            width=width,
        )

    def _begin(
        self,
        axis: int,
        place: int,
        size: int,
        side: int,
    ) -> int:
        """The first pixel along one axis of the field at a place, cut to `size`."""
        centre = self.start[axis] + place * self.jump[axis]
        begin = math.floor(centre - (size - 1) / 2)
        return min(max(begin, 0), side - size)


def geometry(layers: Sequence[nn.Module]) -> Geometry:
    """Of the last of these layers."""
    size = [1, 1]
    jump = [1, 1]
    start = [0.0, 0.0]
    for layer in layers:
        if not isinstance(layer, KERNELS):
            continue
        for axis in (0, 1):
            kernel = _along(axis, layer.kernel_size)
            stride = _along(axis, layer.stride)
            padding = _along(axis, layer.padding)
            dilation = _along(axis, getattr(layer, "dilation", 1))
            reach = (kernel - 1) * dilation
            size[axis] += reach * jump[axis]
            start[axis] += (reach / 2 - padding) * jump[axis]
            jump[axis] *= stride
    return Geometry(
        size=(size[0], size[1]),
        jump=(jump[0], jump[1]),
        start=(start[0], start[1]),
    )


def _along(axis: int, value: Any) -> int:
    """Of one number for both axes, or one for each."""
    return int(value if isinstance(value, int) else value[axis])


# -- which of a net's layers ----------------------------------------------------------------------
@dataclass(frozen=True)
class _Call:
    """One call of a layer without children."""

    name: str
    module: nn.Module
    given: Any
    out: Any


@torch.no_grad()
def find_chain(net: nn.Module, x: Tensor) -> Chain | None:
    """The layers with the most convolutions that can be passed backwards to the image.

    Or to something of an image's shape, as a spatial transformer makes it.

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
        if not isinstance(call.given, Tensor) or not _goes_back(call.module):
            continue
        if before is not None:
            way_before = ways.get(before)
        else:
            way_before = [] if call.given.shape == x.shape else None
        if way_before is None:
            continue
        way = [*way_before, call]
        ways[place] = way
        fewest = max(1, _count_convolutions(best))
        if _count_convolutions(way) >= fewest:
            best = way
    if not best:
        return None
    return Chain(
        names=tuple(call.name for call in best),
        layers=tuple(call.module for call in best),
    )


def _record_calls(net: nn.Module, x: Tensor) -> list[_Call]:
    """Run a net, and note every call of a layer without children, in order."""
    calls: list[_Call] = []

    def noting(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note_call(
            module: nn.Module,
            inputs: Any,
            output: Any,
        ) -> None:
            calls.append(
                _Call(
                    name,
                    module,
                    inputs[0],
                    output,
                )
            )

        return note_call

    hooks = [module.register_forward_hook(noting(name)) for name, module in leaf_layers(net)]
    run_hooked(net, x, hooks)
    return calls


def _count_convolutions(way: list[_Call]) -> int:
    return sum(isinstance(call.module, nn.Conv2d) for call in way)


def _goes_back(module: nn.Module) -> bool:
    """Whether :func:`_pass` knows how a signal passes this layer backwards."""
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if isinstance(module, nn.MaxPool2d):
        return not module.ceil_mode or module.padding == 0
    if isinstance(module, (nn.AvgPool2d, nn.BatchNorm2d, *RECTIFIED, *IDLE)):
        return True
    return hasattr(module, "divisor")


# -- there and back -------------------------------------------------------------------------------
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
    way_back: list[Undo] = []
    for module in list(layers)[: layer + 1]:
        passed = _pass(module, x)
        x = passed.out
        way_back.append(passed.undo)
    wanted = [channels] * len(x) if isinstance(channels, int) else list(channels)
    last = x.shape[1] - 1
    for channel in wanted:
        if not 0 <= channel <= last:
            raise ValueError(f"channel: expected 0 to {last}, got {channel}")
    signal = _keep_strongest(x, wanted)
    for undo in reversed(way_back):
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


@dataclass(frozen=True)
class _Passed:
    """The output of a layer, and how a signal passes it backwards."""

    out: Tensor
    undo: Undo


def _pass(module: nn.Module, x: Tensor) -> _Passed:
    """Run a layer, and note what its way back needs.

    Raises:
        ValueError: There is no way back.
    """
    if isinstance(module, nn.Conv2d):
        return _pass_convolution(module, x)
    if isinstance(module, nn.MaxPool2d):
        return _pass_max_pool(module, x)
    if isinstance(module, nn.AvgPool2d):
        return _Passed(module(x), lambda signal: _transpose(module, x, signal))
    if isinstance(module, nn.BatchNorm2d):
        return _pass_batch_norm(module, x)
    if isinstance(module, RECTIFIED):
        # one that works in place would change what lies before it
        return _Passed(module(x.clone()), F.relu)
    if isinstance(module, IDLE):
        return _Passed(x, lambda signal: signal)
    if hasattr(module, "divisor"):  # local response normalisation
        divisor: Tensor = module.divisor(x)  # type: ignore[operator]
        return _Passed(x / divisor, lambda signal: signal / divisor)
    kind = type(module).__name__
    raise ValueError(
        f"layers: expected convolutions, pools, activations and normalisations, got {kind}"
    )


def _pass_convolution(module: nn.Conv2d, x: Tensor) -> _Passed:
    def undo(signal: Tensor) -> Tensor:
        return conv2d_input(
            x.shape,
            module.weight,
            signal,
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
        )

    return _Passed(module(x), undo)


def _pass_max_pool(module: nn.MaxPool2d, x: Tensor) -> _Passed:
    pooled, places = F.max_pool2d(
        x,
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.ceil_mode,
        return_indices=True,
    )
    switches = places.flatten(2)
    empty = torch.zeros_like(x).flatten(2)

    def undo(signal: Tensor) -> Tensor:
        placed = empty.scatter_add(2, switches, signal.flatten(2))
        return placed.view(x.shape)

    return _Passed(pooled, undo)


def _pass_batch_norm(module: nn.BatchNorm2d, x: Tensor) -> _Passed:
    assert module.running_var is not None
    scale = (module.running_var + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight
    scale_of_channel = scale[:, None, None]
    return _Passed(module(x), lambda signal: signal * scale_of_channel)


def _transpose(
    module: nn.Module,
    x: Tensor,
    signal: Tensor,
) -> Tensor:
    """A linear layer backwards."""
    with torch.enable_grad():
        given = torch.zeros_like(x, requires_grad=True)
        out = module(given)
        (found,) = torch.autograd.grad(out, given, signal)
    return found
