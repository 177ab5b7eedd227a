"""GoogLeNet: Going deeper with convolutions (Szegedy et al., 2014).

Beside it stands torchvision's form, with batch normalisation.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.googlenet import GoogLeNet as TorchvisionGoogLeNet
from torchvision.models.googlenet import Inception as TorchvisionInception

from dlsearch.systems.shared.layers import (
    LocalResponseNorm,
    check_dropout,
    check_image,
    check_outputs,
    expansion,
    initialise,
    scaled,
    small_stem,
)
from dlsearch.systems.shared.layers import activation as make_activation

if TYPE_CHECKING:
    from collections.abc import Sequence

#: table 1: channels of 1×1 · 3×3 reduce · 3×3 · 5×5 reduce · 5×5 · pool projection
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
#: modules that an auxiliary classifier looks at
HEADS = ("4a", "4d")


class ConvAct(nn.Sequential):
    """A convolution that keeps the sides (at stride 1), and its activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        activation: str,
        stride: int = 1,
    ) -> None:
        pre = outputs * expansion(activation)
        super().__init__(
            nn.Conv2d(
                inputs,
                pre,
                kernel,
                stride,
                kernel // 2,
            ),
            make_activation(activation),
        )


class Inception(nn.Module):
    """Four branches side by side (figure 2b).

    They are 1×1, 3×3 and 5×5 behind 1×1 reductions, and a pool with a projection.

    Args:
        inputs: Channels.
        table: Channels of 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5 and pool projection.
        activation: After each convolution.
    """

    def __init__(
        self,
        inputs: int,
        table: Sequence[int],
        activation: str,
    ) -> None:
        super().__init__()
        c1, r3, c3, r5, c5, projection = table
        self.branch1 = ConvAct(inputs, c1, 1, activation)
        self.branch3 = nn.Sequential(
            ConvAct(inputs, r3, 1, activation), ConvAct(r3, c3, 3, activation)
        )
        self.branch5 = nn.Sequential(
            ConvAct(inputs, r5, 1, activation), ConvAct(r5, c5, 5, activation)
        )
        self.pool = nn.Sequential(
            nn.MaxPool2d(
                3,
                1,
                padding=1,
            ),
            ConvAct(
                inputs,
                projection,
                1,
                activation,
            ),
        )
        self.outputs = c1 + c3 + c5 + projection

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W) to (B, outputs, H, W)."""
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.pool(x)], dim=1)


class NaiveInception(nn.Module):
    """The module as first thought of (figure 2a).

    It has no reductions, and the pool passes all channels on.

    So each module adds its channels to those that came in, which is why the paper goes on to the
    full one.

    Args:
        inputs: Channels.
        table: As of :class:`Inception`; reductions and projection are left out.
        activation: After each convolution.
    """

    def __init__(
        self,
        inputs: int,
        table: Sequence[int],
        activation: str,
    ) -> None:
        super().__init__()
        c1, _, c3, _, c5, _ = table
        self.branch1 = ConvAct(inputs, c1, 1, activation)
        self.branch3 = ConvAct(inputs, c3, 3, activation)
        self.branch5 = ConvAct(inputs, c5, 5, activation)
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.outputs = c1 + c3 + c5 + inputs

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W) to (B, outputs, H, W)."""
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.pool(x)], dim=1)


