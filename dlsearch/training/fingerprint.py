"""Digests that say whether two trainings were the same.

There is one of the weights, and one of the sequence of metrics.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

#: Metrics of the machine, not of the training.
MACHINE = ("time/", "system/", "gpu/", "throughput/")


def state_digest(state_dict: Mapping[str, Any]) -> str:
    """SHA-256 of a state dict: names, types, shapes and bytes, sorted by name.

    The same for a tensor in any memory format, on any device, and as a view of another. What is no
    tensor (a module's extra state) counts as canonical JSON.

    Args:
        state_dict: As ``module.state_dict()`` gives it.

    Returns:
        64 hexadecimal digits.
    """
    state = hashlib.sha256()
    for name in sorted(state_dict):
        value = state_dict[name]
        if isinstance(value, Tensor) and is_lazy(value):
            state.update(f"{name}\0no values yet\0".encode())
            continue
        if isinstance(value, Tensor):
            header = f"{name}\0{value.dtype}\0{list(value.shape)}\0"
            state.update(header.encode())
            state.update(_bytes_of(value))
            continue
        if isinstance(value, Mapping):
            inner = {str(key): item for key, item in value.items()}
            text = state_digest(inner)
        else:
            text = json.dumps(value, sort_keys=True, default=_describe)
        state.update(f"{name}\0{text}\0".encode())
    return state.hexdigest()


def _describe(value: Any) -> str:
    """An object in words that are the same in another process."""
    text = str(value)
    if f"at {id(value):#x}" in text:
        return f"{type(value).__module__}.{type(value).__qualname__}"
    return text


def _bytes_of(value: Tensor) -> memoryview:
    """In the order of the indices, whatever the strides."""
    if not value.numel():
        return memoryview(b"")
    plain = value.detach()
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    plain = plain.resolve_conj().resolve_neg()
    flat = plain.cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def metrics_digest(rows: Iterable[tuple[int, int, Mapping[str, float]]], before: str = "") -> str:
    """SHA-256 over a sequence of validated epochs, each chained to the one before.

    Because of the chain a resumed training needs no more than the digest up to its checkpoint:
    ``metrics_digest(a + b) == metrics_digest(b, metrics_digest(a))``.

    Args:
        rows: (epoch, global step, metrics by name); those of the machine (times, memory) are left
            out.
        before: The digest of the rows before these.

    Returns:
        64 hexadecimal digits, or `before` where there are no rows.
    """
    for epoch, step, metrics in rows:
        kept: dict[str, str] = {}
        for name, value in metrics.items():
            if not name.startswith(MACHINE):
                kept[name] = float(value).hex()
        row = json.dumps(
            [before, epoch, step, kept],
            sort_keys=True,
            separators=(",", ":"),
        )
        before = hashlib.sha256(row.encode()).hexdigest()
    return before
