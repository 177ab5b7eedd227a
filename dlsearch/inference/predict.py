"""Predictions of a model for files, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np
import torch

from dlsearch.inference.model import gives_softmax
from dlsearch.inference.reading import NotReadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from dlsearch.inference.description import ClassesOutput, NumbersOutput, TargetSpec
    from dlsearch.inference.files import NamedInput, Reader
    from dlsearch.inference.model import Model

#: A class by its place, as JSON: ``class``, ``index``, and ``probability`` or ``score``.
RankedClass = TypedDict(
    "RankedClass",
    {"class": str, "index": int, "probability": float, "score": float},
    total=False,
)


class ClassPrediction(RankedClass):
    """The class that an input is taken for, and the ones after it.

    Args:
        file: The name of the input.
        top: The best classes, the first among them.
    """

    file: str
    top: list[RankedClass]


class NumberPrediction(TypedDict):
    """The numbers that are predicted for an input.

    Args:
        file: The name of the input.
        values: By target, in its own unit.
    """

    file: str
    values: dict[str, float]


Prediction: TypeAlias = ClassPrediction | NumberPrediction


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
) -> Iterator[Prediction]:
    """Predict for every input of `files`, in order.

    Args:
        model: The model.
        files: Pictures, arrays or tables.
        reader: Makes inputs of them.
        failures: Takes the files that are no inputs; the others are predicted.
        batch_size: Inputs at once.
        top: Classes to name.

    Yields:
        For classes, ``score`` instead of ``probability`` where the outputs are none.
    """
    batch: list[NamedInput] = []
    for named in _read_inputs(files, reader, failures):
        if batch and batch[0].array.shape != named.array.shape:
            yield from _predict_rows(model, batch, top)
            batch = []
        batch.append(named)
        if len(batch) == batch_size:
            yield from _predict_rows(model, batch, top)
            batch = []
    if batch:
        yield from _predict_rows(model, batch, top)


def _read_inputs(
    files: Iterable[Path],
    reader: Reader,
    failures: Failures,
) -> Iterator[NamedInput]:
    for path in files:
        try:
            yield from reader.read(path)
        except NotReadable as error:
            failures.rows.append((str(path), str(error)))


def scores(model: Model, x: torch.Tensor) -> torch.Tensor:
    """(B, classes): probabilities, or the outputs themselves where these are scores of a kind."""
    with torch.inference_mode():
        outputs = model.run(x).double()
    return outputs.softmax(1) if gives_softmax(model) else outputs


def _predict_rows(
    model: Model,
    batch: list[NamedInput],
    top: int,
) -> Iterator[Prediction]:
    names = [named.name for named in batch]
    x = torch.from_numpy(np.stack([named.array for named in batch]))
    output = model.output
    if output["kind"] == "classes":
        yield from _rank_classes(output, names, scores(model, x), top)
        return
    with torch.inference_mode():
        outputs = model.run(x).double().reshape(len(batch), -1)
    yield from _name_numbers(output, names, outputs)


def _rank_classes(
    output: ClassesOutput,
    names: list[str],
    found: torch.Tensor,
    top: int,
) -> Iterator[ClassPrediction]:
    """The best classes of each input.

    Args:
        output: What the classes are called.
        names: Of the inputs.
        found: (B, classes).
        top: Classes to name.
    """
    classes = output["names"]
    best = found.topk(min(top, len(classes)), dim=1)
    values = best.values.tolist()
    indices = best.indices.tolist()
    for row, name in enumerate(names):
        ranked: list[RankedClass] = []
        for index, value in zip(indices[row], values[row], strict=True):
            place: RankedClass = {"class": classes[index], "index": index}
            if output["probabilities"]:
                place["probability"] = value
            else:
                place["score"] = value
            ranked.append(place)
        yield {"file": name, **ranked[0], "top": ranked}


def _name_numbers(
    output: NumbersOutput,
    names: list[str],
    outputs: torch.Tensor,
) -> Iterator[NumberPrediction]:
    """The numbers of each input, in the units of their targets.

    Args:
        output: What they are called; by their place where that does not fit.
        names: Of the inputs.
        outputs: (B, numbers).
    """
    targets: list[TargetSpec] = output["targets"]
    if len(targets) != outputs.shape[1]:
        targets = [{"name": str(number)} for number in range(outputs.shape[1])]
    for name, row in zip(names, outputs.tolist(), strict=True):
        values: dict[str, float] = {}
        for target, value in zip(targets, row, strict=True):
            std = target.get("std", 1.0)
            mean = target.get("mean", 0.0)
            values[target["name"]] = value * std + mean
        yield {"file": name, "values": values}
