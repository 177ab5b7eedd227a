"""Fixed kernels, and a classifier on what they see.

The kernels are identity, blur, sharpen, edge detectors and Gabor's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlsearch.systems.shared.layers import activation as make_activation
from dlsearch.systems.shared.layers import (
    check_dropout,
    check_image,
    check_outputs,
    check_positive,
    expansion,
    initialise,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: by name; rows from top to bottom
KERNELS: dict[str, list[list[float]]] = {
    "identity": [
        [0, 0, 0],
        [0, 1, 0],
        [0, 0, 0],
    ],
    "box_blur": [
        [1 / 9, 1 / 9, 1 / 9],
        [1 / 9, 1 / 9, 1 / 9],
        [1 / 9, 1 / 9, 1 / 9],
    ],
    "gaussian_blur": [
        [1 / 16, 2 / 16, 1 / 16],
        [2 / 16, 4 / 16, 2 / 16],
        [1 / 16, 2 / 16, 1 / 16],
    ],
    "sharpen": [
        [0, -1, 0],
        [-1, 5, -1],
        [0, -1, 0],
    ],
    "edges": [
        [-1, -1, -1],
        [-1, 8, -1],
        [-1, -1, -1],
    ],
    "laplace": [
        [0, 1, 0],
        [1, -4, 1],
        [0, 1, 0],
    ],
    "sobel_x": [
        [-1, 0, 1],
        [-2, 0, 2],
        [-1, 0, 1],
    ],
    "sobel_y": [
        [-1, -2, -1],
        [0, 0, 0],
        [1, 2, 1],
    ],
    "prewitt_x": [
        [-1, 0, 1],
        [-1, 0, 1],
        [-1, 0, 1],
    ],
    "prewitt_y": [
        [-1, -1, -1],
        [0, 0, 0],
        [1, 1, 1],
    ],
}


def kernel(name: str) -> Tensor:
    """The 3×3 kernel called `name`.

    Raises:
        ValueError: There is none.
    """
    if name not in KERNELS:
        raise ValueError(f"kernels: expected some of {', '.join(KERNELS)}, got {name!r}")
    return torch.tensor(KERNELS[name])


def gabor(
    size: int,
    wavelength: float,
    angle: float,
    phase: float = 0.0,
    sigma: float | None = None,
    aspect: float = 0.5,
) -> Tensor:
    """Gabor's kernel, a wave under a bell (Daugman, 1985).

    ``exp(−(x'² + aspect² · y'²) / (2 sigma²)) · cos(2π x' / wavelength + phase)``, x' and y' turned
    by `angle`.

    Args:
        size: Of each side, odd.
        wavelength: In pixels.
        angle: Of the wave's direction, in radians; y points down.
        phase: In radians; 0 is even, π/2 is odd.
        sigma: Deviation of the bell in pixels; 0.56 wavelengths (a bandwidth of one octave) by
            default.
        aspect: How much longer the bell is along the stripes, as its inverse.

    Returns:
        (size, size).
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: expected an odd number, got {size}")
    sigma = 0.56 * wavelength if sigma is None else sigma
    at = torch.arange(size, dtype=torch.float32) - size // 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    distance = along**2 + aspect**2 * across**2
    bell = torch.exp(-distance / (2 * sigma**2))
    wave = torch.cos(2 * math.pi * along / wavelength + phase)
    return bell * wave


def gabor_bank(size: int, angles: int, wavelengths: Sequence[float]) -> Tensor:
    """Even and odd kernels of every wavelength and angle.

    Args:
        size: Of each side, odd.
        angles: How many, evenly over half a turn.
        wavelengths: In pixels.

    Returns:
        (2 · angles · wavelengths, size, size).
    """
    kernels: list[Tensor] = []
    for wavelength in wavelengths:
        for turn in range(angles):
            angle = math.pi * turn / angles
            even = gabor(size, wavelength, angle)
            odd = gabor(size, wavelength, angle, phase=math.pi / 2)
            kernels += [even, odd]
    return torch.stack(kernels)


def gabor_names(angles: int, wavelengths: Sequence[float]) -> list[str]:
    """What the kernels of :func:`gabor_bank` are called, in its order."""
    names: list[str] = []
    for wavelength in wavelengths:
        for turn in range(angles):
            degrees = 180 * turn / angles
            name = f"gabor {wavelength:g} px {degrees:g}°"
            names += [f"{name} even", f"{name} odd"]
    return names


def filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each channel with each kernel.

    Pixels beyond a border are those of the border, so that an edge of the image is none.

    Args:
        images: (B, C, H, W).
        kernels: (K, h, w), odd sides.

    Returns:
        (B, C · K, H, W), the kernels of the first channel first.
    """
    channels = images.shape[1]
    height, width = kernels.shape[1:]
    left = width // 2
    top = height // 2
    padded = F.pad(images, (left, left, top, top), mode="replicate")
    weight = kernels.to(images).repeat(channels, 1, 1)  # (C · K, h, w)
    return F.conv2d(padded, weight[:, None], groups=channels)


class FixedKernels(nn.Module):
    """:func:`filtered` as a layer.

    Args:
        bank: (K, h, w), odd sides.
        names: Of the kernels.
    """

    bank: Tensor

    def __init__(self, bank: Tensor, names: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("bank", bank, persistent=False)
        self.names = list(names)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, C · K, H, W)."""
        return filtered(x, self.bank)

    def extra_repr(self) -> str:
        """How many there are."""
        return f"{len(self.names)} of {self.bank.shape[1]}×{self.bank.shape[2]}"


class KernelNet(nn.Module):
    """Features made by hand, and a linear classifier.

    The features are a bank of fixed kernels, a rectification and an average pool.

    Args:
        in_shape: (channels, height, width).
        num_classes: Number of outputs.
        kernels: Names in :data:`KERNELS`.
        angles: Directions of Gabor's kernels; 0 leaves them out.
        size: Sides of Gabor's kernels, odd.
        wavelengths: Of Gabor's kernels, in pixels.
        cells: Sides of the grid that the pool leaves.
        activation: After the kernels.
        dropout: Of the features.
        init: Initial weights of the classifier: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        kernels: Sequence[str] = ("identity", "sobel_x", "sobel_y", "laplace"),
        angles: int = 8,
        size: int = 5,
        wavelengths: Sequence[float] = (4.0,),
        cells: int = 7,
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, *sides = check_image(in_shape, smallest=4)
        check_positive(cells=cells)
        bank = [kernel(name) for name in kernels]
        margin = size // 2 - 1  # so that all have the same sides
        if margin > 0:
            bank = [F.pad(each, (margin,) * 4) for each in bank]
        names = list(kernels)
        if angles:
            bank += list(gabor_bank(size, angles, wavelengths))
            names += gabor_names(angles, wavelengths)
        if not bank:
            raise ValueError("kernels: expected at least one, or angles above 0")
        maps = channels * len(bank)
        if maps % expansion(activation):
            raise ValueError(
                f"activation: expected an even number of feature maps for maxout, got {maps}"
            )
        self.kernels = FixedKernels(torch.stack(bank), names)
        self.activation = make_activation(activation)
        rows, columns = (max(1, side // cells) for side in sides)
        self.pool = nn.AvgPool2d((rows, columns))
        features = maps // expansion(activation)
        height, width = sides
        positions = (height // rows) * (width // columns)
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.output = nn.Linear(features * positions, check_outputs(num_classes))
        initialise(self, init, activation)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        maps = self.pool(self.activation(self.kernels(x)))
        return self.output(self.dropout(maps.flatten(1)))
