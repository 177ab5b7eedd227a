"""VGG: Very deep convolutional networks for large-scale image recognition.

After Simonyan and Zisserman (2014).
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
    check_positive,
    expansion,
    initialise,
    output_sides,
    scaled,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: convolutions in each of the five stages, by the number of layers with weights: the paper's A, B,
#: D and E
STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Stages of 3×3 convolutions and 2×2 pools, and three fully connected layers.

    132,863,336 / 133,047,848 / 138,357,544 / 143,667,240 parameters with 11, 13, 16 and 19 layers
    for 3×224×224 and 1,000 classes. The layers have the names that they have in torchvision, whose
    published weights load. Two 3×3 convolutions see 5×5 pixels, three see 7×7, with fewer
    parameters than one large kernel.

    Smaller images keep all convolutions; pools that would leave nothing are left out, and the
    hidden fully connected layers have 512 units.

    Args:
        in_shape: (channels, height, width).
        num_classes: Number of outputs.
        depth: Layers with weights: 11, 13, 16 or 19.
        batch_norm: Batch normalisation after each convolution; it came a year later.
        width: Factor on the channels of the convolutions.
        hidden: Units of the two hidden fully connected layers; null: 4,096, or 512 for sides below
            64.
        activation: Of all hidden layers.
        dropout: After each hidden fully connected layer.
        init: Initial weights: default (torchvision's), xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 224, 224),
        num_classes: int = 1000,
        depth: int = 16,
        batch_norm: bool = False,
        width: float = 1.0,
        hidden: int | None = None,
        activation: str = "relu",
        dropout: float = 0.5,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, *sides = check_image(in_shape, smallest=2)
        if depth not in STAGES:
            raise ValueError(f"depth: expected one of {', '.join(map(str, STAGES))}, got {depth!r}")
        check_dropout(dropout)
        if hidden is None:
            hidden = 512 if min(sides) < 64 else 4096
        check_positive(hidden=hidden)
        k = expansion(activation)
        layers: list[nn.Module] = []
        # shapes for 3×224×224: 64×112×112, 128×56×56, 256×28×28, 512×14×14 and 512×7×7 after the
        # pools
        for out, convolutions in zip(
            scaled(CHANNELS, width),
            STAGES[depth],
            strict=True,
        ):
            for _ in range(convolutions):
                layers.append(nn.Conv2d(channels, out * k, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(out * k))
                layers.append(make_activation(activation))
                channels = out
            smallest = min(output_sides(layers, sides))
            if smallest >= 2:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        height, width_ = output_sides(layers, sides)
        self.classifier = nn.Sequential(
            nn.Linear(channels * height * width_, hidden * k),  # 25,088 to 4,096
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden * k),
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(hidden, check_outputs(num_classes)),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight,
                    mode="fan_out",
                    nonlinearity="relu",
                )
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # there is one
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        return self.classifier(self.features(x).flatten(1))
