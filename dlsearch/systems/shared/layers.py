"""Activations, and the initial weights: what every net lets a config choose."""

from __future__ import annotations

from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class Step(nn.Module):
    """The threshold unit: 1 where x > 0, else 0 (Rosenblatt, 1958).

    Its derivative is 0, so gradients take the straight-through estimate (Bengio et al., 2013): they
    pass unchanged between −1 and 1, and not elsewhere.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        through = x.clamp(-1, 1)
        zero = through - through.detach()  # exactly, with the gradient of `through`
        is_positive = x > 0
        return is_positive.to(x.dtype) + zero


class Maxout(nn.Module):
    """The largest of `pieces` linear maps (Goodfellow et al., 2013), max(w1·x + b1, w2·x + b2).

    The layer before it makes all pieces: give it ``expansion("maxout")`` times the width.

    Args:
        pieces: Number of maps.
    """

    def __init__(self, pieces: int = 2) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, pieces·C, ...) to (B, C, ...)."""
        return reduce(torch.maximum, x.chunk(self.pieces, dim=1))


class LocalResponseNorm(nn.Module):
    """Divide each activity by those of its neighbours among the channels.

    After Krizhevsky et al. (2012), section 3.3.

    ``b_i = a_i / (k + alpha · Σ a_j²)^beta`` over the `size` channels around i. torch's own layer
    divides `alpha` by `size`, and the average pooling that it is made of has no deterministic
    gradient on CUDA; sums of slices have.

    Args:
        size: Neighbours, the channel itself among them; an odd number.
        alpha: Of the sum of squares.
        beta: Exponent.
        k: Where no neighbour is active, the divisor is k^beta.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
    ) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), same shape."""
        return x / self.divisor(x)

    def divisor(self, x: Tensor) -> Tensor:
        """What each activity is divided by."""
        half = self.size // 2
        squares = F.pad(x.square(), (0, 0, 0, 0, half, half))
        channels = x.shape[1]
        total: Tensor | int = 0
        for shift in range(self.size):
            total = total + squares[:, shift : shift + channels]
        base = self.k + self.alpha * total
        return base**self.beta

    def extra_repr(self) -> str:
        """Its constants."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "step": Step,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.01),
    "leaky_relu_0.01": partial(nn.LeakyReLU, 0.01),
    "leaky_relu_0.1": partial(nn.LeakyReLU, 0.1),
    "maxout": Maxout,
    "elu": nn.ELU,
}

#: gain of each for Xavier's and Kaiming's rules: torch.nn.init.calculate_gain knows these
_GAINS: dict[str, tuple[str, float | None]] = {
    "sigmoid": ("sigmoid", None),
    "tanh": ("tanh", None),
    "relu": ("relu", None),
    "leaky_relu": ("leaky_relu", 0.01),
    "leaky_relu_0.01": ("leaky_relu", 0.01),
    "leaky_relu_0.1": ("leaky_relu", 0.1),
    "elu": ("relu", None),
}

INITIALISATIONS = ("default", "xavier", "kaiming", "normal")


def activation(name: str) -> nn.Module:
    """The activation called `name`.

    Raises:
        ValueError: There is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


def expansion(name: str) -> int:
    """How many numbers the activation `name` makes one of.

    It is the factor on the width of the layer before it.
    """
    return 2 if name == "maxout" else 1


