"""Averages of scores against plain arithmetic, and the search of weights on validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlsearch.training.ensemble import Ensemble


@pytest.fixture
def make(monkeypatch):
    """An ensemble without nets: what is under test is its arithmetic."""

    def ensemble(by="probabilities", objective="accuracy"):
        made = Ensemble([], by, objective)
        assert made.members == []
        return made

    return ensemble


def scores(*rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture
def outputs():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 4, 200))
    clear = torch.nn.functional.one_hot(labels, 4).double()
    return [
        clear * strength + torch.from_numpy(rng.normal(size=(200, 4)))
        for strength in (0.5, 1.5, 1.0)
    ], labels


def test_probabilities_are_averaged_by_their_weights(make, outputs):
    nets, _ = outputs
    found = make().combine(nets, [1, 2, 1]).softmax(1).numpy()
    softmax = [np.exp(n.numpy()) / np.exp(n.numpy()).sum(1, keepdims=True) for n in nets]
    np.testing.assert_allclose(found, (softmax[0] + 2 * softmax[1] + softmax[2]) / 4, rtol=1e-12)


def test_logits_are_averaged_as_they_are(make, outputs):
    nets, _ = outputs
    found = make("logits").combine(nets, [1, 3, 0]).numpy()
    np.testing.assert_allclose(found, (nets[0].numpy() + 3 * nets[1].numpy()) / 4, rtol=1e-12)


def test_the_figures_are_those_of_the_mixture(make):
    found = make().measure(
        scores([2.0, 0.0], [0.0, 1.0], [3.0, 0.0]).log_softmax(1), torch.tensor([0, 1, 1])
    )
    losses = [np.log(1 + np.exp(-2)), np.log(1 + np.exp(-1)), np.log(1 + np.exp(3))]
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(np.mean(losses))
    assert found["f1"] == pytest.approx((2 * 1 / (2 * 1 + 1) + 2 * 1 / (2 * 1 + 1)) / 2, rel=1e-6)


@pytest.mark.parametrize("objective", ["accuracy", "loss"])
def test_searched_weights_are_no_worse_on_validation_than_any_single_net(make, outputs, objective):
    nets, labels = outputs
    ensemble = make(objective=objective)
    weights = ensemble.search(nets, labels)
    assert sum(weights) == pytest.approx(1)
    used = [(net, weight) for net, weight in zip(nets, weights, strict=True) if weight]
    mixed = ensemble.merit(ensemble.combine([n for n, _ in used], [w for _, w in used]), labels)
    assert mixed >= max(ensemble.merit(net.log_softmax(1), labels) for net in nets)
    assert weights == ensemble.search(nets, labels)


def test_a_net_that_knows_nothing_gets_no_weight(make, outputs):
    nets, labels = outputs
    wrong = torch.nn.functional.one_hot((labels + 1) % 4, 4).double() * 9
    weights = make(objective="loss").search([nets[1], wrong, nets[2]], labels)
    assert weights[1] == 0
