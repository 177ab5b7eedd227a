"""Attention over positions and over branches.

After the residual attention network (Wang et al., 2017).

The detection winner of 2017 names its parts adaptive attention and deep combined convolutional
models, without a paper of its own; what is published of the idea is the module of "Residual
attention network for image classification".
"""

from __future__ import annotations

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


class CombinedUnit(nn.Module):
    """A pre-activation residual unit of two convolutional branches.

    They are weighed against each other for each image.

    The branches see 3×3 and, dilated, 5×5 pixels; a softmax over the branches, of the mean over
    positions, weighs them.

    Args:
        inputs: Channels.
        outputs: Channels.
        activation: After each normalisation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: str,
    ) -> None:
        super().__init__()
        self.pieces = expansion(activation)
        self.spread: nn.Module = nn.Identity()
        if self.pieces > 1:
            self.spread = nn.Conv2d(inputs, inputs * self.pieces, 1, bias=False)
        self.norm = nn.BatchNorm2d(inputs * self.pieces)
        self.act = make_activation(activation)
        self.near = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.far = nn.Conv2d(
            inputs,
            outputs,
            3,
            padding=2,
            dilation=2,
        )
        self.weigh = nn.Linear(inputs, 2)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W) to (B, outputs, H, W)."""
        y = self.act(self.norm(self.spread(x)))
        weights = self.weigh(y.mean(dim=(2, 3))).softmax(1)  # (B, 2)
        near, far = weights[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1) each
        return self.shortcut(x) + near * self.near(y) + far * self.far(y)


class AttentionModule(nn.Module):
    """``(1 + M(x)) · T(x)``: a trunk, and a mask in [0, 1] that sees more of the image.

    This is equation 3 of the paper.

    The mask's way leads down to half the sides and up again, so that it weighs a position by its
    surroundings.

    Args:
        channels: In and out.
        activation: Of the units.
    """

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            CombinedUnit(channels, channels, activation),
            CombinedUnit(channels, channels, activation),
        )
        self.down = nn.Sequential(
            nn.MaxPool2d(2),
            CombinedUnit(
                channels,
                channels,
                activation,
            ),
        )
        self.mask = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(
                channels,
                channels,
                1,
            ),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, channels, H, W), same shape; sides of 2 pixels or more."""
        up = F.interpolate(
            self.down(x),
            size=x.shape[2:],
            mode="bilinear",
            align_corners=False,
        )
        return (1 + self.mask(up)) * self.trunk(x)


class AttentionNet(nn.Module):
    """Three stages of a residual unit and an attention module, with 2×2 pools between.

    Departures from the paper: one attention module a stage with one step down, a third of the
    layers, and units of two adaptively combined branches in place of bottlenecks.

    Args:
        in_shape: (channels, height, width), sides of 8 pixels or more.
        num_classes: Number of outputs.
        width: Channels of the first stage; each further stage has twice as many.
        activation: Of all units, and after the last of them.
        dropout: Before the output.
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        width: int = 32,
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, _, _ = check_image(in_shape, smallest=8)
        check_positive(width=width)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        inputs = width
        # shapes for 3×32×32: 32×32×32, 64×16×16, 128×8×8
        for stage in range(3):
            outputs = width * 2**stage
            if stage:
                layers.append(nn.MaxPool2d(2))
            layers.append(CombinedUnit(inputs, outputs, activation))
            layers.append(AttentionModule(outputs, activation))
            inputs = outputs
        pieces = expansion(activation)
        if inputs % pieces:
            raise ValueError(f"width: expected an even number for {activation}, got {width}")
        last = [nn.BatchNorm2d(inputs), make_activation(activation)]
        self.features = nn.Sequential(*layers, *last)
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.output = nn.Linear(inputs // pieces, check_outputs(num_classes))
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        x = self.features(x)  # 128×8×8
        return self.output(self.dropout(x.mean(dim=(2, 3))))
