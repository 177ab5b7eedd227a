from __future__ import annotations

import numpy as np
import pytest

from dlsearch.systems.shared.split import (
    check_disjoint,
    content_hashes,
    count,
    digest,
    repeated,
    take,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, 50), (0, 0), (7, 7), (50, 50), (0.1, 5), (0.5, 25), (1.0, 1), (20.0, 20)],
)
def test_sizes_are_counts_or_fractions(size: float | None, expected: int) -> None:
    assert count(size, 50, "val_size") == expected


@pytest.mark.parametrize("size", [-1, -0.1, 51, 1.5, True])
def test_impossible_sizes_are_refused_by_their_argument(size: float) -> None:
    with pytest.raises(ValueError, match=r"^val_size: expected"):
        count(size, 50, "val_size")


@pytest.mark.parametrize("number", [0, 1, 10, 33, 99, 100])
def test_classes_keep_their_shares(number: int) -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    drawn, rest = take(labels, np.arange(100), number, rng())
    assert len(drawn) == number
    assert sorted([*drawn, *rest]) == list(range(100))
    shares = np.bincount(labels[drawn], minlength=3)
    assert np.abs(shares - number * np.array([0.6, 0.3, 0.1])).max() < 1


def test_a_draw_depends_on_the_seed_and_nothing_else() -> None:
    labels = np.arange(100) % 4
    a, b = (take(labels, np.arange(100), 20, np.random.default_rng(seed))[0] for seed in (1, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, take(labels, np.arange(100), 20, np.random.default_rng(2))[0])


def test_a_regression_is_drawn_without_classes() -> None:
    drawn, rest = take(None, np.arange(10, 20), 3, rng())
    assert len(drawn) == 3
    assert sorted([*drawn, *rest]) == list(range(10, 20))


def test_shared_samples_are_refused() -> None:
    check_disjoint({"train": np.array([0, 1]), "val": np.array([2]), "test": np.array([3])})
    with pytest.raises(
        ValueError, match=r"^split: train and test share 2 samples, the first of them 1$"
    ):
        check_disjoint(
            {"train": np.array([0, 1, 5]), "val": np.array([2]), "test": np.array([5, 1])}
        )


def test_a_digest_is_of_pixels_labels_and_order() -> None:
    x, y = np.arange(24, dtype=np.uint8).reshape(6, 4), np.arange(6)
    index = np.array([4, 1])
    assert digest(x, y, index) == digest(x[index], y[index])
    other = x.copy()
    other[4, 0] += 1
    assert (
        len(
            {
                digest(x, y, index),
                digest(x, y, index[::-1]),
                digest(other, y, index),
                digest(x, y + 1, index),
            }
        )
        == 4
    )


def test_equal_content_is_counted_wherever_it_leaks_to() -> None:
    x = np.arange(5, dtype=np.uint8)[:, None].repeat(3, 1)
    hashes = content_hashes(x)
    assert len(set(hashes.tolist())) == 5
    train, val, test = hashes[[0, 1, 2]], hashes[[2, 3]], hashes[[3, 0, 4]]
    assert repeated(train, val, test) == 3
    assert repeated(hashes[:2], hashes[2:4], hashes[4:]) == 0
