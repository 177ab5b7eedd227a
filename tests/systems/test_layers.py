from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dlsearch.systems.shared.layers import ACTIVATIONS, activation, expansion, initialise

FORMULAS = {
    "step": lambda x: 1.0 if x > 0 else 0.0,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": lambda x: (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)),
    "relu": lambda x: max(0.0, x),
    "leaky_relu": lambda x: max(0.01 * x, x),
    "leaky_relu_0.01": lambda x: max(0.01 * x, x),
    "leaky_relu_0.1": lambda x: max(0.1 * x, x),
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
}
POINTS = [-3.0, -1.0, -0.3, 0.0, 0.3, 0.7, 1.0, 2.5]


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_are_their_formulas(name: str) -> None:
    found = activation(name)(torch.tensor([POINTS]))
    torch.testing.assert_close(
        found, torch.tensor([[FORMULAS[name](x) for x in POINTS]]), rtol=1e-5, atol=1e-6
    )


def test_every_activation_has_a_formula_here() -> None:
    assert set(ACTIVATIONS) == {*FORMULAS, "maxout"}


def test_maxout_is_the_larger_of_two_linear_maps() -> None:
    layer = nn.Linear(3, 4 * expansion("maxout"))
    x = torch.randn(5, 3)
    w1, w2 = layer.weight.chunk(2)
    b1, b2 = layer.bias.chunk(2)
    torch.testing.assert_close(
        activation("maxout")(layer(x)), torch.maximum(x @ w1.T + b1, x @ w2.T + b2)
    )


def test_step_is_exactly_0_or_1_and_lets_gradients_through() -> None:
    x = torch.linspace(-2, 2, 400, requires_grad=True)  # none of them at an edge
    y = activation("step")(x)
    assert set(y.tolist()) == {0.0, 1.0}
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (x.detach().abs() < 1).float())


def test_an_unknown_activation_is_refused_by_its_argument() -> None:
    with pytest.raises(ValueError, match=r"^activation: expected one of step, .* got 'swish'"):
        activation("swish")


@pytest.mark.parametrize(
    ("scheme", "function", "deviation"),
    [
        ("xavier", "tanh", 5 / 3 * math.sqrt(2 / (400 + 600))),
        ("kaiming", "relu", math.sqrt(2 / 400)),
        ("kaiming", "leaky_relu_0.1", math.sqrt(2 / (1 + 0.1**2) / 400)),
        ("normal", "relu", 0.01),
    ],
)
def test_initial_weights_have_the_deviation_of_their_paper(
    scheme: str, function: str, deviation: float
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(400, 600)
    initialise(layer, scheme, function)
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.01)
    assert layer.bias.abs().sum() == 0


def test_default_initialisation_is_left_alone_and_unknown_ones_are_refused() -> None:
    layer = nn.Linear(4, 4)
    before = layer.weight.clone()
    initialise(layer, "default")
    assert torch.equal(layer.weight, before)
    with pytest.raises(
        ValueError, match=r"^init: expected one of default, xavier, kaiming, normal, got 'zero'"
    ):
        initialise(layer, "zero")
