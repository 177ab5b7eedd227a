"""The first layer as pictures: what is kept of it, and what it reads back to."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
from torch import nn

from dlsearch.inspection.describe import FILTERS, NUMBERS, first_layer


def weights_of(found: dict) -> np.ndarray:
    """What the record's bytes stand for."""
    raw = np.frombuffer(base64.b64decode(found["data"]), dtype=np.uint8).reshape(found["shape"])
    return (raw.astype(float) - 128) * np.array(found["steps"])[:, None, None, None]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_convolution_reads_back_to_its_weights(channels):
    net = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 6, 5), nn.Flatten(), nn.LazyLinear(10))
    found = json.loads(json.dumps(first_layer(net)))
    weight = net[1].weight.detach().numpy()
    assert (found["layer"], found["type"], found["total"]) == ("1", "Conv2d", 6)
    assert found["shape"] == list(weight.shape)
    # Eight bits a weight: within half a step, and a little for the step's three digits.
    peak = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    assert (np.abs(weights_of(found) - weight) <= peak * (0.5 / 127 + 0.006)).all()


def test_many_channels_become_their_mean_and_zero_stays_zero():
    net = nn.Conv2d(8, 2, 3)
    nn.init.zeros_(net.weight)
    net.weight.data[0, :, 1, 1] = torch.arange(8.0)
    found = first_layer(net)
    assert found["shape"] == [2, 1, 3, 3]
    back = weights_of(found)
    assert back[0, 0, 1, 1] == pytest.approx(3.5, rel=0.01)
    assert back[1].any() == False  # noqa: E712
    assert (back[0, 0] != 0).sum() == 1


def test_rows_of_a_linear_layer_are_templates_of_the_image():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    found = first_layer(net, [3, 8, 8])
    assert found["shape"] == [10, 3, 8, 8]
    weight = net[1].weight.detach().numpy().reshape(10, 3, 8, 8)
    assert np.abs(weights_of(found) - weight).max() <= np.abs(weight).max() * 0.011
    assert first_layer(net) is None
    assert first_layer(net, [3, 8, 9]) is None


def test_large_layers_are_cut():
    assert first_layer(nn.Conv2d(3, 200, 3))["shape"] == [FILTERS, 3, 3, 3]
    found = first_layer(nn.Linear(3 * 96 * 96, 50), [3, 96, 96])
    assert found["shape"][0] == NUMBERS // (3 * 96 * 96)
    assert found["total"] == 50


class Task(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net


def test_a_task_is_looked_into():
    assert first_layer(Task(nn.Conv2d(1, 4, 3)))["total"] == 4


@pytest.mark.parametrize(
    "net", [nn.ReLU(), nn.Embedding(9, 4), nn.Conv2d(1, 4, 1), nn.Conv1d(1, 4, 3), nn.LayerNorm(4)]
)
def test_what_is_no_picture_is_none(net):
    assert first_layer(net, [1, 8, 8]) is None


def test_weights_that_are_not_finite_are_none():
    net = nn.Conv2d(1, 4, 3)
    net.weight.data[0, 0, 0, 0] = float("nan")
    assert first_layer(net) is None