def initialise(net: nn.Module, scheme: str, activation: str = "relu") -> None:
    """Draw the initial weights of all linear and convolutional layers; biases become 0.

    Args:
        net: Changed in place.
        scheme: ``default`` leaves PyTorch's (uniform by fan-in); ``xavier`` (Glorot and Bengio,
            2010), uniform; ``kaiming`` (He et al., 2015), normal; ``normal``, of deviation 0.01 as
            AlexNet's.
        activation: What follows the layers, for the gain.

    Raises:
        ValueError: There is no such scheme.
    """
    if scheme not in INITIALISATIONS:
        raise ValueError(f"init: expected one of {', '.join(INITIALISATIONS)}, got {scheme!r}")
    if scheme == "default":
        return
    kind, slope = _GAINS.get(activation, ("linear", None))
    # the stub knows no variable
    gain = nn.init.calculate_gain(kind, slope)  # type: ignore[arg-type]
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            _draw_weights(module.weight, scheme, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _draw_weights(weight: Tensor, scheme: str, gain: float) -> None:
    if scheme == "xavier":
        nn.init.xavier_uniform_(weight, gain)
    elif scheme == "kaiming":
        fan_in = weight[0].numel()
        nn.init.normal_(weight, 0.0, gain / fan_in**0.5)
    else:
        nn.init.normal_(weight, 0.0, 0.01)


def check_dropout(dropout: float) -> float:
    """A probability below 1.

    Raises:
        ValueError: It is none.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected 0 to 1 (1 excluded), got {dropout}")
    return dropout


def check_outputs(num_classes: int) -> int:
    """A positive number of outputs.

    Raises:
        ValueError: It is none.
    """
    if not _is_positive_integer(num_classes):
        raise ValueError(
            f"num_classes: expected a positive integer, got {num_classes!r}"
            " (hint: 1 for a regression)"
        )
    return num_classes


def check_image(in_shape: Sequence[int], smallest: int) -> tuple[int, int, int]:
    """A shape (channels, height, width) whose sides have at least `smallest` pixels.

    Raises:
        ValueError: It is none.
    """
    shape = tuple(in_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"in_shape: expected (channels, height, width), got {list(shape)}")
    channels, height, width = shape
    if min(height, width) < smallest:
        raise ValueError(
            f"in_shape: expected sides of {smallest} pixels or more, got {height}×{width}"
        )
    return channels, height, width


def check_positive(**arguments: int) -> None:
    """Positive integers.

    Raises:
        ValueError: One is none; its name is the keyword.
    """
    for name, value in arguments.items():
        if not _is_positive_integer(value):
            raise ValueError(f"{name}: expected a positive integer, got {value!r}")


def _is_positive_integer(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return value >= 1


def scaled(channels: Sequence[int], width: float) -> list[int]:
    """Numbers of channels times `width`, at least 1 each.

    Raises:
        ValueError: `width` is not positive.
    """
    is_number = isinstance(width, (int, float)) and not isinstance(width, bool)
    if not is_number or width <= 0:
        raise ValueError(f"width: expected a positive factor, got {width!r}")
    return [max(1, round(c * width)) for c in channels]


STEMS = ("auto", "paper", "small")


def small_stem(stem: str, in_shape: Sequence[int], smallest: int) -> bool:
    """Whether the first layers are those for small images.

    Args:
        stem: ``paper`` as documented, ``small``, or ``auto``: small where a side is below
            `smallest`.
        in_shape: (channels, height, width).
        smallest: Pixels that the documented first layers leave something of.

    Raises:
        ValueError: There is no such stem, or the images are too small for the paper's.
    """
    if stem not in STEMS:
        raise ValueError(f"stem: expected one of {', '.join(STEMS)}, got {stem!r}")
    side = min(in_shape[1:])
    if stem == "paper" and side < smallest:
        raise ValueError(
            f"stem: expected small for sides below {smallest} pixels, got paper for {side}"
        )
    return stem == "small" or side < smallest


def output_side(layer: nn.Module, side: int, axis: int = 0) -> int:
    """``(N + 2·pad − F) / stride + 1`` of a convolution or a pool, rounded as the layer does.

    Others keep the side.
    """
    if not isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return side
    kernel = _along(layer.kernel_size, axis)
    stride = _along(layer.stride, axis)
    pad = _along(layer.padding, axis)
    return (side + 2 * pad - kernel) // stride + 1


def _along(setting: Any, axis: int) -> int:
    """A setting of a layer that is one number, or one for each axis."""
    return setting if isinstance(setting, int) else int(setting[axis])


def output_sides(layers: Iterable[nn.Module], sides: Sequence[int]) -> list[int]:
    """Height and width after convolutions and pools, one after another."""
    found = list(sides)
    for layer in layers:
        found = [
            output_side(
                layer,
                side,
                axis,
            )
            for axis, side in enumerate(found)
        ]
    return found


def widened(conv: nn.Conv2d, outputs: int) -> nn.Conv2d:
    """A convolution like `conv` with `outputs` output channels.

    Its weights are drawn as He et al. (2015) do.
    """
    made = nn.Conv2d(
        conv.in_channels,
        outputs,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made
