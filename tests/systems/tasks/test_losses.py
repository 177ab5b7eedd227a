"""The worked examples, to their printed digits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlsearch.systems.shared.losses import (
    Penalty,
    classification_loss,
    multiclass_hinge,
    regression_loss,
    weights_of,
)

# scores for cat, car and frog, of an image of each
SCORES = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
CLASSES = torch.tensor([0, 1, 2])


def test_hinge_of_the_worked_example() -> None:
    each = [multiclass_hinge(SCORES[i : i + 1], CLASSES[i : i + 1]).item() for i in range(3)]
    assert each == pytest.approx([2.9, 0.0, 12.9], abs=1e-5)
    assert round(classification_loss("hinge")(SCORES, CLASSES).item(), 2) == 5.27


def test_hinge_is_the_sum_over_wrong_classes() -> None:
    scores, target = torch.randn(7, 5), torch.randint(5, (7,))
    expected = sum(
        max(0.0, (scores[i, j] - scores[i, target[i]] + 1).item())
        for i in range(7)
        for j in range(5)
        if j != target[i]
    )
    assert multiclass_hinge(scores, target).item() == pytest.approx(expected / 7, rel=1e-5)


def test_softmax_of_the_worked_example() -> None:
    logits = SCORES[0]
    assert [round(v, d) for v, d in zip(logits.exp().tolist(), (1, 1, 2), strict=True)] == [
        24.5,
        164.0,
        0.18,
    ]
    assert [round(p, 2) for p in logits.softmax(0).tolist()] == [0.13, 0.87, 0.0]
    # printed as 0.46, 0.34, 0.20; the last is 0.205
    assert torch.tensor([1.2, 0.9, 0.4]).softmax(0).tolist() == pytest.approx(
        [0.456, 0.338, 0.205], abs=1e-3
    )
    loss = classification_loss("cross_entropy")(logits[None], CLASSES[:1])
    assert loss.item() == pytest.approx(-logits.log_softmax(0)[0].item(), rel=1e-6)


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    smooth = classification_loss("cross_entropy", 0.1)(SCORES, CLASSES)
    logs = SCORES.log_softmax(1)
    expected = 0.9 * F.nll_loss(logs, CLASSES) - 0.1 * logs.mean()
    torch.testing.assert_close(smooth, expected)


def test_regression_losses() -> None:
    found, wanted = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 5.0])
    assert regression_loss("mse")(found, wanted).item() == pytest.approx(5 / 3)
    assert regression_loss("l1")(found, wanted).item() == pytest.approx(1.0)


def test_penalties_are_of_weights_and_not_of_biases() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
        net[0].bias.fill_(100.0)
    weights = weights_of(net)
    assert len(weights) == 1
    assert Penalty(l1=0.5)(weights).item() == pytest.approx(3.0)
    assert Penalty(l2=0.5)(weights).item() == pytest.approx(7.0)
    assert Penalty(l1=0.5, l2=0.5)(weights).item() == pytest.approx(10.0)
    assert not Penalty()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classification_loss("mse"), "^loss: expected cross_entropy or hinge, got 'mse'"),
        (
            lambda: classification_loss("hinge", 0.1),
            "^label_smoothing: expected 0 with the hinge loss",
        ),
        (lambda: classification_loss("cross_entropy", 1.0), "^label_smoothing: expected 0 to 1"),
        (lambda: regression_loss("hinge"), "^loss: expected mse or l1, got 'hinge'"),
        (lambda: Penalty(l1=-1), "^l1: expected 0 or more, got -1"),
    ],
)
def test_unknown_ones_are_refused_by_their_argument(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
