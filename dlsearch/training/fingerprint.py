"""Digests that say whether two trainings were the same: of the weights, and of the sequence of metrics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

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
        if isinstance(value, Tensor):
            state.update(f"{name}\0{value.dtype}\0{list(value.shape)}\0".encode())
            state.update(_bytes_of(value))
        elif isinstance(value, Mapping):
            state.update(
                f"{name}\0{state_digest({str(key): item for key, item in value.items()})}\0".encode()
            )
        else:
            state.update(f"{name}\0{json.dumps(value, sort_keys=True, default=str)}\0".encode())
    return state.hexdigest()


def _bytes_of(value: Tensor) -> memoryview:
    """In the order of the indices, whatever the strides."""
    if not value.numel():
        return memoryview(b"")
    flat = value.detach().to_dense() if value.layout is not torch.strided else value.detach()
    flat = flat.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
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
        kept = {
            name: float(value).hex()
            for name, value in metrics.items()
            if not name.startswith(MACHINE)
        }
        row = json.dumps([before, epoch, step, kept], sort_keys=True, separators=(",", ":"))
        before = hashlib.sha256(row.encode()).hexdigest()
    return before
