"""ZFNet: Visualizing and understanding convolutional networks (Zeiler and Fergus, 2014)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlsearch.systems.shared.layers import (
    LocalResponseNorm,
    check_dropout,
    check_image,
    check_outputs,
    check_positive,
    expansion,
    initialise,
    output_sides,
    scaled,
    small_stem,
)
from dlsearch.systems.shared.layers import activation as make_activation

if TYPE_CHECKING:
    from collections.abc import Sequence


class ZFNet(nn.Module):
    """AlexNet with a 7×7 first layer of stride 2.

    62,357,608 parameters for 3×224×224 and 1,000 classes.

    What differs from :class:`~dlsearch.systems.vision.models.alexnet.AlexNet`: the first
    convolution, and that the second has the stride of 2 that the first lost. The paper's contrast
    normalisation across feature maps is AlexNet's local response normalisation here. Its
    deconvolutional visualisation is ``dlsearch.inspection.deconvolution``.

    The small stem is a 3×3 convolution of stride 1, and all else keeps its stride; the fully
    connected layers have 512 units then.

    Args:
        in_shape: (channels, height, width).
        num_classes: Number of outputs.
        width: Factor on the channels of the convolutions.
        hidden: Units of the two hidden fully connected layers; null: 4,096, or 512 with the small
            stem.
        stem: paper, small, or auto: small for sides below 64.
        activation: Of all hidden layers.
        dropout: After each hidden fully connected layer.
        init: Initial weights: default, xavier, kaiming, normal (the paper's, of deviation 0.01).
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 224, 224),
        num_classes: int = 1000,
        width: float = 1.0,
        hidden: int | None = None,
        stem: str = "auto",
        activation: str = "relu",
        dropout: float = 0.5,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, *sides = check_image(in_shape, smallest=4)
        check_dropout(dropout)
        small = small_stem(stem, in_shape, smallest=64)
        c1, c2, c3, c4, c5 = scaled((96, 256, 384, 384, 256), width)
        hidden = (512 if small else 4096) if hidden is None else hidden
        check_positive(hidden=hidden)
        k = expansion(activation)
        if small:
            first = nn.Conv2d(channels, c1 * k, 3, padding=1)
            second = nn.Conv2d(c1, c2 * k, 5, padding=2)
        else:
            first = nn.Conv2d(channels, c1 * k, 7, 2, padding=1)
            second = nn.Conv2d(c1, c2 * k, 5, 2)
        # shapes for 3×224×224
        self.features = nn.Sequential(
            first,  # 96×110×110
            make_activation(activation),
            nn.MaxPool2d(3, 2, padding=1),  # 96×55×55
            LocalResponseNorm(),
            second,  # 256×26×26
            make_activation(activation),
            nn.MaxPool2d(3, 2, padding=1),  # 256×13×13
            LocalResponseNorm(),
            nn.Conv2d(c2, c3 * k, 3, padding=1),  # 384×13×13
            make_activation(activation),
            nn.Conv2d(c3, c4 * k, 3, padding=1),  # 384×13×13
            make_activation(activation),
            nn.Conv2d(c4, c5 * k, 3, padding=1),  # 256×13×13
            make_activation(activation),
            nn.MaxPool2d(3, 2, padding=1 if small else 0),  # 256×6×6
        )
        height, width_ = output_sides(self.features, sides)
        self.classifier = nn.Sequential(
            nn.Linear(c5 * height * width_, hidden * k),  # 9,216 to 4,096
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden * k),
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(hidden, check_outputs(num_classes)),
        )
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        return self.classifier(self.features(x).flatten(1))