class Head(nn.Module):
    """An auxiliary classifier.

    It is a 5×5 average pool of stride 3, a 1×1 convolution, and two fully connected layers.

    Args:
        inputs: Channels.
        side: Pixels of the map that it looks at; a map of less than 5 is not pooled.
        channels: Of the convolution.
        hidden: Units.
        num_classes: Number of outputs.
        activation: Of the hidden layers.
        dropout: After the hidden layer.
    """

    def __init__(
        self,
        inputs: int,
        side: tuple[int, int],
        channels: int,
        hidden: int,
        num_classes: int,
        activation: str,
        dropout: float,
    ) -> None:
        super().__init__()
        pooled = min(side) >= 5
        height, width = ((n - 5) // 3 + 1 if pooled else n for n in side)
        self.pool = nn.AvgPool2d(5, 3) if pooled else nn.Identity()  # 512×4×4 of 512×14×14
        self.conv = ConvAct(inputs, channels, 1, activation)  # 128×4×4
        # 2,048 to 1,024
        self.fc1 = nn.Linear(channels * height * width, hidden * expansion(activation))
        self.act = make_activation(activation)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W) to (B, num_classes)."""
        x = self.conv(self.pool(x)).flatten(1)
        return self.fc2(self.dropout(self.act(self.fc1(x))))


class GoogLeNet(nn.Module):
    """The paper's net: 22 layers with weights, nine Inception modules.

    There is no hidden fully connected layer.

    6,998,552 parameters without and 13,378,280 with the auxiliary classifiers, for 3×224×224 and
    1,000 classes. With ``module=naive`` it is built of the paper's first idea of the module.

    In training, the logits of the auxiliary classifiers lie in :attr:`auxiliary_logits` after each
    forward pass; ``task=auxiliary`` adds their losses, times 0.3 as in the paper.

    The small stem is a 3×3 convolution of stride 1, and the second pool is left out: 32×32 images
    are 16×16 in the third stage and 4×4 in the fifth.

    Args:
        in_shape: (channels, height, width).
        num_classes: Number of outputs.
        module: full or naive.
        auxiliary: With the two auxiliary classifiers.
        width: Factor on all channels.
        stem: paper, small, or auto: small for sides below 64.
        activation: Of all hidden layers.
        dropout: Before the output.
        dropout_auxiliary: In the auxiliary classifiers.
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 224, 224),
        num_classes: int = 1000,
        module: str = "full",
        auxiliary: bool = False,
        width: float = 1.0,
        stem: str = "auto",
        activation: str = "relu",
        dropout: float = 0.4,
        dropout_auxiliary: float = 0.7,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, *sides = check_image(in_shape, smallest=8)
        if module not in ("full", "naive"):
            raise ValueError(f"module: expected full or naive, got {module!r}")
        for value in (dropout, dropout_auxiliary):
            check_dropout(value)
        small = small_stem(stem, in_shape, smallest=64)
        c1, c2, c3, head_channels, head_units = scaled((64, 64, 192, 128, 1024), width)
        # shapes for 3×224×224; pools round up
        if small:
            first = ConvAct(channels, c1, 3, activation)
        else:
            first = ConvAct(channels, c1, 7, activation, stride=2)
        self.stem = nn.Sequential(
            first,  # 64×112×112
            pool(),  # 64×56×56
            LocalResponseNorm(),
            ConvAct(c1, c2, 1, activation),  # 64×56×56
            ConvAct(c2, c3, 3, activation),  # 192×56×56
            LocalResponseNorm(),
            nn.Identity() if small else pool(),  # 192×28×28
        )
        sides = [_stem_side(n, small) for n in sides]
        self.inception = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        inputs = c3
        # 3: 28×28, 4: 14×14, 5: 7×7; 256 channels after 3a to 1,024 after 5b
        for name, row in INCEPTIONS.items():
            if name in ("4a", "5a"):
                sides = [_pooled(n) for n in sides]
            kind = Inception if module == "full" else NaiveInception
            block = kind(inputs, scaled(row, width), activation)
            self.inception[name] = block
            inputs = block.outputs
            if auxiliary and name in HEADS:
                self.heads[name] = Head(
                    inputs,
                    (sides[0], sides[1]),
                    head_channels,
                    head_units,
                    num_classes,
                    activation,
                    dropout_auxiliary,
                )
        self.pool4 = pool()
        self.pool5 = pool()  # before 4a and 5a
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(inputs, check_outputs(num_classes))
        self.auxiliary_logits: list[Tensor] = []
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        auxiliary = []
        x = self.stem(x)
        for name, block in self.inception.items():
            if name == "4a":
                x = self.pool4(x)
            elif name == "5a":
                x = self.pool5(x)
            x = block(x)
            if self.training and name in self.heads:
                auxiliary.append(self.heads[name](x))
        if auxiliary:
            self.auxiliary_logits = auxiliary
        return self.output(self.dropout(x.mean(dim=(2, 3))))


