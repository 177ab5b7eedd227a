"""How long until something happens: help, plan, imports, the first training step of a study, of its second trial.

    python benchmarks/startup.py [--repeats 3] [--data-set mnist] [--out FILE]

Commands and imports are wall seconds of a fresh process, start to exit. The study has one slot and
runs three small trials from an empty store. Its first step counts from the start of the process.
That of its later trials counts from their claim (the first row of a trial's journal, written when
it is claimed and before its process is forked) to the row that its first step writes, after forward
pass and loss. The same study without its rehearsal tells what that costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

DLSEARCH = str(Path(sys.executable).with_name("dlsearch"))
SIZES = {"mnist": ("lenet", 6400, 1000), "digits": ("mlp", 1000, 200)}


def commands(data_set: str) -> dict[str, list[str]]:
    """What is timed from start to exit."""
    model = SIZES[data_set][0]
    imports = (
        "torch",
        "torchvision",
        "pytorch_lightning",
        "mlflow",
        "optuna",
        "dlsearch.training.fit",
    )
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "dlsearch --help": [DLSEARCH, "--help"],
        f"dlsearch plan model={model} data={data_set}": [
            DLSEARCH,
            "plan",
            f"model={model}",
            f"data={data_set}",
        ],
        **{f"import {name}": [sys.executable, "-c", f"import {name}"] for name in imports},
    }


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Wall seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        took = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(
            f"{command} ended with exit status {done.returncode}:\n{done.stderr[-4000:]}"
        )
    return took


def study(
    data_set: str, environment: dict[str, str], *, rehearsal: bool = True
) -> dict[str, float]:
    """One small study: seconds to its first step, and from claim to first step of its second and third trials."""
    model, train, val = SIZES[data_set]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        store = Path(folder, "store")
        command = [
            DLSEARCH, "-m", f"model={model}", f"data={data_set}", "study.name=startup", "study.n_trials=3",
            "sampler=random", "study.finalize=false", "trainer.max_epochs=1", "trainer.accelerator=cpu",
            f"data.train_size={train}", f"data.val_size={val}", "hydra.launcher.workers=1", f"paths.store={store}",
            f"study.rehearsal={str(rehearsal).lower()}",
        ]  # fmt: skip
        t0 = time.time()
        whole = timed(command, environment)
        starts = []
        for number in range(3):
            path = store / "studies" / "startup" / f"t{number:05d}" / "journal.a1.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            step = next(
                row
                for row in rows
                if row["row"] == "metrics" and "train/loss_step" in row["values"]
            )
            starts.append((rows[0]["started"] / 1e3, step["t"] / 1e3))
    return {
        "study, process start to first claim": starts[0][0] - t0,
        "study, process start to first training step": starts[0][1] - t0,
        "first trial, claim to first step": starts[0][1] - starts[0][0],
        "second trial, claim to first step": starts[1][1] - starts[1][0],
        "third trial, claim to first step": starts[2][1] - starts[2][0],
        "study of three trials, whole": whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data-set", choices=list(SIZES), default="mnist")
    parser.add_argument("--only", choices=["commands", "study"])
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder of the data sets"
    )
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    environment = {
        k: v for k, v in os.environ.items() if k not in ("DLSEARCH_STORE", "MLFLOW_TRACKING_URI")
    }
    environment["DLSEARCH_DATA"] = str(Path(given.data).resolve())
    found: dict[str, list[float]] = {}
    for turn in range(given.repeats + 1):  # the first round fills the page cache
        values: dict[str, float] = {}
        if given.only != "study":
            values |= {
                name: timed(command, environment)
                for name, command in commands(given.data_set).items()
            }
        if given.only != "commands":
            values |= study(given.data_set, environment)
            name = "study, process start to first training step"
            without = study(given.data_set, environment, rehearsal=False)
            values[f"{name}, without rehearsal"] = without[name]
        if turn:
            for name, value in values.items():
                found.setdefault(name, []).append(value)
    rows = [[name, machine.spread(values)] for name, values in found.items()]
    n = f"median (least–most) of {given.repeats}"
    packages = ("dlsearch", "torch", "pytorch-lightning", "mlflow", "optuna", "hydra-core")
    machine.publish(
        f"{machine.table(['what', 's'], rows)}\n\n{machine.caption(n, packages)}", given.out
    )


if __name__ == "__main__":
    main()
