"""Residual nets: Deep residual learning for image recognition (He, Zhang, Ren and Sun, 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet as tv

from dlsearch.systems.shared.layers import activation as make_activation
from dlsearch.systems.shared.layers import (
    check_dropout,
    check_image,
    check_outputs,
    check_positive,
    expansion,
    initialise,
    small_stem,
    widened,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: blocks in each of the four stages, and their kind, by the number of layers with weights
STAGES: dict[int, tuple[type[tv.BasicBlock | tv.Bottleneck], list[int]]] = {
    18: (tv.BasicBlock, [2, 2, 2, 2]),
    34: (tv.BasicBlock, [3, 4, 6, 3]),
    50: (tv.Bottleneck, [3, 4, 6, 3]),
    101: (tv.Bottleneck, [3, 4, 23, 3]),
    152: (tv.Bottleneck, [3, 8, 36, 3]),
}


class ResNet(tv.ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet.

    A 7×7 convolution, four stages of residual blocks, a mean over positions, one output layer.

    11,689,512 / 21,797,672 / 25,557,032 / 44,549,160 / 60,192,808 parameters with 18, 34, 50, 101
    and 152 layers for 1,000 classes. As in torchvision a bottleneck has its stride at the 3×3
    convolution, the paper at the first 1×1.

    The small stem is a 3×3 convolution of stride 1 without the pool, as the paper has it on
    CIFAR-10.

    Args:
        in_shape: (channels, height, width).
        num_classes: Number of outputs.
        depth: Layers with weights: 18, 34, 50, 101 or 152.
        residual: With shortcuts; without, it is the plain counterpart.
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
        residual: bool = True,
        stem: str = "auto",
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        channels, _, _ = check_image(in_shape, smallest=1)
        if depth not in STAGES:
            raise ValueError(f"depth: expected one of {', '.join(map(str, STAGES))}, got {depth!r}")
        check_dropout(dropout)
        # shapes for 3×224×224: conv1 64×112×112, maxpool 64×56×56, layer1 to layer4 64×56×56,
        # 128×28×28, 256×14×14 and 512×7×7, with bottlenecks four times the channels
        super().__init__(*STAGES[depth], num_classes=check_outputs(num_classes))
        small = small_stem(stem, in_shape, smallest=64)
        if small:
            self.conv1 = nn.Conv2d(
                channels,
                64,
                3,
                padding=1,
                bias=False,
            )
            self.maxpool = nn.Identity()
        elif channels != 3:
            self.conv1 = nn.Conv2d(
                channels,
                64,
                7,
                2,
                padding=3,
                bias=False,
            )
        nn.init.kaiming_normal_(
            self.conv1.weight,
            mode="fan_out",
            nonlinearity="relu",
        )
        for block in self.blocks():
            if not residual:
                block.downsample = Nothing()
            set_activation(block, activation)
        set_activation(self, activation)
        self.avgpool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout))
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    def blocks(self) -> list[nn.Module]:
        """All residual blocks, in order."""
        return [
            block
            for stage in (self.layer1, self.layer2, self.layer3, self.layer4)
            for block in stage
        ]


class Nothing(nn.Module):
    """The shortcut of a plain net: adds 0."""

    def forward(self, x: Tensor) -> Tensor:
        """A single 0."""
        return x.new_zeros(())


class Repeat(nn.Module):
    """The identity for maxout, which chooses among `pieces` maps.

    max(F₁(x) + x, F₂(x) + x) = max(F₁(x), F₂(x)) + x.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, pieces·C, H, W)."""
        return torch.cat([x] * self.pieces, dim=1)


def set_activation(module: nn.Module, name: str) -> None:
    """Put the activation `name` in place of the ReLU of a net or block.

    It must be written as torchvision's are. Where the activation makes one number of several, the
    convolutions and normalisations before it and the shortcut make as many.
    """
    if name == "relu":
        return
    module.relu = make_activation(name)
    pieces = expansion(name)
    if pieces == 1:
        return
    for number in (1, 2, 3):
        if not hasattr(module, f"conv{number}"):
            continue
        conv = getattr(module, f"conv{number}")
        norm = getattr(module, f"bn{number}")
        wide_conv = widened(conv, pieces * conv.out_channels)
        wide_norm = nn.BatchNorm2d(pieces * norm.num_features)
        setattr(module, f"conv{number}", wide_conv)
        setattr(module, f"bn{number}", wide_norm)
    if isinstance(module, (tv.BasicBlock, tv.Bottleneck)):
        if module.downsample is None:
            module.downsample = Repeat(pieces)
        elif isinstance(module.downsample, nn.Sequential):
            projection: nn.Module = module.downsample[0]
            assert isinstance(projection, nn.Conv2d)
            outputs = pieces * projection.out_channels
            module.downsample = nn.Sequential(
                widened(projection, outputs),
                nn.BatchNorm2d(outputs),
            )


class CifarBlock(nn.Module):
    """Two 3×3 convolutions with batch normalisation around which goes the shortcut of option A.

    Option A has no parameters: where the sides are halved, it takes every other pixel, and channels
    that are new are 0.

    Args:
        inputs: Channels.
        outputs: Channels, not fewer.
        stride: Of the first convolution.
        residual: With the shortcut.
        activation: After the first convolution and after the sum.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        residual: bool,
        activation: str,
    ) -> None:
        super().__init__()
        self.pieces = expansion(activation)
        pre = outputs * self.pieces
        self.conv1 = nn.Conv2d(
            inputs,
            pre,
            3,
            stride,
            padding=1,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(pre)
        self.conv2 = nn.Conv2d(
            outputs,
            pre,
            3,
            padding=1,
            bias=False,
        )
        self.bn2 = nn.BatchNorm2d(pre)
        self.act1 = make_activation(activation)
        self.act2 = make_activation(activation)
        self.residual = residual
        self.stride = stride
        self.new = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.residual:
            y = y + self.shortcut(x)
        return self.act2(y)

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new:
            before = self.new // 2
            after = self.new - before
            x = F.pad(x, (0, 0, 0, 0, before, after))
        if self.pieces == 1:
            return x
        return torch.cat([x] * self.pieces, dim=1)


class CifarResNet(nn.Module):
    """The paper's nets for CIFAR-10 (section 4.2): 6n + 2 layers.

    They are three stages of n blocks, with 16, 32 and 64 channels.

    269,722 / 464,154 / 658,586 / 853,018 / 1,727,962 / 19,421,274 parameters with 20, 32, 44, 56,
    110 and 1,202 layers; with ``residual=False`` it is the plain counterpart of as many parameters.

    Args:
        in_shape: (channels, height, width).
        num_classes: Number of outputs.
        depth: Layers with weights, 6n + 2.
        residual: With shortcuts.
        width: Channels of the first stage.
        activation: Of all hidden layers.
        dropout: Before the output.
        init: Initial weights: default (He's, by fan-out), xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        depth: int = 20,
        residual: bool = True,
        width: int = 16,
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, _, _ = check_image(in_shape, smallest=4)
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
            raise ValueError(
                f"depth: expected 6n + 2 layers (8, 14, 20, 32, 44, 56, 110), got {depth!r}"
            )
        check_positive(width=width)
        n = (depth - 2) // 6
        pre = width * expansion(activation)
        self.conv1 = nn.Conv2d(
            channels,
            pre,
            3,
            padding=1,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(pre)
        self.act1 = make_activation(activation)
        # shapes for 3×32×32
        self.stage1 = self._stage(
            n,
            width,
            width,
            1,
            residual,
            activation,
        )  # 16×32×32
        self.stage2 = self._stage(
            n,
            width,
            2 * width,
            2,
            residual,
            activation,
        )  # 32×16×16
        self.stage3 = self._stage(
            n,
            2 * width,
            4 * width,
            2,
            residual,
            activation,
        )  # 64×8×8
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.fc = nn.Linear(4 * width, check_outputs(num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight,
                    mode="fan_out",
                    nonlinearity="relu",
                )
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def _stage(
        n: int,
        inputs: int,
        outputs: int,
        stride: int,
        residual: bool,
        activation: str,
    ) -> nn.Sequential:
        first = CifarBlock(inputs, outputs, stride, residual, activation)
        return nn.Sequential(
            first,
            *(
                CifarBlock(
                    outputs,
                    outputs,
                    1,
                    residual,
                    activation,
                )
                for _ in range(n - 1)
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(self.dropout(x.mean(dim=(2, 3))))
