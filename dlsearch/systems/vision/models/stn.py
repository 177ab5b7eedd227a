"""Spatial transformer networks (Jaderberg, Simonyan, Zisserman and Kavukcuoglu, 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
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


def affine_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Where each output pixel comes from: equation 1 of the paper.

    Args:
        theta: (B, 2, 3) affine maps from output to input coordinates; both sides are [−1, 1], from
            edge to edge.
        height: Of the output.
        width: Of the output.

    Returns:
        (B, height, width, 2), x before y.
    """
    y = _centres(height, theta)
    x = _centres(width, theta)
    ys, xs = torch.meshgrid(y, x, indexing="ij")
    ones = torch.ones_like(xs)
    points = torch.stack([xs, ys, ones], dim=-1)
    points = points[..., None, :]  # (height, width, 1, 3)
    # no matrix product: autocast would round it to half precision
    products = points * theta[:, None, None]
    return products.sum(-1)


def _centres(side: int, like: Tensor) -> Tensor:
    """Where the centres of pixels lie, in [−1, 1] from edge to edge: (side,)."""
    pixels = torch.arange(side, device=like.device, dtype=like.dtype)
    return (pixels + 0.5) * 2 / side - 1


OUTSIDE = ("zero", "border")


def sample(images: Tensor, grid: Tensor, outside: str = "zero") -> Tensor:
    """Bilinear sampling: equation 5 of the paper.

    As ``torch.nn.functional.grid_sample`` without aligned corners, whose gradient is not
    deterministic on CUDA.

    Args:
        images: (B, C, H, W).
        grid: (B, h, w, 2), x before y, [−1, 1] from edge to edge.
        outside: What lies outside of the image: zero, or border, the nearest pixel of it.

    Returns:
        (B, C, h, w).
    """
    height, width = images.shape[-2:]
    # pixels, (B, h, w)
    x = ((grid[..., 0] + 1) * width - 1) / 2
    y = ((grid[..., 1] + 1) * height - 1) / 2
    if outside == "border":
        x = x.clamp(0, width - 1)
        y = y.clamp(0, height - 1)
    left = x.floor()
    top = y.floor()
    flat = images.flatten(2)  # (B, C, H·W)
    total: Tensor | int = 0
    # each of the four pixels around a point, weighed by how near it is
    for columns, of_x in ((left, left + 1 - x), (left + 1, x - left)):
        for rows, of_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside_x = (columns >= 0) & (columns < width)
            inside_y = (rows >= 0) & (rows < height)
            nearest_row = rows.clamp(0, height - 1)
            nearest_column = columns.clamp(0, width - 1)
            index = nearest_row * width + nearest_column
            # a diverged net gives NaN by its weights, not an index out of range
            index = index.nan_to_num(0.0).long()
            of_channels = index.flatten(1)[:, None].expand(-1, flat.shape[1], -1)
            seen = flat.gather(2, of_channels)
            weight = of_x * of_y * (inside_x & inside_y)
            total = total + seen * weight.flatten(1)[:, None]
    assert isinstance(total, Tensor)
    return total.unflatten(2, grid.shape[1:3])


class SpatialTransformer(nn.Module):
    """Localisation net, sampling grid and sampler: images in, warped images of the same shape out.

    The localisation net finds the difference from the identity, which is where it begins: its last
    layer has weights of about a thousandth, so that gradients reach the layers before it, and
    biases of 0.

    Args:
        in_shape: (channels, height, width).
        width: Maps of the two convolutions of the localisation net.
        hidden: Units of its fully connected layer.
        activation: Of its layers.
        outside: See :func:`sample`.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        width: int = 20,
        hidden: int = 20,
        activation: str = "relu",
        outside: str = "zero",
    ) -> None:
        super().__init__()
        if outside not in OUTSIDE:
            raise ValueError(f"outside: expected one of {', '.join(OUTSIDE)}, got {outside!r}")
        self.outside = outside
        channels, *sides = check_image(in_shape, smallest=8)
        check_positive(width=width, hidden=hidden)
        k = expansion(activation)
        rows, columns = (side // 4 for side in sides)
        # shapes for 1×42×42
        self.localisation = nn.Sequential(
            nn.MaxPool2d(2),  # 1×21×21
            nn.Conv2d(channels, width * k, 5, padding=2),  # 20×21×21
            make_activation(activation),
            nn.MaxPool2d(2),  # 20×10×10
            nn.Conv2d(width, width * k, 5, padding=2),  # 20×10×10
            make_activation(activation),
            nn.Flatten(),
            nn.Linear(width * rows * columns, hidden * k),
            make_activation(activation),
        )
        self.theta = nn.Linear(hidden, 6)
        self.reset()

    def reset(self) -> None:
        """Make it the identity, nearly."""
        nn.init.normal_(self.theta.weight, 0.0, 1e-3)
        nn.init.zeros_(self.theta.bias)

    def maps(self, x: Tensor) -> Tensor:
        """The affine maps of images: (B, C, H, W) to (B, 2, 3)."""
        numbers = self.theta(self.localisation(x))
        difference = numbers.view(-1, 2, 3).to(x.dtype)
        identity = torch.eye(
            2,
            3,
            dtype=x.dtype,
            device=x.device,
        )
        return difference + identity

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), same shape."""
        height, width = x.shape[-2:]
        grid = affine_grid(self.maps(x), height, width)
        return sample(x, grid, self.outside)


class STN(nn.Module):
    """A convnet behind a spatial transformer: ST-CNN.

    It is the paper's for distorted MNIST (appendix A.4).

    The convnet has 9×9 and 7×7 convolutions of 32 maps, each with a 2×2 pool, and the localisation
    net two 5×5 ones of 20 maps and 20 units; ``transformer=False`` is the convnet alone. Departure:
    convolutions are padded, so that images of 8×8 pixels and more go in.

    Args:
        in_shape: (channels, height, width), sides of 8 pixels or more.
        num_classes: Number of outputs.
        transformer: With the spatial transformer.
        width: Maps of each convolution of the convnet.
        activation: Of all hidden layers.
        dropout: Before the output.
        init: Initial weights: default, xavier, kaiming, normal; the transformer begins near the
            identity with any.
        outside: What the transformer takes for pixels outside of the image: zero, the mean of
            standardised data and so a grey, or border, the nearest pixel of the image.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (1, 42, 42),
        num_classes: int = 10,
        transformer: bool = True,
        width: int = 32,
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "default",
        outside: str = "zero",
    ) -> None:
        super().__init__()
        channels, *sides = check_image(in_shape, smallest=8)
        check_positive(width=width)
        k = expansion(activation)
        rows, columns = (side // 4 for side in sides)
        self.transformer: SpatialTransformer | None = None
        if transformer:
            self.transformer = SpatialTransformer(
                in_shape,
                activation=activation,
                outside=outside,
            )
        # shapes for 1×42×42
        self.features = nn.Sequential(
            nn.Conv2d(channels, width * k, 9, padding=4),  # 32×42×42
            make_activation(activation),
            nn.MaxPool2d(2),  # 32×21×21
            nn.Conv2d(width, width * k, 7, padding=3),  # 32×21×21
            make_activation(activation),
            nn.MaxPool2d(2),  # 32×10×10
        )
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.output = nn.Linear(width * rows * columns, check_outputs(num_classes))
        initialise(self, init, activation)
        if self.transformer is not None:
            self.transformer.reset()
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        if self.transformer is not None:
            x = self.transformer(x)
        features = self.features(x).flatten(1)
        return self.output(self.dropout(features))
