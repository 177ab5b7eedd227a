"""The work that every contender of `search_overhead.py` does, and the book of what it did.

Scripts in this folder run in environments of their own, some without dlsearch: they import nothing
of it. Each is run as `python benchmarks/contenders/NAME.py FOLDER …`, where FOLDER holds
`spec.json` (`python benchmarks/contenders/work.py FOLDER` writes one), and appends a line a trial
to `FOLDER/trials.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: learning rate, dropout, weight decay, batch size
CONFIGS: list[tuple[float, float, float, int]] = [
    (0.001, 0.0, 0.01, 64), (0.002, 0.1, 0.01, 32), (0.0005, 0.0, 0.001, 32), (0.004, 0.2, 0.0001, 128),
    (0.001, 0.3, 0.01, 32), (0.003, 0.0, 0.1, 64), (0.0008, 0.1, 0.0001, 128), (0.005, 0.25, 0.01, 128),
    (0.0015, 0.05, 0.001, 64), (0.0006, 0.15, 0.05, 32), (0.0025, 0.4, 0.001, 64), (0.001, 0.0, 0.0001, 128),
    (0.0035, 0.1, 0.02, 128), (0.0012, 0.2, 0.005, 32), (0.0007, 0.0, 0.01, 64), (0.002, 0.3, 0.0005, 128),
]  # fmt: skip
MEAN, STD = 0.1307, 0.3081
EPOCHS, EVAL_BATCH, LOG_EVERY = 2, 512, 50


class Book:
    """When each trial ran and what it scored: a file that processes append lines to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trials.jsonl"

    def add(self, number: int, started: float, score: float) -> None:
        """A trial has ended now."""
        line = json.dumps(
            {"number": number, "started": started, "ended": time.time(), "score": score}
        )
        with self.path.open("a") as file:
            file.write(line + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """All of them."""
        return (
            [json.loads(line) for line in self.path.read_text().splitlines()]
            if self.path.is_file()
            else []
        )


def make_spec(
    data: str | Path, split: Path, *, small: bool, trials: int | None = None
) -> dict[str, Any]:
    """The work as JSON.

    Args:
        data: Folder that holds MNIST/, in torchvision's layout.
        split: Folder of `train_index.npy` and `val_index.npy`, (n,) int64: which of MNIST's
            training images to use.
        small: 2 trials of 640 images.
        trials: How many of the configurations.
    """
    return {
        "configs": CONFIGS[: trials or (2 if small else len(CONFIGS))],
        "train": 640 if small else 12_800,
        "val": 500 if small else 2_000,
        "data": str(Path(data).resolve()),
        "split": str(split),
        "loader_workers": 0,
        "overrides": [],
    }


def read_idx(path: Path) -> Any:
    """One of MNIST's files: a header of big-endian integers, then bytes."""
    import numpy as np

    raw = path.read_bytes()
    dims = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dims).reshape(shape)


def lenet(dropout: float) -> Any:
    """LeNet-5 with ReLU and max pooling, 61,706 parameters: the net of `model=lenet`."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(120, 84), nn.ReLU(), nn.Dropout(dropout), nn.Linear(84, 10),
    )  # fmt: skip


def arguments(
    doc: str | None, **words: Sequence[Any]
) -> tuple[argparse.Namespace, dict[str, Any], Path]:
    """The command line of a contender: a folder, and options with their choices; with them the spec.

    Each word is an option's choices, the first of them the default.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds spec.json")
    for word, choices in words.items():
        parser.add_argument(f"--{word}", choices=choices, default=choices[0], type=type(choices[0]))
    given = parser.parse_args()
    folder = given.folder.resolve()
    return given, json.loads((folder / "spec.json").read_text()), folder


def main() -> None:
    """Write a spec, with a split of its own, so that a contender can be run alone."""
    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder that holds MNIST/"
    )
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    spec = make_spec(given.data, folder, small=given.small)
    order = np.random.default_rng(0).permutation(60_000)
    np.save(folder / "train_index.npy", order[: spec["train"]])
    np.save(folder / "val_index.npy", order[spec["train"] : spec["train"] + spec["val"]])
    (folder / "spec.json").write_text(json.dumps(spec))
    print(folder / "spec.json")


if __name__ == "__main__":
    main()
