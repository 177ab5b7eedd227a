"""Training and validation by epoch, read back from the journals of a training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dlsearch.tracking.journal import rows


def journals(folder: Path) -> list[Path]:
    """Those of a training's attempts, the first attempt first."""
    found = [*folder.glob("journal.a*.jsonl"), *folder.glob("journal.jsonl")]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def curves(folder: Path) -> dict[str, Any] | None:
    """The loss of training and validation by epoch; a later attempt's epochs take the place of an earlier one's.

    Args:
        folder: Of the training, with its journals.

    Returns:
        ``{"metric": "loss", "train": [[epoch, value], …], "val": […], "best": the epoch that was kept}``; None where
        fewer than two epochs logged both ``train/loss`` and ``val/loss``.
    """
    found: dict[str, dict[int, float]] = {"train": {}, "val": {}}
    best: int | None = None
    for path in journals(folder):
        for row in rows(path):
            if row["row"] != "metrics":
                continue
            values = row["values"]
            for split, points in found.items():
                if "epoch" in values and f"{split}/loss" in values:
                    points[int(values["epoch"])] = float(values[f"{split}/loss"])
            if "best/epoch" in values:
                best = int(values["best/epoch"])
    kept = {
        split: [[epoch, float(f"{value:.6g}")] for epoch, value in sorted(points.items()) if math.isfinite(value)]
        for split, points in found.items()
    }
    if min(map(len, kept.values())) < 2:
        return None
    return {"metric": "loss", **kept, "best": best}


def logged(folder: Path, prefix: str) -> dict[str, list[tuple[int, float]]]:
    """Metrics whose names begin with `prefix`: (step, value) by the rest of the name, in the order of the rows."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in journals(folder):
        for row in rows(path):
            if row["row"] == "metrics":
                for name, value in row["values"].items():
                    if name.startswith(prefix):
                        found.setdefault(name.removeprefix(prefix), []).append((int(row["step"]), float(value)))
    return found
