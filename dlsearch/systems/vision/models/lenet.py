"""LeNet-5: Gradient-based learning applied to document recognition.

After LeCun, Bottou, Bengio and Haffner (1998).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlsearch.systems.shared.layers import activation as make_activation
from dlsearch.systems.shared.layers import (
    check_dropout,
    check_image,
    check_outputs,
    expansion,
    initialise,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

POOLS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class LeNet5(nn.Module):
    """Two convolutions with pooling, three fully connected layers.

    61,706 parameters for 1×28×28 and ten classes.

    Departures from the paper: every map of the second convolution sees all maps of the first;
    pooling has no weights; the output is linear, not radial; and ReLU with max pooling is the
    default (``activation=tanh pool=average`` is closer to 1998). Images are padded to the paper's
    32×32; those with a side below 20 keep their size instead, with convolutions that are padded by
    2.

    Args:
        in_shape: (channels, height, width), sides of 8 pixels or more.
        num_classes: Number of outputs.
        activation: Of all hidden layers.
        pool: max or average.
        dropout: After each hidden fully connected layer.
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        activation: str = "relu",
        pool: str = "max",
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, height, width = check_image(in_shape, smallest=8)
        check_dropout(dropout)
        if pool not in POOLS:
            raise ValueError(f"pool: expected one of {', '.join(POOLS)}, got {pool!r}")
        small = min(height, width) < 20
        pad_1 = (2, 2) if small else (max(0, (33 - height) // 2), max(0, (33 - width) // 2))
        pad_2 = (2, 2) if small else (0, 0)
        sides = [
            ((side + 2 * p1 - 4) // 2 + 2 * p2 - 4) // 2
            for side, p1, p2 in zip((height, width), pad_1, pad_2, strict=True)
        ]
        k = expansion(activation)
        # shapes for 1×28×28
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6 * k, 5, padding=pad_1),  # 6×28×28
            make_activation(activation),
            POOLS[pool](2),  # 6×14×14
            nn.Conv2d(6, 16 * k, 5, padding=pad_2),  # 16×10×10
            make_activation(activation),
            POOLS[pool](2),  # 16×5×5
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * sides[0] * sides[1], 120 * k),  # 400 to 120
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(120, 84 * k),
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(84, check_outputs(num_classes)),
        )
        initialise(self, init, activation)
        # oneDNN and cuDNN convolve faster on this layout; whatever comes in is converted at the
        # first layer.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        return self.classifier(self.features(x).flatten(1))
