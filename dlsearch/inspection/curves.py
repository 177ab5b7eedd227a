"""Training and validation by epoch, read back from the journals of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlsearch.tracking.journal import rows


def journals(folder: Path) -> list[Path]:
    """Those of a training's attempts, the first attempt first."""
    found = [*folder.glob("journal.a*.jsonl"), *folder.glob("journal.jsonl")]
    found = [path for path in found if path.is_file() and not path.is_symlink()]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def curves(folder: Path) -> dict[str, Any] | None:
    """The loss of training and validation by epoch.

    A later attempt's epochs take the place of an earlier one's.

    Args:
        folder: Of the training, with its journals.

    Returns:
        ``{"metric": "loss", "train": [[epoch, value], …], "val": […], "best": the epoch that was
        kept}``; None where fewer than two epochs logged both ``train/loss`` and ``val/loss``.
    """
    losses: dict[str, dict[int, float]] = {"train": {}, "val": {}}
    best: int | None = None
    for _, values in _rows_of_metrics(folder):
        for split, points in losses.items():
            if "epoch" in values and f"{split}/loss" in values:
                points[int(values["epoch"])] = float(values[f"{split}/loss"])
        if "best/epoch" in values:
            best = int(values["best/epoch"])
    train = _rounded_points(losses["train"])
    val = _rounded_points(losses["val"])
    if min(len(train), len(val)) < 2:
        return None
    return {"metric": "loss", "train": train, "val": val, "best": best}


def _rows_of_metrics(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and values of each row of metrics, attempt by attempt."""
    for path in journals(folder):
        for row in rows(path):
            if row["row"] == "metrics":
                yield int(row["step"]), row["values"]


def _rounded_points(points: dict[int, float]) -> list[list[float]]:
    """(epoch, value) in order, without values that are not finite."""
    return [
        [epoch, float(f"{value:.6g}")]
        for epoch, value in sorted(points.items())
        if math.isfinite(value)
    ]


def logged(folder: Path, prefix: str) -> dict[str, list[tuple[int, float]]]:
    """Metrics whose names begin with `prefix`: (step, value) by the rest of the name, in the order of the rows."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, values in _rows_of_metrics(folder):
        for name, value in values.items():
            if name.startswith(prefix):
                points = found.setdefault(name.removeprefix(prefix), [])
                points.append((step, float(value)))
    return found
