"""What is good: a study of two trials with its store, its record and its exported model; inputs begin as its copies."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.security.foreign.box import Box
from tests.security.foreign.inputs.base import TINY
from tests.security.foreign.runner import Outcome, Runner

_STUDY = [
    "-m",
    "model=mlp",
    "data=digits",
    "space=default",
    "study.name=good",
    "study.n_trials=2",
    *TINY,
]
ARTIFACTS = "work/mlruns/artifacts"


def make(runner: Runner) -> None:
    """Make what is good: a sandbox with the store ``mlruns``, ``exported``, ``record`` and ``weights.pt``."""
    box = runner.box
    shutil.rmtree(box.root, ignore_errors=True)
    box.root.mkdir(parents=True)
    box.furnish()
    generous = {"seconds": 90.0, "memory_mb": 4096.0, "watched": False}
    _check(runner.run(_STUDY, **generous))  # type: ignore[arg-type]
    _without_models(box)
    _check(runner.run(["sync"], **generous))  # type: ignore[arg-type]
    form = ["--format", "torch,onnx"] if _has_onnx() else []
    _check(
        runner.run(["export", "good", "--out", "exported", *form], writable=["work"], **generous)
    )  # type: ignore[arg-type]
    report = box.study / "report"
    shutil.rmtree(report / "figures")
    (box.work / "record").mkdir()
    for name in (report / "report.json", box.study / "config.yaml"):
        shutil.copy(name, box.work / "record" / name.name)
    for database in ("dlsearch.db", "mlflow.db"):
        with closing(sqlite3.connect(box.store / database)) as connection:
            connection.execute("pragma wal_checkpoint(truncate)")
            connection.execute("pragma journal_mode=delete")
    _write_inputs(box)
    shutil.rmtree(box.root / "tmp")
    for path in (
        *box.store.glob("*.db-*"),
        *(box.store / "artifacts").glob("*/artifacts/report/figures"),
    ):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(runner.good, ignore_errors=True)
    shutil.move(box.root, runner.good)


def _write_inputs(box: Box) -> None:
    """A row of numbers to predict for, and the weights of a net of the same shape."""
    import numpy as np
    import torch

    np.save(box.work / "digit.npy", np.zeros((8, 8), dtype=np.float32))
    saved = torch.load(box.study / "t00000/ckpt/best.ckpt", weights_only=True)
    torch.save(
        {key: value for key, value in saved["state_dict"].items() if key.startswith("net.")},
        box.work / "weights.pt",
    )


def _without_models(box: Box) -> None:
    """A journal that has a model to be described costs a process that imports everything."""
    for journal in box.study.rglob("journal*.jsonl"):
        rows = [json.loads(line) for line in journal.read_text().splitlines()]
        journal.write_text("".join(json.dumps(row) + "\n" for row in rows if row["row"] != "model"))


def _has_onnx() -> bool:
    import importlib.util

    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def _check(found: Outcome) -> None:
    assert found.code == 0, (found.out[-2000:], found.err[-2000:], found.killed)


def copy_of(base: Path) -> Path:
    """Where what is good lies below `base`."""
    return base / "good"
