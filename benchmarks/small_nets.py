"""Nets that benchmarks train and dlsearch does not ship: named in a config as `small_nets.<function>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def resnet18(in_shape: Sequence[int], num_classes: int, **_: Any) -> nn.Module:
    """torchvision's ResNet-18 with the usual stem for small images: a 3×3 convolution of stride 1, no pooling.

    Args:
        in_shape: (C, H, W).
        num_classes: Outputs.
    """
    from torchvision.models import resnet18

    net = resnet18(num_classes=num_classes)
    net.conv1 = nn.Conv2d(in_shape[0], 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net.to(memory_format=torch.channels_last)
