"""Gated messages between features: Gated bi-directional CNN for object detection.

After Zeng et al. (2016).
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

#: sides of the windows that the features are of, as fractions of the image
CONTEXTS = (0.5, 0.75, 1.0)


class Message(nn.Module):
    """What one context tells its neighbour: ``G(h⁰) · (h ⊗ w)``.

    The gate is ``G(h⁰) = sigmoid(h⁰ ⊗ v + c)``.

    Args:
        channels: Of both.
        pre: Channels before the activation.
    """

    def __init__(self, channels: int, pre: int) -> None:
        super().__init__()
        self.message = nn.Conv2d(
            channels,
            pre,
            3,
            padding=1,
            bias=False,
        )
        self.gate = nn.Conv2d(channels, pre, 3, padding=1)

    def forward(self, told: Tensor, evidence: Tensor) -> Tensor:
        """Both (B, channels, h, w): what is told, and what decides whether it is."""
        gate = torch.sigmoid(self.gate(evidence))
        return gate * self.message(told)


class GatedBiDirectional(nn.Module):
    """Contexts that tell each other what they see, from small to large and back.

    These are equations 1 to 4 of the paper.

    Args:
        channels: Of each context's features.
        contexts: How many.
        activation: After each sum.
    """

    def __init__(
        self,
        channels: int,
        contexts: int,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        pre = channels * expansion(activation)

        def own(inputs: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv2d(
                    inputs,
                    pre,
                    3,
                    padding=1,
                )
                for _ in range(contexts)
            )

        def messages() -> nn.ModuleList:
            return nn.ModuleList(Message(channels, pre) for _ in range(contexts - 1))

        self.own_up = own(channels)
        self.own_down = own(channels)
        self.merge = own(2 * channels)
        self.up = messages()
        self.down = messages()
        self.act = make_activation(activation)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Each (B, channels, h, w), the smallest context first; the same shapes."""
        last = len(features) - 1
        up: list[Tensor] = []  # h¹: each has heard of all smaller ones
        for i, h in enumerate(features):
            total = self.own_up[i](h)
            if i:
                total = total + self.up[i - 1](up[i - 1], features[i - 1])
            up.append(self.act(total))
        down: list[Tensor] = []  # h²: of all larger ones
        for i, h in reversed(list(enumerate(features))):
            total = self.own_down[i](h)
            if i < last:
                total = total + self.down[i](down[-1], features[i + 1])
            down.append(self.act(total))
        down.reverse()
        merged: list[Tensor] = []
        for i, pair in enumerate(zip(up, down, strict=True)):
            both = torch.cat(pair, dim=1)
            merged.append(self.act(self.merge[i](both)))
        return merged


class GatedNet(nn.Module):
    """A small convnet whose views of the image's centre, in three sizes, pass gated messages.

    They are h³ of the paper.

    Departures: the paper's contexts are enlarged boxes of a detector on an Inception net; here one
    whole image is classified, and the contexts are centred windows of the same feature map, resized
    to the smallest window's sides.

    Args:
        in_shape: (channels, height, width), sides of 8 pixels or more.
        num_classes: Number of outputs.
        width: Channels of the first stage; the second and the contexts have twice as many.
        gated: With the messages; without, each context is seen for itself.
        activation: Of all hidden layers.
        dropout: Before the output.
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        width: int = 32,
        gated: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, height, width_ = check_image(in_shape, smallest=8)
        check_positive(width=width)
        k = expansion(activation)
        out = 2 * width
        # shapes for 3×32×32
        self.trunk = nn.Sequential(
            nn.Conv2d(
                channels,
                width * k,
                3,
                padding=1,
                bias=False,
            ),
            nn.BatchNorm2d(width * k),
            make_activation(activation),
            nn.MaxPool2d(2),  # 32×16×16
            nn.Conv2d(
                width,
                out * k,
                3,
                padding=1,
                bias=False,
            ),
            nn.BatchNorm2d(out * k),
            make_activation(activation),
            nn.MaxPool2d(2),  # 64×8×8
        )
        # 4×4, 6×6, 8×8
        self.windows = [
            (_part_of(fraction, height // 4), _part_of(fraction, width_ // 4))
            for fraction in CONTEXTS
        ]
        self.messages = (
            GatedBiDirectional(
                out,
                len(CONTEXTS),
                activation,
            )
            if gated
            else None
        )
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.output = nn.Linear(out * len(CONTEXTS), check_outputs(num_classes))
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        x = self.trunk(x)
        seen = [
            self._window(
                x,
                rows,
                columns,
            )
            for rows, columns in self.windows
        ]  # 64×4×4 each
        if self.messages is not None:
            seen = self.messages(seen)
        means = [h.mean(dim=(2, 3)) for h in seen]
        return self.output(self.dropout(torch.cat(means, dim=1)))

    def _window(
        self,
        x: Tensor,
        rows: int,
        columns: int,
    ) -> Tensor:
        """The centre of the map, in the sides of the smallest window."""
        top = (x.shape[2] - rows) // 2
        left = (x.shape[3] - columns) // 2
        centre = x[:, :, top : top + rows, left : left + columns]
        return F.interpolate(
            centre,
            size=self.windows[0],
            mode="bilinear",
            align_corners=False,
        )


def _part_of(fraction: float, side: int) -> int:
    """A fraction of a side, at least one pixel."""
    return max(1, round(fraction * side))
