"""K-FAC against the exact Fisher matrix of small nets, and as an optimiser."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dlsearch.systems.shared.kfac import KFAC, inverses


def exact_fisher(net: nn.Module, layer: Any, x: Tensor, likelihood: str) -> Tensor:
    """E[g gᵀ] of a layer's weights and bias, by one backward pass for each sample and label.

    g is flattened as (outputs, inputs + 1) with the outputs running slowest.
    """
    total: Any = 0
    for sample in x:
        outputs = net(sample[None])[0]
        chances = outputs.softmax(0).detach()
        for k in range(len(outputs)):
            loss = -outputs.log_softmax(0)[k] if likelihood == "categorical" else outputs[k]
            parts = torch.autograd.grad(loss, [layer.weight, layer.bias], retain_graph=True)
            g = torch.cat([parts[0].flatten(1), parts[1][:, None]], dim=1).flatten()
            total = total + (chances[k] if likelihood == "categorical" else 1.0) * torch.outer(g, g)
    return total / len(x)


def measured(net: nn.Module, x: Tensor, **settings: Any) -> KFAC:
    optimizer = KFAC(net.parameters(), factor_decay=0.0, **settings)
    optimizer.attach(net)
    net(x)
    return optimizer


def product(optimizer: KFAC, layer: Any) -> Tensor:
    state = optimizer.state[layer.weight]
    return torch.kron(state["G"].contiguous(), state["A"].contiguous())


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 5))


def test_of_one_sample_every_block_is_the_exact_fisher() -> None:
    """A and G of a layer are independent of each other where there is one input only."""
    net, x = small_net(), torch.randn(1, 4)
    optimizer = measured(net, x, fisher="exact")
    g, found = optimizer.state[net[2].weight]["G"], [product(optimizer, net[i]) for i in (0, 2)]
    for i, block in zip((0, 2), found, strict=True):
        torch.testing.assert_close(block, exact_fisher(net, net[i], x, "categorical"))
    p = net(x)[0].softmax(0).detach()
    torch.testing.assert_close(g, torch.diag(p) - torch.outer(p, p))


def test_of_a_linear_gaussian_net_every_block_is_the_exact_fisher() -> None:
    """There the gradients at the outputs do not depend on the inputs, so any batch will do."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.randn(16, 4)
    optimizer = measured(net, x, fisher="exact", likelihood="gaussian")
    # before anything else runs through the net
    found = [product(optimizer, layer) for layer in net]
    for layer, block in zip(net, found, strict=True):
        torch.testing.assert_close(block, exact_fisher(net, layer, x, "gaussian"))


def test_a_convolution_over_one_position_is_a_linear_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3, 4))
    x = torch.randn(1, 2, 3, 3)
    optimizer = measured(net, x, fisher="exact")
    torch.testing.assert_close(
        product(optimizer, net[0]), exact_fisher(net, net[0], x, "categorical")
    )


def test_a_convolutions_factors_are_the_papers() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(27, 4))
    x = torch.randn(2, 2, 5, 5)
    optimizer = measured(net, x, fisher="exact", likelihood="gaussian")
    state = optimizer.state[net[0].weight]
    padded = F.pad(x, (1, 1, 1, 1))
    a = torch.zeros(19, 19)
    for image in padded:
        for i in range(3):
            for j in range(3):
                patch = torch.cat(
                    [image[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].flatten(), torch.ones(1)]
                )
                a += torch.outer(patch, patch) / 2
    torch.testing.assert_close(state["A"], a)
    w = net[2].weight.detach().view(4, 3, 9)  # the gradient of output k at map c and position t
    torch.testing.assert_close(state["G"], torch.einsum("kct,kdt->cd", w, w) / 9)


def test_sampled_labels_are_right_on_average() -> None:
    net, x = small_net(), torch.randn(1, 4).repeat(40_000, 1)
    sampled = measured(net, x, fisher="sampled").state[net[2].weight]["G"]
    exact = measured(net, x[:1], fisher="exact").state[net[2].weight]["G"]
    assert (sampled - exact).abs().max() < 0.02 * exact.abs().max() + 0.005


def test_a_step_is_the_inverse_of_the_damped_product_times_the_gradient() -> None:
    net, x, y = small_net(), torch.randn(8, 4), torch.arange(8) % 5
    optimizer = KFAC(
        net.parameters(), lr=0.5, momentum=0.0, damping=0.1, norm_limit=0.0, fisher="exact"
    )
    optimizer.attach(net)
    before = [p.detach().clone() for p in net.parameters()]
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    for layer, (weight, bias) in ((net[0], before[:2]), (net[2], before[2:])):
        state = optimizer.state[layer.weight]
        a, g = state["A"], state["G"]
        pi = ((a.trace() / len(a)) / (g.trace() / len(g))).sqrt()
        damped = torch.kron(
            g + 0.1**0.5 / pi * torch.eye(len(g)), a + pi * 0.1**0.5 * torch.eye(len(a))
        )
        gradient = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], dim=1)
        step = torch.linalg.solve(damped, gradient.flatten()).view_as(gradient)
        moved = torch.cat([weight - layer.weight, (bias - layer.bias)[:, None]], dim=1)
        torch.testing.assert_close(moved, 0.5 * step, rtol=1e-4, atol=1e-6)


