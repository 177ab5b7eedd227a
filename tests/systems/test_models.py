"""Every YAML of conf/model, found by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
import yaml

from dlsearch.core.errors import ConfigError
from dlsearch.inspection.describe import layer_table, summary
from dlsearch.systems.shared.layers import ACTIVATIONS
from tests.kinds import quick_if
from tests.systems.heavy import is_light

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Make = Callable[..., nn.Module]

MODELS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
SHAPES = [[1, 8, 8], [1, 28, 28], [3, 32, 32]]


def test_there_are_models() -> None:
    assert {"linear", "mlp", "lenet", "convnet"} <= set(MODELS)


@pytest.mark.parametrize(
    ("name", "shape"),
    quick_if(
        [(name, shape) for shape in SHAPES for name in MODELS],
        lambda case: is_light(case[0]) or case[1] == SHAPES[0],
    ),
    ids=str,
)
def test_gradients_reach_every_parameter(make_model: Make, name: str, shape: list[int]) -> None:
    torch.manual_seed(0)
    net = make_model(name, shape)
    logits = net(torch.randn(4, *shape))
    assert logits.shape == (4, 10)
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for parameter, tensor in net.named_parameters():
        assert tensor.grad is not None, parameter
        assert tensor.grad.abs().sum() > 0, parameter


# by heart they learn in `test_families`, made smaller
@pytest.mark.parametrize("name", quick_if(MODELS, is_light))
def test_training_reduces_the_loss(make_model: Make, name: str) -> None:
    torch.manual_seed(0)
    net = make_model(name, [1, 8, 8], dropout=0.0)
    x, y = torch.randn(32, 1, 8, 8), torch.arange(32) % 10
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        losses.append(F.cross_entropy(net(x), y))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "changes"),
    quick_if(
        [*((name, {}) for name in MODELS), ("googlenet", {"auxiliary": True})],
        lambda case: is_light(case[0]) or case[0] == "resnet",
    ),
    ids=str,
)
def test_exports_with_a_batch_of_any_size(
    make_model: Make, name: str, changes: dict[str, Any]
) -> None:
    net = make_model(name, [1, 28, 28], **changes).eval()
    program = torch.export.export(
        net, (torch.randn(2, 1, 28, 28),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    x = torch.randn(5, 1, 28, 28)
    torch.testing.assert_close(program.module()(x), net(x))


@pytest.mark.parametrize("name", MODELS)
def test_is_built_on_the_meta_device(make_model: Make, name: str) -> None:
    with torch.device("meta"):
        net = make_model(name, [1, 28, 28], init="kaiming")
    assert {p.device.type for p in net.parameters()} == {"meta"}
    assert summary(net, (1, 28, 28))["n_params"] > 0


@pytest.mark.parametrize("name", MODELS)
def test_dropout_drops_in_training_alone(make_model: Make, name: str) -> None:
    net = make_model(name, [1, 8, 8], dropout=0.5)
    x = torch.randn(8, 1, 8, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["mlp", "lenet", "convnet"])
def test_any_activation_is_a_config_value(make_model: Make, name: str, activation: str) -> None:
    net = make_model(name, [1, 8, 8], activation=activation)
    logits = net(torch.randn(4, 1, 8, 8))
    logits.sum().backward()
    assert logits.shape == (4, 10)
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "changes", "count"),
    [
        ("linear", [1, 28, 28], {}, 7_850),
        ("lenet", [1, 28, 28], {}, 61_706),
        ("lenet", [1, 32, 32], {}, 61_706),
        (
            "mlp",
            [1, 28, 28],
            {"widths": [300, 100]},
            784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10,
        ),
        ("mlp", [1, 28, 28], {"depth": 0}, 7_850),
        ("mlp", [10], {"depth": 1, "width": 4, "batch_norm": True}, 10 * 4 + 4 + 8 + 4 * 10 + 10),
        (
            "convnet",
            [3, 32, 32],
            {},
            9 * (3 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + 128 * 10 + 10,
        ),
    ],
)
def test_parameters(
    make_model: Make, name: str, shape: list[int], changes: dict[str, Any], count: int
) -> None:
    assert sum(p.numel() for p in make_model(name, shape, **changes).parameters()) == count


def test_lenet_has_the_shapes_of_the_paper(make_model: Make) -> None:
    table = layer_table(make_model("lenet", [1, 28, 28], pool="average"), (1, 28, 28))
    rows = [row for row in table if row["type"] in ("Conv2d", "AvgPool2d", "Linear")]
    assert [row["out"] for row in rows] == [
        [6, 28, 28],
        [6, 14, 14],
        [16, 10, 10],
        [16, 5, 5],
        [120],
        [84],
        [10],
    ]
    assert [row["params"] for row in rows] == [156, 0, 2_416, 0, 48_120, 10_164, 850]
    macs = [25 * 6 * 28 * 28, 0, 25 * 6 * 16 * 100, 0, 400 * 120, 120 * 84, 84 * 10]
    assert [row["macs"] for row in rows] == macs


@pytest.mark.parametrize("side", [8, 13, 19, 20, 27, 28, 32, 40])
def test_lenet_takes_any_side(make_model: Make, side: int) -> None:
    assert make_model("lenet", [2, side, side])(torch.randn(1, 2, side, side)).shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("lenet", {"pool": "min"}, "pool: expected one of max, average, got 'min'"),
        ("lenet", {"in_shape": [784]}, "in_shape: expected (channels, height, width), got [784]"),
        ("lenet", {"in_shape": [1, 4, 4]}, "in_shape: expected sides of 8 pixels or more, got 4×4"),
        ("mlp", {"dropout": 1.0}, "dropout: expected 0 to 1 (1 excluded), got 1.0"),
        ("mlp", {"widths": [0]}, "widths: expected positive integers, got [0]"),
        (
            "linear",
            {"num_classes": 0},
            "num_classes: expected a positive integer, got 0 (hint: 1 for a regression)",
        ),
        ("convnet", {"width": 0}, "width: expected a positive integer, got 0"),
        ("convnet", {"stages": 9}, "in_shape: expected sides of 256 pixels or more, got 8×8"),
    ],
)
def test_bad_arguments_are_named(
    make_model: Make, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        make_model(name, [1, 8, 8], **changes)
    assert message in str(error.value)


def test_every_yaml_binds_the_keys_of_the_default_space() -> None:
    for name in MODELS:
        config = yaml.safe_load(
            (Path(__file__).parents[2] / "conf" / "model" / f"{name}.yaml").read_text()
        )
        assert 0 <= config["dropout"] <= 0.5


def test_a_layer_that_runs_twice_is_counted_once() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    found = summary(Twice(), (3,))
    assert (found["n_params"], found["macs"]) == (12, 18)
    assert [row["params"] for row in found["layers"]] == [12, 0]


def test_a_net_that_meta_cannot_run_is_described_all_the_same() -> None:
    class Looks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) if x.sum().item() == 0 else x

    assert summary(Looks(), (2,))["macs"] == 4
