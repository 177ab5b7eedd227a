"""AlexNet: ImageNet classification with deep convolutional neural networks.

After Krizhevsky, Sutskever and Hinton (2012).
"""

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


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers.

    62,378,344 parameters for 3×227×227 and 1,000 classes.

    In the order in which the courses document it: local response normalisation comes after the pool
    (the paper has it before). ``groups=2`` is the paper's division of the second, fourth and fifth
    convolution between two GPUs: 60,965,224 parameters. torchvision's ``alexnet`` is another net,
    that of "One weird trick" (2014).

    The small stem puts a 5×5 convolution of stride 1 in place of the 11×11 of stride 4, and pads
    the pools, so that 28×28 and 32×32 images reach the fully connected layers as 256×4×4; these
    have 512 units then.

    Args:
        in_shape: (channels, height, width).
        num_classes: Number of outputs.
        groups: 1, or 2 as in the paper.
        width: Factor on the channels of the convolutions.
        hidden: Units of the two hidden fully connected layers; null: 4,096, or 512 with the small
            stem.
        stem: paper, small, or auto: small for sides below 67.
        activation: Of all hidden layers.
        dropout: After each hidden fully connected layer.
        init: Initial weights: default, xavier, kaiming, normal (of deviation 0.01), or paper: that
            with biases of 1 in the second, fourth and fifth convolution and the hidden fully
            connected layers, and of 0 elsewhere (section 5).
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 227, 227),
        num_classes: int = 1000,
        groups: int = 1,
        width: float = 1.0,
        hidden: int | None = None,
        stem: str = "auto",
        activation: str = "relu",
        dropout: float = 0.5,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, *sides = check_image(in_shape, smallest=4)
        if groups not in (1, 2):
            raise ValueError(f"groups: expected 1 or 2, got {groups!r}")
        check_dropout(dropout)
        small = small_stem(stem, in_shape, smallest=67)
        c1, c2, c3, c4, c5 = (
            groups * c for c in scaled([c // groups for c in (96, 256, 384, 384, 256)], width)
        )
        hidden = (512 if small else 4096) if hidden is None else hidden
        check_positive(hidden=hidden)
        k = expansion(activation)
        pad = 1 if small else 0
        first = (
            nn.Conv2d(channels, c1 * k, 5, padding=2)
            if small
            else nn.Conv2d(channels, c1 * k, 11, stride=4)
        )
        # shapes for 3×227×227
        self.features = nn.Sequential(
            first,  # 96×55×55
            make_activation(activation),
            nn.MaxPool2d(3, 2, padding=pad),  # 96×27×27
            LocalResponseNorm(),
            nn.Conv2d(
                c1,
                c2 * k,
                5,
                padding=2,
                groups=groups,
            ),  # 256×27×27
            make_activation(activation),
            nn.MaxPool2d(3, 2, padding=pad),  # 256×13×13
            LocalResponseNorm(),
            nn.Conv2d(c2, c3 * k, 3, padding=1),  # 384×13×13
            make_activation(activation),
            nn.Conv2d(
                c3,
                c4 * k,
                3,
                padding=1,
                groups=groups,
            ),  # 384×13×13
            make_activation(activation),
            nn.Conv2d(
                c4,
                c5 * k,
                3,
                padding=1,
                groups=groups,
            ),  # 256×13×13
            make_activation(activation),
            nn.MaxPool2d(3, 2, padding=pad),  # 256×6×6
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
        if init == "paper":
            initialise(self, "normal", activation)
            self._raise_biases()
        else:
            initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    def _raise_biases(self) -> None:
        """Biases of 1, so that the rectifiers get positive inputs from the start."""
        convolutions = [each for each in self.features if isinstance(each, nn.Conv2d)]
        linear = [each for each in self.classifier if isinstance(each, nn.Linear)]
        raised = [convolutions[1], *convolutions[3:], *linear[:-1]]
        for layer in raised:
            assert isinstance(layer.bias, Tensor)
            nn.init.ones_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        return self.classifier(self.features(x).flatten(1))
