"""From a feature back to pixels: the transposed map where nothing is rectified, and within the receptive field."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import nn

from dlsearch.inspection.deconvolution import Chain, find_chain, geometry, project
from dlsearch.systems.shared.layers import LocalResponseNorm
from dlsearch.systems.vision.models.alexnet import AlexNet
from dlsearch.systems.vision.models.convnet import ConvNet
from dlsearch.systems.vision.models.lenet import LeNet5
from dlsearch.systems.vision.models.resnet import CifarResNet
from dlsearch.systems.vision.models.stn import STN
from dlsearch.systems.vision.models.vgg import VGG
from dlsearch.systems.vision.models.zfnet import ZFNet


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    """A real photograph, grey, (1, 1, 96, 96), standardised."""
    x = torch.from_numpy(load_sample_image("china.jpg").mean(2)).float()[
        None, None, 100:196, 200:296
    ]
    return (x - x.mean()) / x.std()


def test_what_a_feature_saw_lies_within_its_receptive_field(photograph: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = ZFNet([1, 80, 80], 10, width=0.1, hidden=8, stem="paper").eval()
    x = photograph[..., :80, :80]
    for layer in (0, 5, 11):
        out = net.features[: layer + 1](x)
        channel = int(out.amax((0, 2, 3)).argmax())  # one that answers: the net is not trained
        seen = project(net.features, x, layer, channel)
        assert seen.shape == x.shape
        assert torch.isfinite(seen).all()
        assert seen.abs().sum() > 0
        row, column = divmod(int(out[0, channel].flatten().argmax()), out.shape[3])
        top, left, height, width = geometry(net.features[: layer + 1]).box(row, column, (80, 80))
        outside = seen.clone()
        outside[..., top : top + height, left : left + width] = 0
        assert outside.abs().sum() == 0
    with pytest.raises(ValueError, match="layer: expected 0 to 14, got 15"):
        project(net.features, x, layer=15, channels=0)
    with pytest.raises(ValueError, match="channel: expected 0 to 9, got 10"):
        project(net.features, x, layer=0, channels=10)


@pytest.mark.parametrize(
    "before",
    [
        [nn.MaxPool2d(2)],
        [nn.AvgPool2d(2)],
        [nn.BatchNorm2d(3)],
        [nn.Dropout(0.5), nn.MaxPool2d(3, 2, 1)],
    ],
    ids=str,
)
def test_a_projection_is_the_gradient_where_all_signals_are_positive(
    before: list[nn.Module],
) -> None:
    """Positive weights: nothing is rectified away, so that the way back is the transposed map."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), *before, nn.Conv2d(3, 2, 3, bias=False)
    ).eval()
    for name, parameter in layers.named_parameters():
        nn.init.uniform_(parameter, 0.1, 1.0)
        assert name
    x = torch.rand(2, 1, 12, 12, requires_grad=True)
    out = layers(x)[:, 1].flatten(1)
    strongest = out.max(1).values
    (gradient,) = torch.autograd.grad(strongest.sum(), x)
    expected = gradient * strongest.detach()[:, None, None, None]
    torch.testing.assert_close(project(layers, x.detach(), len(layers) - 1, 1), expected)
    both = project(layers, x.detach(), len(layers) - 1, [0, 1])  # a channel for each image
    torch.testing.assert_close(both[1], expected[1])
    assert not torch.allclose(both[0], expected[0])


def test_negative_signals_do_not_pass_an_activation() -> None:
    layers = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(1, 1, 1, bias=False)
    )
    nn.init.ones_(layers[0].weight)
    nn.init.constant_(layers[2].weight, -1.0)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert project(layers, x, 2, 0).abs().sum() > 0  # the strongest answer, −1, comes back as +1
    layers[2].weight.data.fill_(1.0)
    layers[0].weight.data.fill_(-1.0)
    assert project(layers, -x, 2, 0).abs().sum() > 0
    nn.init.constant_(layers[0].weight, 1.0)
    layers.append(nn.Conv2d(1, 1, 1))
    nn.init.constant_(layers[3].weight, -1.0)
    nn.init.constant_(layers[3].bias, 100.0)
    assert project(layers, x, 3, 0).abs().sum() == 0  # 99 comes back as −99, which the ReLU holds


def test_a_projection_divides_by_what_normalisation_divided_by() -> None:
    layers = nn.Sequential(LocalResponseNorm())
    x = torch.rand(1, 6, 2, 2) * 50
    seen = project(layers, x, layer=0, channels=3)
    place = seen[0, 3].flatten().argmax()
    normalised = (x / layers[0].divisor(x))[0, 3].flatten()
    assert place == normalised.argmax()
    assert seen[0, 3].flatten()[place] == pytest.approx(
        (normalised / layers[0].divisor(x)[0, 3].flatten())[place].item()
    )
    with pytest.raises(ValueError, match="layers: expected convolutions, pools"):
        project(nn.Sequential(nn.Flatten()), x, layer=0, channels=0)


@pytest.mark.parametrize(
    ("net", "convolutions", "first", "features"),
    [
        (
            LeNet5([1, 28, 28], 10, activation="tanh", pool="average"),
            2,
            "features.0",
            ["features.1", "features.4"],
        ),
        (
            ConvNet([1, 28, 28], 10, width=4),
            3,
            "features.0",
            ["features.2", "features.6", "features.10"],
        ),
        (
            AlexNet([1, 28, 28], 10, width=0.1, hidden=8),
            5,
            "features.0",
            [f"features.{i}" for i in (1, 5, 9, 11, 13)],
        ),
        (VGG([1, 28, 28], 10, depth=11, width=0.1, hidden=8), 8, "features.0", None),
        (STN([1, 28, 28], 10, width=4), 2, "features.0", ["features.1", "features.4"]),
        (CifarResNet([1, 28, 28], 10, depth=8), 3, "conv", None),  # up to the first sum
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_the_longest_chain_is_found(
    net: nn.Module, convolutions: int, first: str, features: list[str] | None
) -> None:
    x = torch.randn(1, 1, 28, 28)
    chain = find_chain(net.eval(), x)
    assert isinstance(chain, Chain)
    assert sum(isinstance(layer, nn.Conv2d) for layer in chain.layers) == convolutions
    assert chain.names[0].startswith(first)
    if features is not None:
        assert [chain.names[i] for i in chain.features()] == features
    given = net.transformer(x) if isinstance(net, STN) else x
    assert torch.isfinite(project(chain.layers, given, len(chain.layers) - 1, 0)).all()


def test_a_net_without_convolutions_has_no_chain() -> None:
    assert (
        find_chain(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.zeros(1, 1, 8, 8)) is None
    )
    assert find_chain(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), torch.zeros(1, 1, 8, 8)) is None
