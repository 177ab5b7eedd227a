"""Optuna over Lightning, on one SQLite: one process, two processes, or one with two threads.

python benchmarks/contenders/optuna_study.py FOLDER [--how one|pair|threads]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lit
import work

KEYS = ("lr", "dropout", "weight_decay", "batch_size")


def optimize(spec: dict[str, Any], folder: Path, count: int, n_jobs: int = 1) -> None:
    """Run `count` trials of the study in the folder's SQLite."""
    import optuna

    train = lit.make_training(spec, folder)
    # Two threads at once are handed the same waiting trial now and then: there the list goes by a
    # count of our own.
    numbers = iter(range(count))

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        trial.suggest_float("dropout", 0.0, 0.6)
        trial.suggest_float("weight_decay", 1e-6, 1.0, log=True)
        trial.suggest_categorical("batch_size", [32, 64, 128])
        return train(trial.number if n_jobs == 1 else next(numbers))

    study = optuna.load_study(study_name="benchmark", storage=f"sqlite:///{folder / 'optuna.db'}")
    study.optimize(objective, n_trials=count, n_jobs=n_jobs)


def open_study(spec: dict[str, Any], folder: Path) -> None:
    """Make the study, with the configurations waiting in it."""
    import optuna

    study = optuna.create_study(
        study_name="benchmark", storage=f"sqlite:///{folder / 'optuna.db'}", direction="maximize"
    )
    for config in spec["configs"]:
        study.enqueue_trial(dict(zip(KEYS, config, strict=True)))


def main() -> None:
    given, spec, folder = work.arguments(
        __doc__, how=("one", "pair", "threads", "worker"), count=range(65)
    )
    if given.how == "worker":  # of a pair
        optimize(spec, folder, given.count)
        return
    open_study(spec, folder)
    count = len(spec["configs"])
    if given.how != "pair":
        optimize(spec, folder, count, 2 if given.how == "threads" else 1)
        return
    command = [sys.executable, __file__, str(folder), "--how", "worker", "--count"]
    processes = [
        subprocess.Popen([*command, str(share)]) for share in (count - count // 2, count // 2)
    ]
    codes = [process.wait() for process in processes]  # of both, before anything is said
    if any(codes):
        raise SystemExit("a process of Optuna failed")


if __name__ == "__main__":
    main()
