"""Predictions of a model for files, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlsearch.inference.files import NotReadable, Reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from dlsearch.inference.model import Model

    Named = tuple[str, NDArray[np.float32]]


@dataclass
class Failures:
    """Files that were no inputs, and why."""

    rows: list[tuple[str, str]] = field(default_factory=list)


def predict(
    model: Model,
    files: Iterable[Path],
    *,
    reader: Reader,
    failures: Failures,
    batch_size: int,
    top: int,
) -> Iterator[dict[str, Any]]:
    """Predict for every input of `files`, in order.

    Args:
        model: The model.
        files: Pictures, arrays or tables.
        reader: Makes inputs of them.
        failures: Takes the files that are no inputs; the others are predicted.
        batch_size: Inputs at once.
        top: Classes to name.

    Yields:
        ``{"file", "class", "index", "probability", "top": [{"class", "index", "probability"}]}``
        (``score`` instead of ``probability`` where the outputs are none), or ``{"file", "values":
        {name: number}}``.
    """
    batch: list[Named] = []
    for named in _read_inputs(files, reader, failures):
        if batch and batch[0][1].shape != named[1].shape:
            yield from _predict_rows(model, batch, top)
            batch = []
        batch.append(named)
        if len(batch) == batch_size:
            yield from _predict_rows(model, batch, top)
            batch = []
    if batch:
        yield from _predict_rows(model, batch, top)


def _read_inputs(files: Iterable[Path], reader: Reader, failures: Failures) -> Iterator[Named]:
    for path in files:
        try:
            yield from reader.read(path)
        except NotReadable as error:
            failures.rows.append((str(path), str(error)))


def scores(model: Model, x: torch.Tensor) -> torch.Tensor:
    """(B, classes): probabilities, or the outputs themselves where these are scores of another kind."""
    with torch.inference_mode():
        outputs = model.run(x).double()
    return outputs.softmax(1) if model.output["probabilities"] == "softmax" else outputs


def _predict_rows(model: Model, batch: list[Named], top: int) -> Iterator[dict[str, Any]]:
    x = torch.from_numpy(np.stack([array for _, array in batch]))
    if model.output["kind"] == "classes":
        found = scores(model, x)
        names = model.output["names"]
        key = "probability" if model.output["probabilities"] else "score"
        best = found.topk(min(top, len(names)), dim=1)
        for (name, _), values, indices in zip(
            batch, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            ranked = [
                {"class": names[i], "index": i, key: v}
                for i, v in zip(indices, values, strict=True)
            ]
            yield {"file": name, **ranked[0], "top": ranked}
        return
    with torch.inference_mode():
        outputs = model.run(x).double().reshape(len(batch), -1)
    targets = model.output["targets"]
    named = len(targets) == outputs.shape[1]
    for (name, _), row in zip(batch, outputs.tolist(), strict=True):
        pairs = (
            zip(targets, row, strict=True)
            if named
            else (({"name": str(i)}, v) for i, v in enumerate(row))
        )
        yield {
            "file": name,
            "values": {t["name"]: v * t.get("std", 1.0) + t.get("mean", 0.0) for t, v in pairs},
        }
