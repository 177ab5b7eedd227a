"""Training and validation by epoch, read back from the journals of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlsearch.inspection.findings import LossCurves, round_to_digits
from dlsearch.tracking.journal import rows

#: Fewest epochs that make a curve.
SHORTEST = 2


@dataclass(frozen=True)
class _MetricsRow:
    """One row of metrics in a journal."""

    step: int
    values: dict[str, float]

    @property
    def epoch(self) -> int | None:
        """The epoch that the row says it is of."""
        return int(self.values["epoch"]) if "epoch" in self.values else None


def journals(folder: Path) -> list[Path]:
    """Those of a training's attempts, the first attempt first."""
    candidates = [
        *folder.glob("journal.a*.jsonl"),
        *folder.glob("journal.jsonl"),
    ]
    found = [path for path in candidates if path.is_file() and not path.is_symlink()]
    return sorted(found, key=_order_of_attempt)


def _order_of_attempt(path: Path) -> tuple[int, str]:
    """Attempt 10 comes after attempt 2, and has the longer name."""
    return len(path.name), path.name


def curves(folder: Path) -> LossCurves | None:
    """The loss of training and validation by epoch.

    A later attempt's epochs take the place of an earlier one's.

    Args:
        folder: Of the training, with its journals.

    Returns:
        None where fewer than two epochs logged both ``train/loss`` and ``val/loss``.
    """
    train: dict[int, float] = {}
    val: dict[int, float] = {}
    best: int | None = None
    for row in _rows_of_metrics(folder):
        _take_loss(row, "train/loss", train)
        _take_loss(row, "val/loss", val)
        if "best/epoch" in row.values:
            best = int(row.values["best/epoch"])
    points_of_training = _finite_points(train)
    points_of_validation = _finite_points(val)
    if min(len(points_of_training), len(points_of_validation)) < SHORTEST:
        return None
    return {
        "metric": "loss",
        "train": points_of_training,
        "val": points_of_validation,
        "best": best,
    }


def _take_loss(
    row: _MetricsRow,
    name: str,
    points: dict[int, float],
) -> None:
    """Note the loss of the row's epoch, where the row has both."""
    epoch = row.epoch
    if epoch is not None and name in row.values:
        points[epoch] = float(row.values[name])


def _rows_of_metrics(folder: Path) -> Iterator[_MetricsRow]:
    """The rows of metrics, attempt by attempt."""
    for path in journals(folder):
        for row in rows(path):
            if row["row"] == "metrics":
                yield _MetricsRow(int(row["step"]), row["values"])


def _finite_points(points: dict[int, float]) -> list[list[float]]:
    """(epoch, value) in order, without values that are not finite."""
    found: list[list[float]] = []
    for epoch, value in sorted(points.items()):
        if math.isfinite(value):
            found.append([epoch, round_to_digits(value, 6)])
    return found


def logged(
    folder: Path,
    prefix: str,
) -> dict[str, list[tuple[int, float]]]:
    """Metrics whose names begin with `prefix`, in the order of the rows.

    Args:
        folder: Of the training, with its journals.
        prefix: Is left out of the names.

    Returns:
        (step, value) by the rest of the name.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for row in _rows_of_metrics(folder):
        for name, value in row.values.items():
            if not name.startswith(prefix):
                continue
            points = found.setdefault(name.removeprefix(prefix), [])
            points.append((row.step, float(value)))
    return found
