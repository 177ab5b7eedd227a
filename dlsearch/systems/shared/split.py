"""Train, validation and test: stratified, seeded, disjoint, and identified by digests."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Indices = NDArray[np.int64]
_CHUNK = 4096


def count(size: float | None, total: int, argument: str) -> int:
    """How many of `total` the `size` means.

    An int is a count, a float below 1 a fraction, None all.

    Raises:
        ValueError: It is neither, or more than there are.
    """
    check_size(size, argument)
    if size is None:
        return total
    is_fraction = isinstance(size, float) and size < 1
    number = round(size * total) if is_fraction else int(size)
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
    is_whole = isinstance(size, int) or float(size).is_integer()
    is_fraction = 0 <= size <= 1
    fits = (is_whole and size >= 0) or is_fraction
    if isinstance(size, bool) or not fits:
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
        drawn = _draw_by_class(labels[pool], pool, number, rng)
    rest = np.setdiff1d(pool, drawn, assume_unique=True)
    return np.sort(drawn), rest


def _draw_by_class(
    of_pool: NDArray[Any],
    pool: Indices,
    number: int,
    rng: np.random.Generator,
) -> Indices:
    """Draw `number` of `pool`, of each class its share.

    Args:
        of_pool: Class of each sample of `pool`.
        pool: Indices.
        number: At most ``len(pool)``.
        rng: Source of chance.
    """
    classes, sizes = np.unique(of_pool, return_counts=True)
    exact = number * sizes / max(len(pool), 1)
    quotas = np.floor(exact).astype(np.int64)
    # what is left goes to the classes that lack most
    left = number - quotas.sum()
    lacking = np.argsort(quotas - exact, kind="stable")
    quotas[lacking[:left]] += 1
    parts: list[Indices] = []
    for each, quota in zip(classes, quotas, strict=True):
        of_class = pool[of_pool == each]
        parts.append(rng.permutation(of_class)[:quota])
    return np.concatenate(parts) if parts else pool[:0]


def check_disjoint(splits: Mapping[str, Indices]) -> None:
    """Refuse splits that share a sample.

    Raises:
        ValueError: Two of them do.
    """
    for one, other in combinations(splits, 2):
        shared = np.intersect1d(splits[one], splits[other])
        if len(shared):
            raise ValueError(
                f"split: {one} and {other} share {len(shared)} samples,"
                f" the first of them {shared[0]}"
            )


def digest(
    inputs: NDArray[Any],
    targets: NDArray[Any],
    index: Indices | None = None,
) -> str:
    """SHA-256 of the samples in their order: shapes, types, inputs and targets."""
    state = hashlib.sha256()
    for array in (inputs, targets):
        size = len(array) if index is None else len(index)
        shape = (size, *array.shape[1:])
        state.update(f"{array.dtype.str}{shape}".encode())
        for start in range(0, size, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            part = array[chunk] if index is None else array[index[chunk]]
            state.update(np.ascontiguousarray(part).data)
    return state.hexdigest()


def content_hashes(inputs: NDArray[Any]) -> NDArray[np.uint64]:
    """64 bits for the content of each sample."""
    digests: list[bytes] = []
    for row in inputs:
        content = np.ascontiguousarray(row).data
        state = hashlib.blake2b(content, digest_size=8)
        digests.append(state.digest())
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def repeated(
    train: NDArray[np.uint64],
    val: NDArray[np.uint64],
    test: NDArray[np.uint64],
) -> int:
    """How many held-out samples have a twin in a split that comes before theirs.

    Args:
        train: Content of each sample, by :func:`content_hashes`.
        val: Of validation.
        test: Of the test set.
    """
    in_val = np.isin(val, train)
    in_test = np.isin(test, np.concatenate([train, val]))
    return int(in_val.sum() + in_test.sum())


def class_counts(labels: Iterable[int] | NDArray[Any], num_classes: int) -> list[int]:
    """Samples of each class."""
    classes = np.asarray(labels, dtype=np.int64)
    return np.bincount(classes, minlength=num_classes).tolist()