def pool() -> nn.MaxPool2d:
    """3×3 of stride 2, rounding up: 112 to 56 to 28 to 14 to 7."""
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _pooled(side: int) -> int:
    if side <= 2:
        return 1
    return -(-(side - 3) // 2) + 1


def _stem_side(side: int, small: bool) -> int:
    if small:
        return _pooled(side)
    of_convolution = (side + 6 - 7) // 2 + 1
    return _pooled(_pooled(of_convolution))


class _NormAct(nn.Module):
    """torchvision's block, with any activation in place of ReLU.

    It is a convolution without bias, and batch normalisation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: str,
        **geometry: Any,
    ) -> None:
        super().__init__()
        pre = outputs * expansion(activation)
        self.conv = nn.Conv2d(
            inputs,
            pre,
            bias=False,
            **geometry,
        )
        self.bn = nn.BatchNorm2d(pre, eps=0.001)
        self.act = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W)."""
        return self.act(self.bn(self.conv(x)))


class _NormHead(nn.Module):
    """torchvision's auxiliary classifier with the paper's pool.

    An adaptive one has no deterministic gradient on CUDA.
    """

    def __init__(
        self,
        inputs: int,
        num_classes: int,
        dropout: float,
        *,
        side: int,
        activation: str,
    ) -> None:
        super().__init__()
        pooled = (side - 5) // 3 + 1 if side >= 5 else side
        self.pool = nn.AvgPool2d(5, 3) if side >= 5 else nn.Identity()
        self.conv = _NormAct(inputs, 128, activation, kernel_size=1)
        self.fc1 = nn.Linear(128 * pooled * pooled, 1024 * expansion(activation))
        self.act = make_activation(activation)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W) to (B, num_classes)."""
        x = self.conv(self.pool(x)).flatten(1)
        return self.fc2(self.dropout(self.act(self.fc1(x))))


class NormGoogLeNet(TorchvisionGoogLeNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's GoogLeNet.

    It has batch normalisation instead of biases and response normalisation.

    6,624,904 parameters without and 13,004,888 with the auxiliary classifiers for 3×224×224 and
    1,000 classes. Its 5×5 branches are 3×3, a mistake that torchvision keeps for the sake of its
    published weights.

    The small stem and :attr:`auxiliary_logits` are as in :class:`GoogLeNet`.

    Args:
        in_shape: (channels, height, width); the sides must be equal with the auxiliary classifiers.
        num_classes: Number of outputs.
        auxiliary: With the two auxiliary classifiers.
        stem: paper, small, or auto: small for sides below 64.
        activation: Of all hidden layers.
        dropout: Before the output.
        dropout_auxiliary: In the auxiliary classifiers.
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 224, 224),
        num_classes: int = 1000,
        auxiliary: bool = False,
        stem: str = "auto",
        activation: str = "relu",
        dropout: float = 0.2,
        dropout_auxiliary: float = 0.7,
        init: str = "default",
    ) -> None:
        channels, height, width = check_image(in_shape, smallest=8)
        if auxiliary and height != width:
            raise ValueError(
                f"in_shape: expected equal sides with auxiliary classifiers, got {height}×{width}"
            )
        for value in (dropout, dropout_auxiliary):
            check_dropout(value)
        small = small_stem(stem, in_shape, smallest=64)
        block = partial(_NormAct, activation=activation)
        super().__init__(
            num_classes=check_outputs(num_classes),
            aux_logits=auxiliary,
            init_weights=False,
            blocks=[
                block,
                partial(TorchvisionInception, conv_block=block),
                partial(
                    _NormHead,
                    side=_pooled(_stem_side(height, small)),
                    activation=activation,
                ),
            ],
            dropout=dropout,
            dropout_aux=dropout_auxiliary,
        )
        if small:
            self.conv1 = block(
                channels,
                64,
                kernel_size=3,
                padding=1,
            )
            self.maxpool2 = nn.Identity()
        elif channels != 3:
            self.conv1 = block(
                channels,
                64,
                kernel_size=7,
                stride=2,
                padding=3,
            )
        self.auxiliary_logits: list[Tensor] = []
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        logits, second, first = self._forward(x)
        if first is not None and second is not None:
            self.auxiliary_logits = [first, second]
        return logits