def test_damping_of_nothing_but_itself() -> None:
    a, g = inverses(torch.zeros(3, 3), torch.zeros(2, 2), 0.01)
    assert torch.isfinite(a).all()
    assert torch.isfinite(g).all()


def test_the_length_of_a_step_is_limited() -> None:
    moved, gradients = {}, Tensor()
    for limit in (0.0, 1e-4):
        net = small_net()
        optimizer = KFAC(net.parameters(), lr=0.5, momentum=0.0, norm_limit=limit, fisher="exact")
        optimizer.attach(net)
        before = nn.utils.parameters_to_vector(net.parameters()).detach()
        torch.manual_seed(1)
        F.cross_entropy(net(torch.randn(8, 4)), torch.arange(8) % 5).backward()
        optimizer.step()
        moved[limit] = before - nn.utils.parameters_to_vector(net.parameters()).detach()
        gradients = torch.cat([p.grad.flatten() for p in net.parameters()])
    length = 0.5 * moved[0.0] @ gradients  # lr² · step · gradient
    assert length > 1e-3
    torch.testing.assert_close(
        moved[1e-4], moved[0.0] * (1e-4 / length).sqrt(), rtol=1e-3, atol=1e-7
    )


def test_learns_digits_in_fewer_steps_than_gradient_descent() -> None:
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels[:512] / 16).float(), torch.from_numpy(labels[:512])
    losses = {}
    for name in ("kfac", "sgd"):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)
        )
        optimizer: Any = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        if name == "kfac":
            optimizer = KFAC(net.parameters(), lr=0.1, update_every=5, norm_limit=0.01)
            optimizer.attach(net)
        for _ in range(60):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
        losses[name] = loss.item()
    assert losses["kfac"] < 0.5 * losses["sgd"]


def test_what_has_no_factors_takes_gradient_steps() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    optimizer = KFAC(net.parameters(), lr=0.1, momentum=0.0)
    optimizer.attach(net)
    before = net[1].bias.detach().clone()
    net(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(net[1].bias, before - 0.1 * net[1].bias.grad)


def test_evaluation_measures_nothing() -> None:
    net = small_net()
    optimizer = KFAC(net.parameters())
    optimizer.attach(net)
    with torch.no_grad():
        net(torch.randn(2, 4))
    net.eval()(torch.randn(2, 4))
    assert not optimizer.state[net[0].weight]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"damping": 0}, "^damping: expected a positive number, got 0"),
        ({"momentum": 1.0}, "^momentum: expected 0 or more and below 1, got 1.0"),
        ({"update_every": 0}, "^update_every: expected a positive integer, got 0"),
        (
            {"likelihood": "poisson"},
            "^likelihood: expected one of categorical, gaussian, got 'poisson'",
        ),
        ({"fisher": "empirical"}, "^fisher: expected one of sampled, exact, got 'empirical'"),
    ],
)
def test_bad_arguments_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KFAC([nn.Parameter(torch.zeros(1))], **settings)


class WithAuxiliary(nn.Module):
    """A net with a head that the outputs do not come from."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.head = nn.Linear(3, 5)
        self.auxiliary = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).tanh()
        self.extra = self.auxiliary(hidden)
        return self.head(hidden)


def test_an_auxiliary_head_takes_plain_steps() -> None:
    torch.manual_seed(0)
    net, x, y = WithAuxiliary(), torch.randn(6, 4), torch.randint(5, (6,))
    optimizer = KFAC(net.parameters(), lr=0.1, momentum=0.0)
    optimizer.attach(net)
    loss = F.cross_entropy(net(x), y) + F.cross_entropy(net.extra, y)
    loss.backward()
    before = net.auxiliary.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(
        net.auxiliary.weight, before - 0.1 * net.auxiliary.weight.grad, rtol=0, atol=1e-7
    )
    assert "G" in optimizer.state[net.body.weight]
    assert "G" not in optimizer.state[net.auxiliary.weight]


def test_the_likelihood_is_the_tasks_unless_it_is_given() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    optimizer = KFAC(net.parameters())
    optimizer.attach(net, "gaussian")
    net(torch.randn(6, 4))
    assert optimizer.state[net[2].weight]["G"].item() > 0
    given = KFAC(net.parameters(), likelihood="categorical")
    given.attach(net, "gaussian")
    # a softmax of one output is 1: there would be no curvature at all
    with pytest.raises(ValueError, match=r"^optimizer\.likelihood: categorical needs two outputs"):
        net(torch.randn(6, 4))
