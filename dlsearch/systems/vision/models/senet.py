"""Squeeze-and-excitation networks (Hu, Shen and Sun, 2017)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torchvision.ops import SqueezeExcitation

from dlsearch.systems.shared.layers import activation as make_activation
from dlsearch.systems.shared.layers import check_positive, expansion, initialise
from dlsearch.systems.vision.models.resnet import ResNet

if TYPE_CHECKING:
    from collections.abc import Sequence


class SEResNet(ResNet):
    """ResNet whose residual branches weigh their channels before the sum.

    28,088,024 parameters with 50 layers.

    A block squeezes each channel to its mean, and two small layers make a factor between 0 and 1 of
    every channel of them. It stands after the last normalisation of each residual branch.

    Args:
        in_shape: (channels, height, width).
        num_classes: Number of outputs.
        depth: Layers with weights: 18, 34, 50, 101 or 152.
        reduction: Channels over those of the small layer between.
        stem: paper, small, or auto: small for sides below 64.
        activation: Of all hidden layers.
        dropout: Before the output.
        init: Initial weights: default (torchvision's), xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 224, 224),
        num_classes: int = 1000,
        depth: int = 50,
        reduction: int = 16,
        stem: str = "auto",
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__(
            in_shape,
            num_classes,
            depth,
            stem=stem,
            activation=activation,
            dropout=dropout,
        )
        check_positive(reduction=reduction)
        # A layer of one vector: maxout would need two of them, so its nets squeeze with ReLU.
        inner = nn.ReLU if expansion(activation) > 1 else partial(make_activation, activation)
        for block in self.blocks():
            last = "bn3" if hasattr(block, "bn3") else "bn2"
            norm = getattr(block, last)
            channels = norm.num_features  # 256 to 2,048 with bottlenecks
            squeeze = SqueezeExcitation(
                channels,
                max(1, channels // reduction),
                activation=inner,
            )
            setattr(block, last, nn.Sequential(norm, squeeze))
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)
