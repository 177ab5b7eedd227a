"""The documented nets: parameters and shapes to the digit, and torchvision's outputs where it has the same form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from dlsearch.inspection.describe import layer_table
from dlsearch.systems.shared.layers import LocalResponseNorm
from dlsearch.systems.vision.models.alexnet import AlexNet
from dlsearch.systems.vision.models.googlenet import GoogLeNet, NormGoogLeNet
from dlsearch.systems.vision.models.resnet import CifarResNet, ResNet
from dlsearch.systems.vision.models.senet import SEResNet
from dlsearch.systems.vision.models.vgg import VGG
from dlsearch.systems.vision.models.zfnet import ZFNet


def on_meta(make: type[nn.Module], **arguments: Any) -> nn.Module:
    """Built without memory or time, whatever its size."""
    with torch.device("meta"):
        return make(**arguments)


@pytest.mark.parametrize(
    ("make", "arguments", "count"),
    [
        (AlexNet, {}, 62_378_344),
        (AlexNet, {"groups": 2}, 60_965_224),
        (ZFNet, {}, 62_357_608),
        (VGG, {"depth": 11}, 132_863_336),
        (VGG, {"depth": 13}, 133_047_848),
        (VGG, {"depth": 16}, 138_357_544),
        (VGG, {"depth": 19}, 143_667_240),
        (GoogLeNet, {}, 6_998_552),
        (GoogLeNet, {"auxiliary": True}, 13_378_280),
        (NormGoogLeNet, {}, 6_624_904),
        (NormGoogLeNet, {"auxiliary": True}, 13_004_888),
        (ResNet, {"depth": 18}, 11_689_512),
        (ResNet, {"depth": 34}, 21_797_672),
        (ResNet, {"depth": 50}, 25_557_032),
        (ResNet, {"depth": 101}, 44_549_160),
        (ResNet, {"depth": 152}, 60_192_808),
        (CifarResNet, {"depth": 20}, 269_722),
        (CifarResNet, {"depth": 32}, 464_154),
        (CifarResNet, {"depth": 44}, 658_586),
        (CifarResNet, {"depth": 56}, 853_018),
        (CifarResNet, {"depth": 110}, 1_727_962),
        (CifarResNet, {"depth": 1202}, 19_421_274),
        (CifarResNet, {"depth": 56, "residual": False}, 853_018),
        (SEResNet, {"depth": 50}, 28_088_024),
    ],
)
def test_parameters_of_the_documented_form(
    make: type[nn.Module], arguments: dict[str, Any], count: int
) -> None:
    assert sum(p.numel() for p in on_meta(make, **arguments).parameters()) == count


def shapes(net: nn.Module, side: int, *kinds: str) -> list[list[int]]:
    return [row["out"] for row in layer_table(net, (3, side, side)) if row["type"] in kinds]


def test_alexnets_own_biases() -> None:
    torch.manual_seed(0)
    net = AlexNet(in_shape=(3, 32, 32), num_classes=10, width=0.25, hidden=8, init="paper")
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    biases = [layer.bias.unique().tolist() for layer in layers]
    assert biases == [[0.0], [1.0], [0.0], [1.0], [1.0], [1.0], [1.0], [0.0]]


def test_alexnet_layer_by_layer() -> None:
    net = on_meta(AlexNet)
    found = shapes(net, 227, "Conv2d", "MaxPool2d", "LocalResponseNorm", "Linear")
    assert found == [
        [96, 55, 55], [96, 27, 27], [96, 27, 27], [256, 27, 27], [256, 13, 13], [256, 13, 13], [384, 13, 13],
        [384, 13, 13], [256, 13, 13], [256, 6, 6], [4096], [4096], [1000],
    ]  # fmt: skip
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_zfnet_layer_by_layer() -> None:
    found = shapes(on_meta(ZFNet), 224, "Conv2d", "MaxPool2d", "Linear")
    assert found == [
        [96, 110, 110], [96, 55, 55], [256, 26, 26], [256, 13, 13], [384, 13, 13], [384, 13, 13], [256, 13, 13],
        [256, 6, 6], [4096], [4096], [1000],
    ]  # fmt: skip


def test_vgg_halves_the_sides_five_times() -> None:
    net = on_meta(VGG, depth=16)
    assert shapes(net, 224, "MaxPool2d") == [
        [64, 112, 112],
        [128, 56, 56],
        [256, 28, 28],
        [512, 14, 14],
        [512, 7, 7],
    ]
    rows = layer_table(net, (3, 224, 224))
    assert sum(row["macs"] for row in rows) == 15_470_264_320
    assert sum(row["type"] in ("Conv2d", "Linear") for row in rows) == 16


def test_three_3x3_layers_see_7x7_pixels() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)))
    x = torch.zeros(1, 1, 15, 15, requires_grad=True)
    layers(x)[0, 0, 7, 7].backward()
    assert x.grad is not None
    rows, columns = x.grad[0, 0].nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 10, 4, 10)


def test_googlenet_stage_by_stage() -> None:
    net = on_meta(GoogLeNet)
    seen: dict[str, list[int]] = {}
    for name, block in net.inception.items():
        block.register_forward_hook(
            lambda m, i, o, name=name: seen.update({name: list(o.shape[1:])})
        )
    net.eval()(torch.zeros(1, 3, 224, 224, device="meta"))
    assert seen == {
        "3a": [256, 28, 28], "3b": [480, 28, 28], "4a": [512, 14, 14], "4b": [512, 14, 14], "4c": [512, 14, 14],
        "4d": [528, 14, 14], "4e": [832, 14, 14], "5a": [832, 7, 7], "5b": [1024, 7, 7],
    }  # fmt: skip


def test_the_naive_module_passes_all_channels_on() -> None:
    net = on_meta(GoogLeNet, module="naive")
    outputs = [block.outputs for block in net.inception.values()]
    assert outputs[0] == 192 + 64 + 128 + 32
    assert outputs == sorted(outputs)
    assert sum(p.numel() for p in net.parameters()) > 10 * 6_998_552


@pytest.mark.parametrize("make", [GoogLeNet, NormGoogLeNet])
@pytest.mark.parametrize("side", [8, 28, 32, 48])
def test_auxiliary_classifiers_speak_in_training_alone(make: type[nn.Module], side: int) -> None:
    net = on_meta(make, in_shape=(1, side, side), num_classes=10, auxiliary=True)
    x = torch.zeros(2, 1, side, side, device="meta")
    assert net.eval()(x).shape == (2, 10)
    assert net.auxiliary_logits == []
    assert net.train()(x).shape == (2, 10)
    assert [logits.shape for logits in net.auxiliary_logits] == [(2, 10), (2, 10)]


@pytest.mark.parametrize("make", [GoogLeNet, NormGoogLeNet])
def test_auxiliary_classifiers_see_4x4_positions_as_documented(make: type[nn.Module]) -> None:
    net = on_meta(make, auxiliary=True)
    net.train()(torch.zeros(2, 3, 224, 224, device="meta"))
    assert [logits.shape for logits in net.auxiliary_logits] == [(2, 1000), (2, 1000)]
    assert (
        sum(isinstance(m, nn.Linear) and m.in_features == 128 * 4 * 4 for m in net.modules()) == 2
    )


@pytest.mark.parametrize(
    ("depth", "last"), [(18, [512, 7, 7]), (50, [2048, 7, 7])], ids=["basic blocks", "bottlenecks"]
)
def test_resnet_stage_by_stage(depth: int, last: list[int]) -> None:
    net = on_meta(ResNet, depth=depth)
    factor = last[0] // 512
    seen: list[list[int]] = []
    for stage in (net.conv1, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4):
        stage.register_forward_hook(lambda m, i, o: seen.append(list(o.shape[1:])))
    net.eval()(torch.zeros(1, 3, 224, 224, device="meta"))
    stages = [[64 * factor, 56, 56], [128 * factor, 28, 28], [256 * factor, 14, 14], last]
    assert seen == [[64, 112, 112], [64, 56, 56], *stages]


@pytest.mark.parametrize("residual", [True, False])
def test_cifar_resnet_stage_by_stage(residual: bool) -> None:
    net = on_meta(CifarResNet, depth=20, residual=residual)
    seen: list[list[int]] = []
    for stage in (net.stage1, net.stage2, net.stage3):
        stage.register_forward_hook(lambda m, i, o: seen.append(list(o.shape[1:])))
    net.eval()(torch.zeros(1, 3, 32, 32, device="meta"))
    assert seen == [[16, 32, 32], [32, 16, 16], [64, 8, 8]]
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in net.modules()) == 20


# -- torchvision, where it has the same form -------------------------------------------------------------------------
SIDE = 64  # the smallest with the documented first layers; torchvision's nets take any


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: ResNet((3, SIDE, SIDE), depth=18), torchvision.models.resnet18),
        (lambda: ResNet((3, SIDE, SIDE), depth=50), torchvision.models.resnet50),
        (
            lambda: NormGoogLeNet((3, SIDE, SIDE)),
            lambda: torchvision.models.googlenet(aux_logits=False, init_weights=False),
        ),
    ],
    ids=["resnet18", "resnet50", "googlenet"],
)
def test_torchvisions_weights_give_torchvisions_outputs(
    ours: Any, theirs: Any, images: torch.Tensor
) -> None:
    torch.manual_seed(0)
    net, reference = ours().eval(), theirs().eval()
    net.load_state_dict(reference.state_dict(), strict=True)
    # In double precision: untrained outputs are large, and the order of sums differs with the
    # memory layout.
    with torch.inference_mode():
        found, expected = (each.double()(images.double()) for each in (net, reference))
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vggs_convolutions_are_torchvisions(batch_norm: bool, images: torch.Tensor) -> None:
    """With a classifier of its own, so that no layer of 100 million weights is needed."""
    from torchvision.models.vgg import VGG as Reference
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    net = VGG((3, SIDE, SIDE), num_classes=7, depth=16, batch_norm=batch_norm, hidden=16).eval()
    with torch.device("meta"):
        reference = Reference(make_layers(cfgs["D"], batch_norm), init_weights=False)
    reference.avgpool = nn.Identity()
    reference.classifier = net.classifier
    reference.features.to_empty(device="cpu").load_state_dict(
        net.features.state_dict(), strict=True
    )
    with torch.inference_mode():
        torch.testing.assert_close(net(images), reference.eval()(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vggs_layers_have_torchvisions_names_and_shapes(depth: int) -> None:
    with torch.device("meta"):
        reference = getattr(torchvision.models, f"vgg{depth}")(init_weights=False)
    theirs = {name: tensor.shape for name, tensor in reference.state_dict().items()}
    assert {
        name: tensor.shape for name, tensor in on_meta(VGG, depth=depth).state_dict().items()
    } == theirs


def test_local_response_normalisation_is_the_papers() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 9, 3, 3) * 20
    expected = torch.empty_like(x)
    for i in range(9):
        total = x[:, max(0, i - 2) : i + 3].square().sum(1)
        expected[:, i] = x[:, i] / (2 + 1e-4 * total) ** 0.75
    torch.testing.assert_close(LocalResponseNorm()(x), expected)
    # torch divides alpha by the size
    torch.testing.assert_close(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)(x), expected)


def test_se_blocks_weigh_channels() -> None:
    torch.manual_seed(0)
    net = SEResNet((1, 8, 8), 10, depth=18).eval()
    block = net.layer2[0]
    norm, squeeze = block.bn2
    y = torch.randn(2, norm.num_features, 4, 4)
    factors = (squeeze(y) / y).mean((2, 3))
    w1, w2 = squeeze.fc1, squeeze.fc2
    mean = y.mean((2, 3))
    expected = (
        w2.weight[:, :, 0, 0] @ (w1.weight[:, :, 0, 0] @ mean.T + w1.bias[:, None]).relu()
    ).T + w2.bias
    torch.testing.assert_close(factors, expected.sigmoid(), rtol=1e-4, atol=1e-5)
    assert w1.out_channels == norm.num_features // 16


def test_option_a_subsamples_and_pads_with_zeros() -> None:
    from dlsearch.systems.vision.models.resnet import CifarBlock

    block = CifarBlock(16, 32, 2, residual=True, activation="relu")
    x = torch.randn(1, 16, 8, 8)
    y = block.shortcut(x)
    assert y.shape == (1, 32, 4, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].abs().sum() + y[:, 24:].abs().sum() == 0


@pytest.mark.parametrize("make", [ResNet, CifarResNet])
def test_the_plain_net_has_no_way_around_its_layers(make: type[nn.Module]) -> None:
    """With all normalisations at 0 a residual net still passes its input on, a plain one does not."""
    depth = 18 if make is ResNet else 20
    outputs = {}
    for residual in (True, False):
        torch.manual_seed(0)
        net = make((3, 16, 16), 10, depth=depth, residual=residual).eval()
        blocks = (
            net.blocks()
            if make is ResNet
            else [b for s in (net.stage1, net.stage2, net.stage3) for b in s]
        )
        for block in blocks:
            nn.init.zeros_(block.bn2.weight)
        x = torch.randn(4, 3, 16, 16)
        outputs[residual] = net(x)
    assert outputs[True].std(0).max() > 1e-3
    assert outputs[False].std(0).max() == 0
