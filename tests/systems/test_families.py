"""What every net can do: learn real images by heart, train in half precision, take any activation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from sklearn.datasets import load_digits

from dlsearch.systems.shared.layers import ACTIVATIONS
from tests.kinds import quick_if
from tests.systems.heavy import is_light

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Make = Callable[..., nn.Module]

CONF = Path(__file__).parents[2] / "conf"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
#: what makes a test of the large ones take about a second
SMALL: dict[str, dict[str, Any]] = {
    "maxout": {"width": 64},
    "alexnet": {"width": 0.25, "hidden": 128, "init": "kaiming"},
    "zfnet": {"width": 0.25, "hidden": 128, "init": "kaiming"},
    "vgg": {"depth": 11, "width": 0.25, "hidden": 64, "batch_norm": True},
    "googlenet": {"width": 0.25, "init": "kaiming"},
    "resnet": {"depth": 18},
    "resnet_cifar": {"depth": 8},
    "senet": {"depth": 18},
    "gated": {"width": 16},
    "attention": {"width": 8},
}
WIDE = ("resnet", "senet", "googlenet_bn")  # batch normalisation and many channels
LINEAR = ("linear", "polynomial", "perceptron")
CHOOSING = [
    name
    for name in MODELS
    if "activation" in yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
]


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """32 real images of 8×8 pixels, standardised, and their classes."""
    pixels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels[:32]).float().view(-1, 1, 8, 8)
    return (x - x.mean()) / x.std(), torch.from_numpy(labels[:32])


def test_what_is_made_smaller_is_there() -> None:
    assert {*SMALL, *WIDE, *LINEAR} <= set(MODELS)
    assert {"mlp", "lenet", "vgg", "resnet", "stn"} <= set(CHOOSING)


@pytest.mark.parametrize("name", MODELS)
def test_learns_32_real_images_by_heart(
    make_model: Make, digits: tuple[torch.Tensor, torch.Tensor], name: str
) -> None:
    torch.manual_seed(0)
    x, y = digits
    off = {"dropout": 0.0, **({"input_dropout": 0.0} if name == "maxout" else {})}
    net = make_model(name, [1, 8, 8], **SMALL.get(name, {}), **off)
    rate = 0.02 if name in LINEAR else 1e-3 if name in WIDE else 3e-3
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5  # its averages follow within a few steps
    for step in range(150):
        net.train()
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        if step % 5 == 4:
            with torch.no_grad():
                right = int((net.eval()(x).argmax(1) == y).sum())
            if right == 32:
                break
    assert right == 32


@pytest.mark.parametrize("name", MODELS)
def test_trains_under_bf16_autocast(
    make_model: Make, digits: tuple[torch.Tensor, torch.Tensor], name: str
) -> None:
    torch.manual_seed(0)
    x, y = digits[0][:4], digits[1][:4]
    net = make_model(name, [1, 8, 8], **SMALL.get(name, {}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(net(x), y)
    loss.backward()
    assert torch.isfinite(loss)
    for parameter, tensor in net.named_parameters():
        assert tensor.grad is not None, parameter
        assert torch.isfinite(tensor.grad).all(), parameter


@pytest.mark.parametrize("name", quick_if(CHOOSING, is_light))
def test_any_activation_is_a_config_value(make_model: Make, name: str) -> None:
    counts = {}
    for activation in ACTIVATIONS:
        with torch.device("meta"):
            net = make_model(
                name,
                [1, 28, 28],
                **{**SMALL.get(name, {}), "init": "default"},
                activation=activation,
            )
            assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
        counts[activation] = sum(p.numel() for p in net.parameters())
    assert len({n for activation, n in counts.items() if activation != "maxout"}) == 1


@pytest.mark.parametrize(
    "name", ["alexnet", "zfnet", "resnet", "senet", "googlenet", "googlenet_bn"]
)
def test_the_documented_stem_is_for_large_images_alone(make_model: Make, name: str) -> None:
    with torch.device("meta"):
        large, small = (make_model(name, [3, side, side]) for side in (224, 32))
    first_large, first_small = (
        next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d)) for net in (large, small)
    )
    assert first_large.kernel_size[0] in (7, 11)
    assert first_large.stride[0] in (2, 4)
    assert first_small.kernel_size[0] in (3, 5)
    assert first_small.stride[0] == 1
    with pytest.raises(ValueError, match="stem: expected small for sides below"):
        make_model(name, [3, 32, 32], stem="paper")
    with pytest.raises(ValueError, match="stem: expected one of auto, paper, small, got 'large'"):
        make_model(name, [3, 32, 32], stem="large")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("alexnet", {"groups": 3}, "groups: expected 1 or 2, got 3"),
        ("alexnet", {"width": 0}, "width: expected a positive factor, got 0"),
        ("vgg", {"depth": 12}, "depth: expected one of 11, 13, 16, 19, got 12"),
        ("resnet", {"depth": 20}, "depth: expected one of 18, 34, 50, 101, 152, got 20"),
        ("resnet_cifar", {"depth": 18}, "depth: expected 6n + 2 layers"),
        ("googlenet", {"module": "half"}, "module: expected full or naive, got 'half'"),
        ("senet", {"reduction": 0}, "reduction: expected a positive integer, got 0"),
        ("kernels", {"kernels": ["emboss"]}, "kernels: expected some of identity"),
        ("kernels", {"size": 4}, "size: expected an odd number, got 4"),
        ("polynomial", {"degree": 0}, "degree: expected a positive integer, got 0"),
        ("maxout", {"pieces": 0}, "pieces: expected a positive integer, got 0"),
        ("stn", {"in_shape": [1, 4, 4]}, "in_shape: expected sides of 8 pixels or more, got 4×4"),
    ],
)
def test_bad_arguments_are_named(
    make_model: Make, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        make_model(name, [1, 8, 8], **changes)
