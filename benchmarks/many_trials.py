"""What a study of many trials costs to look at: `dlsearch status`, `dlsearch trials` and `dlsearch report`.

    python benchmarks/many_trials.py [--trials 10000] [--sampler random] [--repeats 3] [--keep DIR] [--out FILE]

The trials are claimed and told one by one, as a worker does it, with results as a training of five epochs gives them;
nothing is trained. One in three is pruned after its second epoch. The commands then run as processes of their own:
seconds from start to exit, and seconds of CPU. What claiming and telling the last hundred trials cost stands below.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import machine
import optuna
import storage

from dlsearch.search.database import Storage
from dlsearch.search.leases import Holder
from dlsearch.search.opening import document_of, open_study
from dlsearch.search.study import Study

NAME = "s"
EPOCHS = 5


def result(score: float, epochs: int, state: str) -> dict[str, Any]:
    """What a training process sends at its end."""
    history = [[epoch, score * (1 - 0.5**epoch)] for epoch in range(1, epochs + 1)]
    return {
        "state": state, "reason": None, "error": None, "values": [history[-1][1]] if state == "complete" else None,
        "best_epoch": epochs - 1, "best_step": 100 * epochs, "epochs": epochs, "n_params": 61_706, "seconds": 1.5,
        "summary": {"val/accuracy": history[-1][1], "best/val/accuracy": history[-1][1]}, "history": history,
    }  # fmt: skip


def fill(folder: Path, trials: int, sampler: str) -> list[float]:
    """Claim and tell `trials` trials; the CPU seconds of each."""
    url = f"sqlite:///{folder / 'dlsearch.db'}"
    opened, draft = Storage(url), storage.draft(sampler)
    document = document_of(draft, {}, {"provenance": {}, "sha": {"env": "", "code": ""}})
    open_study(opened, draft, document, lease_s=30.0)
    study, rng, costs = Study(opened, NAME), random.Random(0), []
    for number in range(trials):
        started = time.process_time()
        claim = study.claim(Holder("w", "bench", os.getpid(), 0, "cpu:0"))
        assert claim is not None
        score, pruned = rng.random(), number % 3 == 2
        told = result(score, 2 if pruned else EPOCHS, "pruned" if pruned else "complete")
        for epoch, value in told["history"]:
            study.report(claim, epoch, value)
        if not study.finish(claim, told):
            raise SystemExit("a result was refused")
        costs.append(time.process_time() - started)
    opened.close()
    return costs


def command(words: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a dlsearch command on the store."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [str(Path(sys.executable).with_name("dlsearch")), *words, f"paths.store={folder}"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sampler", choices=list(storage.SAMPLERS), default="random", help="of the proposals")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the store, which is filled if it is new, and stays")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = (given.keep or Path(place)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        costs = [] if (folder / "dlsearch.db").is_file() else fill(folder, given.trials, given.sampler)
        rows = []
        for words in (["status", NAME], ["trials", NAME], ["report", NAME]):
            times = [command(words, folder) for _ in range(given.repeats)]
            wall, cpu = ([each[at] for each in times] for at in (0, 1))
            rows.append([f"`dlsearch {words[0]}`", machine.spread(wall, 1), machine.spread(cpu, 1)])
        report = folder / "studies" / NAME / "report"
        size = sum(path.stat().st_size for path in report.rglob("*") if path.is_file()) / 1e6
    text = machine.table(["command", "s", "CPU, s"], rows)
    text += f"\n\nThe report has {size:.1f} MB."
    if costs:
        last = [1e3 * cost for cost in costs[-100:]]
        p95 = statistics.quantiles(last, n=20)[18] if len(last) > 1 else last[0]
        text += f" Claim, five reports and tell of the last {len(last)} trials took {statistics.median(last):.1f} ms of"
        text += f" CPU (median; {p95:.1f} at the 95th percentile)."
    n = f"{given.trials:,} trials, sampler {given.sampler}, median (least–most) of {given.repeats}"
    machine.publish(f"{text}\n\n{machine.caption(n, ('dlsearch', 'optuna', 'sqlalchemy'))}", given.out)


if __name__ == "__main__":
    main()
