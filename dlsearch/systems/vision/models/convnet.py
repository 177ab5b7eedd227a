"""A small convolutional net with batch normalisation: VGG's 3×3 stages at a size for two cores.

After Simonyan and Zisserman, "Very deep convolutional networks" (2014), and Ioffe and Szegedy,
"Batch normalization" (2015), with the mean over positions instead of fully connected layers (Lin et
al., "Network in network", 2013).
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


class ConvNet(nn.Module):
    """Stages of 3×3 convolutions.

    Each doubles the channels, and a max pool between two halves the sides.

    Args:
        in_shape: (channels, height, width); the sides must survive ``stages - 1`` halvings.
        num_classes: Number of outputs.
        width: Channels of the first stage.
        stages: Number of stages.
        depth: Convolutions in each stage.
        activation: After each batch normalisation.
        dropout: Before the output.
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        width: int = 32,
        stages: int = 3,
        depth: int = 1,
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__()
        for argument, value in (("width", width), ("stages", stages), ("depth", depth)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{argument}: expected a positive integer, got {value!r}")
        channels, _, _ = check_image(in_shape, smallest=2 ** (stages - 1))
        layers: list[nn.Module] = []
        for stage in range(stages):
            out = width * 2**stage
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(depth):
                pre = out * expansion(activation)
                # batch normalisation brings the bias
                layers += [
                    nn.Conv2d(
                        channels,
                        pre,
                        3,
                        padding=1,
                        bias=False,
                    ),
                    nn.BatchNorm2d(pre),
                ]
                layers += [make_activation(activation)]
                channels = out
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.output = nn.Linear(channels, check_outputs(num_classes))
        initialise(self, init, activation)
        # oneDNN and cuDNN convolve faster on this layout; whatever comes in is converted at the
        # first layer.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        x = self.features(x)  # (B, width · 2^(stages − 1), H / 2^(stages − 1), W / 2^(stages − 1))
        return self.output(self.dropout(x.mean(dim=(2, 3))))
