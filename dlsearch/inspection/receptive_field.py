"""Receptive fields: how many pixels of the image an output of each layer can depend on.

Found by arithmetic on the operations that torch runs, so that branches, sums and whatever a
``forward`` does without modules are followed too: a window of `k` positions widens the field by `k
− 1` of its input's steps, its stride multiplies the steps (Araujo, Norris and Sim, "Computing
receptive fields of convolutional neural networks", 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

Pair = tuple[float, float]


class Window(NamedTuple):
    """Along one side: positions that an output sees, how far apart they are, by how many inputs outputs are apart."""

    positions: float
    dilation: float = 1
    stride: float = 1


@dataclass(frozen=True)
class Field:
    """What one element of a tensor sees, height before width, in pixels of the image.

    Args:
        size: Of the window around the element's own place.
        jump: Between the windows of neighbouring positions; 0 where a tensor has no positions any
            more.
        whole: Of the union of all positions' windows, which a fully connected layer sees.
        least: What every position sees, wherever it lies: the union of what came together before.
    """

    size: Pair
    jump: Pair
    whole: Pair
    least: Pair = (0, 0)

    def through(self, windows: tuple[Window, Window], sides: tuple[int, int]) -> Field:
        """Of the output, (…, *sides), of windows that are moved over it."""
        size = _on_both_sides(
            lambda i: self.size[i] + (windows[i].positions - 1) * windows[i].dilation * self.jump[i]
        )
        jump = _on_both_sides(lambda i: self.jump[i] * windows[i].stride)
        # All outputs together see no more than all inputs did, whatever the padding adds to each.
        whole = _on_both_sides(
            lambda i: (
                min(self.whole[i], size[i] + (sides[i] - 1) * jump[i]) if jump[i] else self.whole[i]
            )
        )
        return Field(size, jump, whole, self.least)

    def gathered(self) -> Field:
        """Of what depends on all positions."""
        return Field(
            (1, 1), (0, 0), self.whole, _on_both_sides(lambda i: max(self.whole[i], self.least[i]))
        )

    def flat(self) -> Field:
        """Of the same elements where their places are lost."""
        return Field(self.size, (0, 0), self.whole, self.least)


def largest(fields: list[Field]) -> Field:
    """Of what depends on several tensors: the largest, as along the longest branch."""
    return Field(
        *(
            _on_both_sides(lambda i, key=key: max(getattr(f, key)[i] for f in fields))  # type: ignore[misc]
            for key in vars(fields[0])
        )
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
        self._fields[image] = Field((1, 1), (1, 1), _on_both_sides(lambda i: sides[i]))

    def size(self, value: Any) -> list[int] | None:
        """Height and width of the field of the first tensor in `value`.

        None where it depends on no image.

        A window that reaches over the borders counts what is padded too; where all positions came
        together the field is the image at most.
        """
        found = next(
            (
                self._fields[t]
                for t in tree_leaves(value)
                if isinstance(t, Tensor) and t in self._fields
            ),
            None,
        )
        if found is None:
            return None
        return [round(max(found.size[i], found.least[i])) for i in (0, 1)]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """Run an operation, and note the fields of what it gives."""
        result = func(*args, **(kwargs or {}))
        known = [
            t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t in self._fields
        ]
        if known:
            name = func.name().removeprefix("aten::").partition(".")[0].rstrip("_").lstrip("_")
            made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
            fields = [self._fields[t] for t in known]
            for out in made:
                self._fields[out] = _field_after(name, args, fields, known, out)
        return result


def _field_after(
    name: str,
    args: Any,
    fields: list[Field],
    inputs: list[Tensor],
    out: Tensor,
) -> Field:
    """The field of an output of the operation `name`."""
    first = fields[0]
    before = inputs[0]
    if name in _WINDOWS and before.dim() == 4 and out.dim() == 4:
        return first.through(_WINDOWS[name](args, before, out), _sides_of(out))
    if name.endswith(("_pad2d", "pad_nd")) and before.dim() == out.dim() == 4:
        return first
    if name == "slice" and before.dim() == out.dim() == 4:
        return first.through(_slice_windows(args), _sides_of(out))
    together = largest(fields)
    if name in _GATHERING:
        return together.gathered()
    if _keeps_places(inputs, out):
        return together
    return together.gathered() if name in _REDUCING else together.flat()


def _slice_windows(args: Any) -> tuple[Window, Window]:
    """A slice of (B, C, H, W) takes every `step`-th row or column."""
    axis = (args[1] if len(args) > 1 else 0) % 4
    step = args[4] if len(args) > 4 else 1
    return Window(1, 1, step if axis == 2 else 1), Window(1, 1, step if axis == 3 else 1)


def _keeps_places(inputs: list[Tensor], out: Tensor) -> bool:
    """Whether the positions of a map are still distinct, and in the same places."""
    largest_input = max(inputs, key=lambda t: t.numel())
    return (
        out.dim() == 4 and largest_input.dim() == 4 and _sides_of(out) == _sides_of(largest_input)
    )


def _convolution_windows(args: Any, before: Tensor, out: Tensor) -> tuple[Window, Window]:
    weight = args[1]
    stride = args[3]
    dilation = args[5]
    transposed = args[6]

    def along(i: int) -> Window:
        k = weight.shape[2 + i]
        s = stride[i if len(stride) > 1 else 0]
        d = dilation[i if len(dilation) > 1 else 0]
        return Window(-(-k // s), d, 1 / s) if transposed else Window(k, d, s)

    return along(0), along(1)


def _pool_windows(args: Any, before: Tensor, out: Tensor) -> tuple[Window, Window]:
    kernel = args[1]
    stride = args[2] if len(args) > 2 and args[2] else args[1]
    return Window(kernel[0], 1, stride[0]), Window(kernel[-1], 1, stride[-1])


def _resize_windows(args: Any, before: Tensor, out: Tensor) -> tuple[Window, Window]:
    """Adaptive pools and interpolation: as many positions as one output can touch."""

    def along(inputs: int, outputs: int) -> Window:
        if inputs % outputs == 0:
            return Window(inputs // outputs, 1, inputs // outputs)
        return Window(-(-inputs // outputs) + 1 if inputs > outputs else 2, 1, inputs / outputs)

    first, second = (along(a, b) for a, b in zip(_sides_of(before), _sides_of(out), strict=True))
    return first, second


def _nearest_windows(args: Any, before: Tensor, out: Tensor) -> tuple[Window, Window]:
    first, second = (
        Window(1, 1, a / b) for a, b in zip(_sides_of(before), _sides_of(out), strict=True)
    )
    return first, second


_WINDOWS: dict[str, Callable[[Any, Tensor, Tensor], tuple[Window, Window]]] = {
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


def _sides_of(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _on_both_sides(of: Callable[[int], float]) -> Pair:
    return of(0), of(1)
