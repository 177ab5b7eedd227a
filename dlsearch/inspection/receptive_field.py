"""Receptive fields: how many pixels of the image an output of each layer can depend on.

Found by arithmetic on the operations that torch runs, so that branches, sums and whatever a
``forward`` does without modules are followed too: a window of `k` positions widens the field by `k
− 1` of its input's steps, its stride multiplies the steps (Araujo, Norris and Sim, "Computing
receptive fields of convolutional neural networks", 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True)
class Sides:
    """Height and width of maps."""

    height: int
    width: int


def _sides_of(maps: Tensor) -> Sides:
    """Of (…, H, W)."""
    height, width = maps.shape[-2:]
    return Sides(height, width)


@dataclass(frozen=True)
class Window:
    """What an operation reads for one output, along one side.

    Args:
        positions: Inputs that an output sees.
        dilation: How far apart these are.
        stride: By how many inputs neighbouring outputs are apart.
    """

    positions: float
    dilation: float = 1
    stride: float = 1


@dataclass(frozen=True)
class Windows:
    """The windows of an operation on maps."""

    height: Window
    width: Window


@dataclass(frozen=True)
class Extent:
    """What one element of a tensor sees along one side of the image, in pixels.

    Args:
        size: Of the window around the element's own place.
        jump: Between the windows of neighbouring positions; 0 where a tensor has no positions any
            more.
        whole: Of the union of all positions' windows, which a fully connected layer sees.
        least: What every position sees, wherever it lies: the union of what came together before.
    """

    size: float
    jump: float
    whole: float
    least: float = 0

    @property
    def seen(self) -> int:
        """Whole pixels that an element depends on."""
        return round(max(self.size, self.least))

    def through(self, window: Window, outputs: int) -> Extent:
        """Of an output of a window that is moved to so many places."""
        size = self.size + (window.positions - 1) * window.dilation * self.jump
        jump = self.jump * window.stride
        whole = self.whole
        if jump:
            # All outputs together see no more than all inputs did, whatever the padding adds.
            seen_by_all = size + (outputs - 1) * jump
            whole = min(whole, seen_by_all)
        return Extent(
            size,
            jump,
            whole,
            self.least,
        )

    def gathered(self) -> Extent:
        """Of what depends on all positions."""
        return Extent(
            size=1,
            jump=0,
            whole=self.whole,
            least=max(self.whole, self.least),
        )

    def flat(self) -> Extent:
        """Of the same elements where their places are lost."""
        return replace(self, jump=0)


@dataclass(frozen=True)
class Field:
    """What one element of a tensor sees of the image."""

    height: Extent
    width: Extent

    def through(self, windows: Windows, sides: Sides) -> Field:
        """Of the output, with these sides, of windows that are moved over it."""
        return Field(
            height=self.height.through(windows.height, sides.height),
            width=self.width.through(windows.width, sides.width),
        )

    def gathered(self) -> Field:
        """Of what depends on all positions."""
        return Field(self.height.gathered(), self.width.gathered())

    def flat(self) -> Field:
        """Of the same elements where their places are lost."""
        return Field(self.height.flat(), self.width.flat())


def largest(fields: Sequence[Field]) -> Field:
    """Of what depends on several tensors: the largest, as along the longest branch."""
    return Field(
        height=_largest_extent([field.height for field in fields]),
        width=_largest_extent([field.width for field in fields]),
    )


def _largest_extent(extents: Sequence[Extent]) -> Extent:
    return Extent(
        size=max(extent.size for extent in extents),
        jump=max(extent.jump for extent in extents),
        whole=max(extent.whole for extent in extents),
        least=max(extent.least for extent in extents),
    )


class FieldTracer(TorchDispatchMode):
    """While it is entered, follows the fields of all that is computed from an image.

    Args:
        image: (B, C, H, W).
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        sides = _sides_of(image)
        self._fields: Any = WeakTensorKeyDictionary()
        self._fields[image] = Field(
            height=Extent(size=1, jump=1, whole=sides.height),
            width=Extent(size=1, jump=1, whole=sides.width),
        )

    def size(self, value: Any) -> list[int] | None:
        """Height and width of the field of the first tensor in `value`.

        None where it depends on no image.

        A window that reaches over the borders counts what is padded too; where all positions came
        together the field is the image at most.
        """
        known = self._find_known(value)
        if not known:
            return None
        field = self._fields[known[0]]
        return [field.height.seen, field.width.seen]

    def _find_known(self, value: Any) -> list[Tensor]:
        """Tensors in `value` whose fields are known."""
        return [each for each in _tensors_in(value) if each in self._fields]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """Run an operation, and note the fields of what it gives."""
        result = func(*args, **(kwargs or {}))
        inputs = self._find_known((args, kwargs))
        if not inputs:
            return result
        operation = _Operation(
            name=_plain_name(func),
            args=args,
            inputs=inputs,
            fields=[self._fields[each] for each in inputs],
        )
        for out in _tensors_in(result):
            self._fields[out] = operation.field_of(out)
        return result


