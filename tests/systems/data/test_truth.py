"""Truth tables, and digits on a larger canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dlsearch.core.errors import ConfigError
from dlsearch.systems.shared.data_module import SealedTestSet
from dlsearch.systems.vision.data.distorted import distort

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("function", "values"), [("and", [0, 0, 0, 1]), ("or", [0, 1, 1, 1]), ("xor", [0, 1, 1, 0])]
)
def test_the_table_is_whole_in_every_split(
    make_data: Make, function: str, values: list[int]
) -> None:
    data = make_data("truth_table", function=function)
    facts = data.describe()
    assert facts["sizes"] == {"train": 128, "val": 4, "test": 4}
    x, y = next(iter(data.val_dataloader()))
    assert x.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert y.tolist() == values
    x, y = (torch.cat(part) for part in zip(*data.train_dataloader(), strict=True))
    rows = (2 * x[:, 0] + x[:, 1]).long()
    assert rows.bincount().tolist() == [32] * 4
    assert torch.equal(y, torch.tensor(values)[rows])
    with pytest.raises(SealedTestSet):
        data.test_dataloader()
    data.unseal()
    assert next(iter(data.test_dataloader()))[1].tolist() == values


def test_more_bits(make_data: Make) -> None:
    data = make_data("truth_table", function="xor", shape=[4], copies=3)
    x, y = next(iter(data.val_dataloader()))
    assert x.shape == (16, 4)
    assert torch.equal(y, x.sum(1).long() % 2)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("truth_table", {"function": "nand"}, "function: expected one of and, or, xor, got 'nand'"),
        ("truth_table", {"val_size": 2}, "val_size: expected null, a truth table is not divided"),
        ("truth_table", {"shape": [11]}, "shape: expected [bits] with 1 to 10 bits, got [11]"),
        ("truth_table", {"num_classes": 3}, "num_classes: expected 2 for xor, got 3"),
        ("truth_table", {"copies": 0}, "copies: expected a positive integer, got 0"),
        (
            "distorted_mnist",
            {"shape": [1, 20, 20]},
            "shape: expected [1, side, side] with 28 pixels or more",
        ),
        ("distorted_mnist", {"rotate": 200}, "rotate: expected 0 to 180, got 200"),
        (
            "distorted_mnist",
            {"scale": [1.2, 0.7]},
            "scale: expected the least and the largest factor",
        ),
        ("distorted_mnist", {"clutter": -1}, "clutter: expected 0 or more pieces, got -1"),
    ],
)
def test_bad_arguments_are_named(
    make_data: Make, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        make_data(name, **changes)
    assert message in str(error.value)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """(40, 1, 28, 28), real ones, each pixel threefold, with a border of two."""
    pixels = np.round(load_digits().images[:40] * 255 / 16).astype(np.uint8)
    return np.pad(pixels.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))[:, None]


def test_nothing_asked_for_is_the_image_in_the_middle(digits: np.ndarray) -> None:
    out = distort(digits, 42, translate=False)
    assert np.array_equal(out[:, :, 7:35, 7:35], digits)
    assert out.sum() == digits.sum()


def test_a_shift_moves_all_of_it(digits: np.ndarray) -> None:
    out = distort(digits, 42, seed=3)
    sums = out.sum((1, 2, 3)) / digits.sum((1, 2, 3))
    assert np.abs(sums - 1).max() < 0.05  # between pixels too
    columns = [np.average(np.arange(42), weights=image[0].sum(0)) for image in out]
    assert np.ptp(columns) > 8


def test_scale_and_rotation(digits: np.ndarray) -> None:
    small = distort(digits, 42, scale=(0.5, 0.5), translate=False)
    assert np.abs(small.sum((1, 2, 3)) / digits.sum((1, 2, 3)) - 0.25).max() < 0.04
    turned = distort(digits, 42, rotate=90, translate=False)
    plain = distort(digits, 42, translate=False)
    assert (turned != plain).any((1, 2, 3)).mean() > 0.9
    assert np.abs(turned.sum((1, 2, 3)) / plain.sum((1, 2, 3)) - 1).max() < 0.1


def test_clutter_only_adds_light(digits: np.ndarray) -> None:
    plain, cluttered = distort(digits, 42), distort(digits, 42, clutter=4)
    assert (cluttered >= plain).all()
    added = (cluttered > plain).sum((1, 2, 3))
    assert 0 < added.mean() < 4 * 36


def test_an_image_depends_on_the_seed_and_its_index_alone(digits: np.ndarray) -> None:
    settings: dict[str, Any] = {"rotate": 45, "scale": (0.7, 1.2)}
    whole = distort(digits, 42, **settings)
    assert np.array_equal(distort(digits[:10], 42, **settings), whole[:10])
    assert not np.array_equal(distort(digits, 42, seed=1, **settings), whole)
