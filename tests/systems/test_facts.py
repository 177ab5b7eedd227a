"""What each paper or course says of its net, apart from sizes and shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_image
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import PolynomialFeatures
from torch import nn

from dlsearch.systems.basic.models.maxout import MaxoutNet
from dlsearch.systems.basic.models.mlp import MLP
from dlsearch.systems.basic.models.perceptron import Perceptron
from dlsearch.systems.basic.models.polynomial import PolynomialModel
from dlsearch.systems.vision.models.gated import GatedBiDirectional, GatedNet, Message
from dlsearch.systems.vision.models.kernels import KERNELS, filtered, gabor, gabor_bank, kernel
from dlsearch.systems.vision.models.stn import STN, SpatialTransformer, affine_grid, sample

ROWS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR = torch.tensor([0, 1, 1, 0])


# -- perceptron, multilayer perceptron -------------------------------------------------------------------------------
def test_a_threshold_unit_with_a_bias_input_of_1() -> None:
    net = Perceptron([2], 2)
    assert net.units.weight.shape == (1, 3)
    with torch.no_grad():
        net.units.weight.copy_(torch.tensor([[1.0, 1.0, -1.0]]))
    # AND; the sums of rows 2 and 3 are 0, which is not above
    assert net.fires(ROWS).flatten().tolist() == [0, 0, 0, 1]
    assert net(ROWS).argmax(1).tolist() == [0, 0, 0, 1]
    assert Perceptron([64], 10).units.weight.shape == (10, 65)


def test_a_hidden_layer_solves_xor() -> None:
    torch.manual_seed(0)
    net = MLP([2], 2, depth=1, width=8, activation="tanh")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(net(ROWS), XOR).backward()
        optimizer.step()
    assert net(ROWS).argmax(1).tolist() == XOR.tolist()


# -- regression ------------------------------------------------------------------------------------------------------
def test_powers_of_a_feature_fit_a_polynomial_as_least_squares_does() -> None:
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    y = 0.5 - x + 2 * x**2 + torch.sin(9 * x) / 10
    net = PolynomialModel([1], 1, degree=3).double()
    assert torch.equal(net.powers(x), torch.cat([x, x**2, x**3], dim=1))
    optimizer = torch.optim.LBFGS(
        net.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.mse_loss(net(x), y)
        value.backward()
        return value

    optimizer.step(loss)
    exact = LinearRegression().fit(
        PolynomialFeatures(3, include_bias=False).fit_transform(x.numpy()), y.numpy()
    )
    np.testing.assert_allclose(net.linear.weight.detach().numpy(), exact.coef_, atol=1e-6)
    np.testing.assert_allclose(net.linear.bias.detach().numpy(), exact.intercept_, atol=1e-6)


# -- maxout ----------------------------------------------------------------------------------------------------------
def test_a_maxout_unit_is_the_largest_of_its_linear_maps() -> None:
    torch.manual_seed(0)
    net = MaxoutNet([3], 2, depth=1, width=4, pieces=5).eval()
    x = torch.randn(6, 3)
    linear = net.hidden[1]
    maps = x @ linear.weight.T + linear.bias
    largest = torch.stack(maps.split(4, dim=1)).max(0).values
    torch.testing.assert_close(net(x), net.output(largest))


# -- the vanishing gradient ------------------------------------------------------------------------------------------
def gradient_norms(activation: str, init: str) -> np.ndarray:
    """Of the biases of each of 20 hidden layers, the first of them first, on 64 real images.

    A bias's gradient is the one at its layer's sums; that of a weight is also as large as the
    layer's inputs.
    """
    torch.manual_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels[:64] / 16).float(), torch.from_numpy(labels[:64])
    net = MLP([64], 10, depth=20, width=64, activation=activation, init=init)
    F.cross_entropy(net((x - x.mean()) / x.std()), y).backward()
    return np.array([m.bias.grad.norm().item() for m in net.hidden if isinstance(m, nn.Linear)])


def test_gradients_vanish_exponentially_through_tanh_and_not_through_relu() -> None:
    tanh, relu = gradient_norms("tanh", "default"), gradient_norms("relu", "kaiming")
    depth = np.arange(20)
    slope, start = np.polyfit(depth, np.log(tanh), 1)
    residual = np.log(tanh) - (slope * depth + start)
    assert tanh[0] < 1e-3 * tanh[-1]  # the first layers hardly learn
    assert slope > 0.3  # each layer leaves less than three quarters
    # a straight line of logarithms: exponential decay
    assert residual.std() < 0.2 * np.log(tanh).std()
    assert relu[0] > 0.1 * relu[-1]
    assert abs(np.polyfit(depth, np.log(relu), 1)[0]) < 0.1


# -- fixed kernels ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    """(1, 1, 160, 160), a real one in grey, in [0, 1]."""
    pixels = torch.from_numpy(load_sample_image("china.jpg").astype(np.float32) / 255)
    return pixels[:160, 200:360].mean(-1)[None, None]


def test_kernels_are_exact() -> None:
    assert torch.equal(kernel("identity"), torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]))
    assert torch.equal(kernel("sharpen"), torch.tensor([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]]))
    assert torch.equal(kernel("edges"), torch.tensor([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]))
    assert torch.equal(kernel("sobel_x"), torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]))
    assert torch.equal(kernel("sobel_x").T, kernel("sobel_y"))
    assert torch.equal(kernel("prewitt_x").T, kernel("prewitt_y"))
    assert torch.equal(
        16 * kernel("gaussian_blur"), torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    )
    sums = {name: round(kernel(name).sum().item(), 5) for name in KERNELS}
    keep = {"identity", "box_blur", "gaussian_blur", "sharpen"}
    assert sums == {name: 1.0 if name in keep else 0.0 for name in KERNELS}


def test_kernels_do_what_they_are_called(photograph: torch.Tensor) -> None:
    out = dict(
        zip(
            KERNELS,
            filtered(photograph, torch.stack([kernel(n) for n in KERNELS])).unbind(1),
            strict=True,
        )
    )
    assert torch.equal(out["identity"], photograph[:, 0])
    assert (
        out["box_blur"].std() < out["gaussian_blur"].std() < photograph.std() < out["sharpen"].std()
    )
    flat = filtered(
        torch.full((1, 1, 9, 9), 0.3), torch.stack([kernel("edges"), kernel("sobel_x")])
    )
    assert flat.abs().max() < 1e-6
    step = torch.zeros(1, 1, 9, 9)
    step[..., 5:] = 1
    answers = filtered(step, torch.stack([kernel("sobel_x"), kernel("sobel_y")]))
    assert answers[0, 0, 4].tolist() == [0, 0, 0, 0, 4, 4, 0, 0, 0]
    assert answers[0, 1].abs().max() == 0


def test_gabors_kernel_is_its_formula_and_answers_its_own_stripes() -> None:
    found = gabor(7, wavelength=4.0, angle=0.0, phase=math.pi / 2)
    for y in range(-3, 4):
        for x in range(-3, 4):
            bell = math.exp(-(x**2 + 0.25 * y**2) / (2 * (0.56 * 4) ** 2))
            assert found[y + 3, x + 3].item() == pytest.approx(
                bell * math.cos(math.pi * x / 2 + math.pi / 2), abs=1e-6
            )
    bank = gabor_bank(9, angles=4, wavelengths=[4.0])
    assert bank.shape == (8, 9, 9)
    at = torch.arange(32) * 2 * math.pi / 4
    upright = torch.cos(at).expand(32, 32)
    energy = (
        filtered(torch.stack([upright, upright.T])[:, None], bank)[:, :, 8:-8, 8:-8]
        .square()
        .mean((2, 3))
    )
    by_angle = energy[:, 0::2] + energy[:, 1::2]
    assert by_angle.argmax(1).tolist() == [0, 2]


# -- spatial transformer ---------------------------------------------------------------------------------------------
def test_the_sampler_is_bilinear_with_zeros_outside() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 2, 9, 7, dtype=torch.float64, requires_grad=True)
    theta = torch.eye(2, 3, dtype=torch.float64) + 0.4 * torch.randn(3, 2, 3, dtype=torch.float64)
    theta.requires_grad_()
    grid = affine_grid(theta, 6, 8)
    torch.testing.assert_close(grid, F.affine_grid(theta, [3, 2, 6, 8], align_corners=False))
    found, expected = sample(images, grid), F.grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found.square().sum(), [images, theta], retain_graph=True)
    theirs = torch.autograd.grad(expected.square().sum(), [images, theta])
    torch.testing.assert_close(ours, theirs)


def test_outside_of_the_image_the_sampler_may_go_on_with_its_border() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 2, 9, 7, dtype=torch.float64)
    theta = torch.eye(2, 3, dtype=torch.float64) + 0.4 * torch.randn(3, 2, 3, dtype=torch.float64)
    grid = affine_grid(theta, 6, 8)
    torch.testing.assert_close(
        sample(images, grid, "border"),
        F.grid_sample(images, grid, padding_mode="border", align_corners=False),
    )
    with pytest.raises(ValueError, match=r"^outside: expected one of zero, border"):
        SpatialTransformer([1, 8, 8], outside="grey")


def test_a_transformer_begins_as_the_identity() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 1, 28, 28)
    for transformer in (
        SpatialTransformer([1, 28, 28]),
        STN([1, 28, 28], init="kaiming").transformer,
    ):
        assert transformer is not None
        assert (transformer.maps(images) - torch.eye(2, 3)).abs().max() < 0.1
    eye = torch.eye(2, 3).expand(4, 2, 3)
    torch.testing.assert_close(
        sample(images, affine_grid(eye, 28, 28)), images, rtol=1e-4, atol=1e-4
    )


def test_a_diverged_transformer_gives_nan_and_no_error() -> None:
    images = torch.ones(1, 1, 8, 8)
    assert sample(images, torch.full((1, 8, 8, 2), torch.nan)).isnan().all()


def test_a_transformer_undoes_a_shift() -> None:
    """Trained on images that are moved to the left, with nothing behind it, it learns to look there."""
    torch.manual_seed(0)
    pixels, _ = load_digits(return_X_y=True)
    digits = F.interpolate(
        torch.from_numpy(pixels[:32] / 16).float().view(-1, 1, 8, 8), scale_factor=2
    )
    moved = torch.zeros(32, 1, 24, 24)
    moved[:, :, 4:20, 1:17] = digits
    centred = torch.zeros_like(moved)
    centred[:, :, 4:20, 4:20] = digits
    net = SpatialTransformer([1, 24, 24])
    before = F.mse_loss(net(moved), centred).item()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.mse_loss(net(moved), centred).backward()
        optimizer.step()
    assert F.mse_loss(net(moved), centred).item() < 0.3 * before
    assert net.maps(moved)[:, 0, 2].mean().item() == pytest.approx(-2 * 3 / 24, abs=0.08)


# -- gated messages --------------------------------------------------------------------------------------------------
def test_a_closed_gate_lets_nothing_pass() -> None:
    torch.manual_seed(0)
    message = Message(4, 4)
    told, evidence = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(
        message(told, evidence), torch.sigmoid(message.gate(evidence)) * message.message(told)
    )
    nn.init.zeros_(message.gate.weight)
    nn.init.constant_(message.gate.bias, -1e4)
    assert message(told, evidence).abs().max() == 0


def test_contexts_hear_of_each_other_both_ways() -> None:
    torch.manual_seed(0)
    block = GatedBiDirectional(4, 3)
    features = [torch.randn(1, 4, 5, 5, requires_grad=True) for _ in range(3)]
    for heard in range(3):
        grads = torch.autograd.grad(block(features)[heard].sum(), features)
        assert all(g.abs().sum() > 0 for g in grads)
    alone = GatedNet([3, 32, 32], 10, gated=False)
    assert alone.messages is None
    assert alone.windows == [(4, 4), (6, 6), (8, 8)]
