"""Receptive fields: those of the papers, and those that gradients show."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlsearch.inspection.describe import layer_table
from dlsearch.systems.vision.models.alexnet import AlexNet
from dlsearch.systems.vision.models.kernels import KernelNet
from dlsearch.systems.vision.models.resnet import ResNet
from dlsearch.systems.vision.models.vgg import VGG


def fields(net: nn.Module, shape: tuple[int, ...], kind: str = "") -> list[Any]:
    return [row["field"] for row in layer_table(net, shape) if row["type"].startswith(kind)]


def meta(make: Any, *arguments: Any, **options: Any) -> nn.Module:
    with torch.device("meta"):
        net: nn.Module = make(*arguments, **options)
    return net


def test_two_3x3_layers_see_5x5_and_three_see_7x7() -> None:
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)))
    assert fields(layers, (1, 32, 32)) == [[3, 3], [5, 5], [7, 7]]


def test_vgg_16_alexnet_and_resnet_50_see_what_is_known_of_them() -> None:
    vgg = meta(VGG, [3, 224, 224], 1000)
    convolutions = fields(vgg, (3, 224, 224), "Conv2d")
    assert [f[0] for f in convolutions] == [3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196]
    assert fields(vgg, (3, 224, 224), "MaxPool2d")[-1] == [212, 212]
    assert fields(vgg, (3, 224, 224), "Linear") == [[224, 224]] * 3
    alexnet = meta(AlexNet, [3, 227, 227], 1000)
    assert [f[0] for f in fields(alexnet, (3, 227, 227), "Conv2d")] == [11, 51, 99, 131, 163]
    assert fields(alexnet, (3, 227, 227), "MaxPool2d")[-1] == [195, 195]
    resnet = meta(ResNet, [3, 224, 224], 1000, depth=50)
    assert max(f[0] for f in fields(resnet, (3, 224, 224), "Conv2d")) == 427


class Branches(nn.Module):
    """A short and a long way, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, (3, 1))
        self.long = nn.Sequential(
            nn.Conv2d(2, 2, 3, padding=2, dilation=2), nn.Conv2d(2, 2, 3, stride=2, padding=1)
        )
        self.last = nn.Conv2d(4, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        short = F.avg_pool2d(F.pad(x, (1, 0, 1, 0)), 2)
        whole = torch.cat([self.long(x)[..., : short.shape[2], : short.shape[3]], short], dim=1)
        return self.last(F.interpolate(whole, scale_factor=2, mode="nearest"))


class Sliced(nn.Module):
    """Every second pixel, a transposed convolution, a mean over positions that weighs the maps."""

    def __init__(self, gate: bool) -> None:
        super().__init__()
        self.first, self.up, self.last = (
            nn.Conv2d(1, 2, 3),
            nn.ConvTranspose2d(2, 2, 2, stride=2),
            nn.Conv2d(2, 1, 3),
        )
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.first(x)[:, :, ::2, ::2])
        return self.last(x * x.mean((2, 3), keepdim=True) if self.gate else x)


def seen(net: nn.Module, side: int) -> list[int]:
    """By its gradients: the largest extent of the pixels that one output depends on."""
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)  # nothing cancels
    x = torch.rand(1, 1, side, side, requires_grad=True)
    out = net(x)
    extents = []
    middle = [n // 2 for n in out.shape[2:]]
    for row in range(middle[0] - 1, middle[0] + 2):
        for column in range(middle[1] - 1, middle[1] + 2):
            (gradient,) = torch.autograd.grad(out[0, 0, row, column], x, retain_graph=True)
            places = gradient[0, 0].nonzero()
            extents.append((places.amax(0) - places.amin(0) + 1).tolist())
    return [max(e[i] for e in extents) for i in (0, 1)]


@pytest.mark.parametrize(
    "net", [Branches(), Sliced(False), Sliced(True)], ids=["branches", "sliced", "gated"]
)
def test_the_field_is_what_gradients_show(net: nn.Module) -> None:
    assert fields(net, (1, 40, 40))[-1] == seen(net, 40)


def test_fixed_kernels_without_parameters_are_followed_too() -> None:
    net = KernelNet([1, 28, 28], 10, size=5, cells=7)
    assert fields(net, (1, 28, 28), "FixedKernels") == [[5, 5]]
    assert fields(net, (1, 28, 28), "AvgPool2d") == [[8, 8]]


def test_inputs_that_are_no_images_have_no_field() -> None:
    assert fields(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), (4,)) == [None] * 3
