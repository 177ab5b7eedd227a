"""Train, validation and test: stratified, seeded, disjoint, and identified by digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
_CHUNK = 4096


def count(size: float | None, total: int, argument: str) -> int:
    """How many of `total` the `size` means: an int is a count, a float below 1 a fraction, None all.

    Raises:
        ValueError: It is neither, or more than there are.
    """
    check_size(size, argument)
    if size is None:
        return total
    number = round(size * total) if isinstance(size, float) and size < 1 else int(size)
    if number > total:
        raise ValueError(
            f"{argument}: expected at most the {total} samples that are left, got {size}"
        )
    return number


def check_size(size: float | None, argument: str) -> None:
    """Refuse what can be no size of any data set.

    Raises:
        ValueError: Not None, a count, or a fraction below 1.
    """
    if size is None:
        return
    whole = isinstance(size, int) or float(size).is_integer()
    if isinstance(size, bool) or size < 0 or (not whole and size > 1):
        raise ValueError(f"{argument}: expected a count, a fraction below 1 or null, got {size}")


def take(
    labels: NDArray[Any] | None,
    pool: Indices,
    number: int,
    rng: np.random.Generator,
) -> tuple[Indices, Indices]:
    """Draw `number` of `pool`; classes keep their shares, to within one sample each.

    Args:
        labels: Class of every sample, ``None`` for a regression.
        pool: Indices into `labels`.
        number: At most ``len(pool)``.
        rng: Source of chance.

    Returns:
        The drawn indices and the rest, both sorted.
    """
    if labels is None:
        drawn = rng.permutation(pool)[:number]
    else:
        of_pool = labels[pool]
        classes, sizes = np.unique(of_pool, return_counts=True)
        exact = number * sizes / max(len(pool), 1)
        quotas = np.floor(exact).astype(np.int64)
        largest = np.argsort(quotas - exact, kind="stable")[: number - quotas.sum()]
        quotas[largest] += 1
        parts = [
            rng.permutation(pool[of_pool == each])[:quota]
            for each, quota in zip(classes, quotas, strict=True)
        ]
        drawn = np.concatenate(parts) if parts else pool[:0]
    return np.sort(drawn), np.setdiff1d(pool, drawn, assume_unique=True)


def check_disjoint(splits: Mapping[str, Indices]) -> None:
    """Refuse splits that share a sample.

    Raises:
        ValueError: Two of them do.
    """
    for (a, of_a), (b, of_b) in combinations(splits.items(), 2):
        shared = np.intersect1d(of_a, of_b)
        if len(shared):
            raise ValueError(
                f"split: {a} and {b} share {len(shared)} samples, the first of them {shared[0]}"
            )


def digest(inputs: NDArray[Any], targets: NDArray[Any], index: Indices | None = None) -> str:
    """SHA-256 of the samples in their order: shapes, types, inputs and targets."""
    state = hashlib.sha256()
    for array in (inputs, targets):
        size = len(array) if index is None else len(index)
        state.update(f"{array.dtype.str}{(size, *array.shape[1:])}".encode())
        for start in range(0, size, _CHUNK):
            part = (
                array[start : start + _CHUNK]
                if index is None
                else array[index[start : start + _CHUNK]]
            )
            state.update(np.ascontiguousarray(part).data)
    return state.hexdigest()


def content_hashes(inputs: NDArray[Any]) -> NDArray[np.uint64]:
    """64 bits for the content of each sample."""
    digests = b"".join(
        hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=8).digest() for row in inputs
    )
    return np.frombuffer(digests, dtype=np.uint64)


def repeated(train: NDArray[np.uint64], val: NDArray[np.uint64], test: NDArray[np.uint64]) -> int:
    """How many held-out samples have a twin of the same content in a split that comes before theirs."""
    return int(np.isin(val, train).sum() + np.isin(test, np.concatenate([train, val])).sum())


def class_counts(labels: Iterable[int] | NDArray[Any], num_classes: int) -> list[int]:
    """Samples of each class."""
    return np.bincount(np.asarray(labels, dtype=np.int64), minlength=num_classes).tolist()