def _tensors_in(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _plain_name(func: Any) -> str:
    """``relu`` of ``aten::relu_.default``."""
    without_namespace = func.name().removeprefix("aten::")
    without_overload = without_namespace.partition(".")[0]
    return without_overload.strip("_")


@dataclass(frozen=True)
class _Operation:
    """One call of an operation.

    Args:
        name: Without namespace, overload and what says that it works in place.
        args: What it was called with.
        inputs: Those of its tensors whose fields are known, one at least.
        fields: Of these.
    """

    name: str
    args: Any
    inputs: list[Tensor]
    fields: list[Field]

    def field_of(self, out: Tensor) -> Field:
        """The field of one of its outputs."""
        first = self.fields[0]
        before = self.inputs[0]
        if before.dim() == 4 and out.dim() == 4:
            if self.name in _WINDOWS:
                windows = _WINDOWS[self.name](self.args, before, out)
                return first.through(windows, _sides_of(out))
            if self.name.endswith(("_pad2d", "pad_nd")):
                return first
            if self.name == "slice":
                return first.through(_slice_windows(self.args), _sides_of(out))
        together = largest(self.fields)
        if self.name in _GATHERING:
            return together.gathered()
        if self._keeps_places(out):
            return together
        if self.name in _REDUCING:
            return together.gathered()
        return together.flat()

    def _keeps_places(self, out: Tensor) -> bool:
        """Whether the positions of a map are still distinct, and in the same places."""
        largest_input = max(self.inputs, key=Tensor.numel)
        if out.dim() != 4 or largest_input.dim() != 4:
            return False
        return _sides_of(out) == _sides_of(largest_input)


# -- the windows of operations --------------------------------------------------------------------
def _slice_windows(args: Any) -> Windows:
    """A slice of (B, C, H, W) takes every `step`-th row or column."""
    axis = (args[1] if len(args) > 1 else 0) % 4
    step = args[4] if len(args) > 4 else 1
    every_step = Window(1, 1, step)
    every_one = Window(1)
    return Windows(
        height=every_step if axis == 2 else every_one,
        width=every_step if axis == 3 else every_one,
    )


def _convolution_windows(
    args: Any,
    before: Tensor,
    out: Tensor,
) -> Windows:
    weight = args[1]
    strides = args[3]
    dilations = args[5]
    transposed = args[6]

    def along(axis: int) -> Window:
        kernel = weight.shape[2 + axis]
        stride = _for_axis(strides, axis)
        dilation = _for_axis(dilations, axis)
        if transposed:
            positions = -(-kernel // stride)
            return Window(positions, dilation, 1 / stride)
        return Window(kernel, dilation, stride)

    return Windows(along(0), along(1))


def _for_axis(values: Any, axis: int) -> Any:
    """Of one value for both sides, or one for each."""
    return values[axis] if len(values) > 1 else values[0]


def _pool_windows(
    args: Any,
    before: Tensor,
    out: Tensor,
) -> Windows:
    kernel = args[1]
    given = args[2] if len(args) > 2 else None
    stride = given or kernel
    return Windows(
        height=Window(kernel[0], 1, stride[0]),
        width=Window(kernel[-1], 1, stride[-1]),
    )


def _resize_windows(
    args: Any,
    before: Tensor,
    out: Tensor,
) -> Windows:
    """Adaptive pools and interpolation: as many positions as one output can touch."""
    inputs = _sides_of(before)
    outputs = _sides_of(out)
    return Windows(
        height=_resize_window(inputs.height, outputs.height),
        width=_resize_window(inputs.width, outputs.width),
    )


def _resize_window(inputs: int, outputs: int) -> Window:
    if inputs % outputs == 0:
        pooled = inputs // outputs
        return Window(pooled, 1, pooled)
    touched = -(-inputs // outputs) + 1 if inputs > outputs else 2
    return Window(touched, 1, inputs / outputs)


def _nearest_windows(
    args: Any,
    before: Tensor,
    out: Tensor,
) -> Windows:
    inputs = _sides_of(before)
    outputs = _sides_of(out)
    return Windows(
        height=Window(1, 1, inputs.height / outputs.height),
        width=Window(1, 1, inputs.width / outputs.width),
    )


_WINDOWS: dict[str, Callable[[Any, Tensor, Tensor], Windows]] = {
    "convolution": _convolution_windows,
    "max_pool2d_with_indices": _pool_windows,
    "avg_pool2d": _pool_windows,
    "adaptive_avg_pool2d": _resize_windows,
    "adaptive_max_pool2d": _resize_windows,
    "upsample_bilinear2d": _resize_windows,
    "upsample_nearest2d": _nearest_windows,
}
#: operations whose outputs depend on all positions of their inputs, or on any of them
_GATHERING = {
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "gather",
    "index",
    "index_select",
    "grid_sampler_2d",
    "scaled_dot_product_flash_attention_for_cpu",
    "scaled_dot_product_flash_attention",
    "scaled_dot_product_efficient_attention",
    "scaled_dot_product_attention",
}
_REDUCING = {
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "var_mean",
    "logsumexp",
    "linalg_vector_norm",
}
