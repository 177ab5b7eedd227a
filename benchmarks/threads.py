"""Threads × workers = cores: the same trials by one worker with all threads, by one a core, by two a core.

    python benchmarks/threads.py [--repeats 2] [--trials 8] [--out FILE]

Each row is a study of LeNet-5 trials on 12,800 MNIST images for one epoch, as `dlsearch -m` runs
it, tracking on. The trials a minute count from the first trial's start to the last one's end:
imports are no part of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import machine
import studies


def words(workers: int, threads: int, trials: int, train: int) -> list[str]:
    """The command of one row."""
    return [
        "model=lenet", "data=mnist", "space=none", "optimizer.lr=tag(log, interval(1e-4, 1e-2))", "sampler=random",
        f"study.n_trials={trials}", "trainer.max_epochs=1", "trainer.accelerator=cpu", "data.batch_size=64",
        f"data.train_size={train}", "data.val_size=2000", f"hydra.launcher.workers={workers}",
        f"worker.threads={threads}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument(
        "--small", action="store_true", help="2 trials of 640 images: a rehearsal, no measurement"
    )
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder that holds MNIST/"
    )
    parser.add_argument("--out", help="file that the table is appended to", type=Path)
    given = parser.parse_args()
    trials, train = (2, 640) if given.small else (given.trials, 12_800)
    cores = machine.cores()
    rows = list(dict.fromkeys([(1, cores), (cores, 1), (2 * cores, 1)]))
    found: dict[tuple[int, int], list[studies.Study]] = {row: [] for row in rows}
    for turn in range(given.repeats):
        shift = turn % len(rows)
        for row in rows[shift:] + rows[:shift]:
            found[row].append(studies.run(words(*row, trials, train), data=given.data))
    limit = statistics.median(s.per_hour for s in found[rows[0]])
    table = [
        [
            f"{workers} × {threads}", machine.spread([s.per_hour / 60 for s in runs], 1),
            f"{statistics.median(s.per_hour for s in runs) / limit:.2f}", machine.spread([s.seconds for s in runs]),
        ]
        for (workers, threads), runs in found.items()
    ]  # fmt: skip
    headings = ["workers × threads", "trials a minute", "× one worker", "a trial, s"]
    n = f"{trials} trials, {train:,} images, median (least–most) of {given.repeats}"
    caption = machine.caption(n, ("dlsearch", "torch", "pytorch-lightning"))
    machine.publish(f"{machine.table(headings, table)}\n\n{caption}", given.out)


if __name__ == "__main__":
    main()
