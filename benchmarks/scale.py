"""How much of the slots' time is in use: trials that sleep, under dlsearch and under a batch-synchronous sweep.

    python benchmarks/scale.py [--workers 8,64] [--rounds 6,2] [--seconds 4,10] [--repeats 1] [--out
    FILE]

Trials sleep for log-normal durations (sigma 0.6, so that the longest of 8 takes about twice the
mean), each drawn by the trial's own seed; both contenders sleep the same durations in the same
order. Sleeping takes no core, so that there may be more slots than cores; starting a trial does,
some tenths of a second, so that short trials on many slots measure the cores: with 64 slots, 10 s
each and 2 cores these have no time to spare.

    dlsearch             `dlsearch -m … hydra.launcher.workers=8`, tracking on: every trial is a process with torch that
                         sleeps in the training steps of a LightningModule (`benchmarks/sleeping.py`), three epochs of
                         one step, validated and reported
    batch-synchronous    the way of Hydra's Optuna sweeper and of its joblib launcher: ask Optuna for as many trials as
                         there are workers, wait for the slowest of them, tell, ask for the next batch; a pool of
                         processes which do nothing but sleep, so that it pays for no training at all
    the limit            computed: each slot takes the next trial at once, and nothing but sleeping takes time

Idle is what is held by no trial, out of all slots' time: for dlsearch between claim and result, as
the record has it, for the sweep between the job's start and its end. The time runs from the first
trial's start. `idle until the last start` ends when the last trial starts (in the sweep: with its
last batch), as long as there is work for all; `idle to the end` includes the tail, in which slots
run out of trials and wait for the longest. `asleep` is how much of the slots' time, to the end, was
spent on the work itself; `beside its sleep` what a trial held its slot for beyond that.
"""

from __future__ import annotations

import argparse
import heapq
import math
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path

import machine

SIGMA, SEED, EPOCHS = 0.6, 0, 3
EXPERIMENT = """\
# @package _global_
defaults:
  - override /model: null
  - override /task: null
  - override /data: null
  - override /space: none
task: {_target_: sleeping.Sleeping, seed: '${seed}', mean: 1.0, epochs: '${trainer.max_epochs}', rate: 0.0}
data: {_target_: sleeping.OneSample}
study: {objective: val/score}
space:
  task.rate: interval(0, 1)
"""
#: number, start, end of a trial, seconds
Span = tuple[int, float, float]


def duration(seed: int, mean: float) -> float:
    """Seconds that the trial with this seed sleeps: log-normal, with this mean."""
    return mean * math.exp(random.Random(seed).gauss(-SIGMA * SIGMA / 2, SIGMA))


def draw(count: int, mean: float) -> list[float]:
    """The durations of a study's trials, by number: dlsearch's seed of a trial is a function of both."""
    from dlsearch.sampling.seeds import trial_seed

    return [duration(trial_seed(SEED, number), mean) for number in range(count)]


# -- the contenders --------------------------------------------------------------------------------------------------
def run_dlsearch(durations: Sequence[float], workers: int, mean: float) -> list[Span]:
    """A study of these durations; the attempts of its record."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        (folder / "conf" / "experiment").mkdir(parents=True)
        (folder / "conf" / "experiment" / "sleeping.yaml").write_text(EXPERIMENT)
        command = [
            str(Path(sys.executable).with_name("dlsearch")), "--config-dir", "conf", "-m", "experiment=sleeping",
            "allow_targets=[sleeping]",
            "study.name=scale", f"study.n_trials={len(durations)}", f"seed={SEED}", f"task.mean={mean}",
            "sampler=random", "study.default_first=false", "study.finalize=false", f"trainer.max_epochs={EPOCHS}",
            "trainer.accelerator=cpu", f"hydra.launcher.workers={workers}", f"paths.store={folder / 'store'}",
        ]  # fmt: skip
        environment = {
            k: v
            for k, v in os.environ.items()
            if k not in ("DLSEARCH_STORE", "MLFLOW_TRACKING_URI")
        }
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parent)
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(
                f"dlsearch ended with exit status {done.returncode}:\n{done.stderr[-4000:]}"
            )
        return read_spans(folder / "store", len(durations))


def read_spans(store: Path, count: int) -> list[Span]:
    """The study's attempts, after a look whether it is the one that was asked for."""
    from dlsearch.records.record import read_record
    from dlsearch.storage.database import Storage
    from dlsearch.study.study import Study

    storage = Storage(f"sqlite:///{store / 'dlsearch.db'}")
    trials = read_record(Study(storage, "scale")).to_json()["trials"]
    storage.close()
    if len(trials) != count:
        raise SystemExit(f"dlsearch ran {len(trials)} of {count} trials")
    spans = []
    for trial in trials:
        if trial["state"] != "complete" or len(trial["attempts"]) != 1:
            raise SystemExit(f"trial {trial['number']} did not run once to its end: {trial}")
        (attempt,) = trial["attempts"]
        start, end = (
            datetime.fromisoformat(attempt[key]).timestamp() for key in ("started", "ended")
        )
        spans.append((trial["number"], start, end))
    return spans


def run_sweep(durations: Sequence[float], workers: int, _: float) -> list[Span]:
    """Batches, each waited for before the next is asked for."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=SEED))
    spans: list[Span] = []
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        # all its processes are there before the clock runs
        list(pool.map(time.sleep, [0.5] * workers))
        while len(spans) < len(durations):
            trials = [study.ask() for _ in range(min(workers, len(durations) - len(spans)))]
            for trial in trials:
                trial.suggest_float("task.rate", 0, 1)
            for span in pool.map(
                sleep, [(trial.number, durations[trial.number]) for trial in trials]
            ):
                spans.append(span)
                study.tell(span[0], 0.0)
    return spans


def sleep(job: tuple[int, float]) -> Span:
    """A job of the pool."""
    number, seconds = job
    started = time.time()
    time.sleep(seconds)
    return number, started, time.time()


def run_limit(durations: Sequence[float], workers: int, _: float) -> list[Span]:
    """No contender: what would be without any cost."""
    free = [0.0] * workers
    spans = []
    for number, seconds in enumerate(durations):
        start = heapq.heappop(free)
        heapq.heappush(free, start + seconds)
        spans.append((number, start, start + seconds))
    return spans


CONTENDERS: dict[str, Callable[[Sequence[float], int, float], list[Span]]] = {
    "the limit (computed)": run_limit,
    "**dlsearch**": run_dlsearch,
    "batch-synchronous sweep": run_sweep,
}


# -- the table -------------------------------------------------------------------------------------------------------
def figures(spans: Sequence[Span], durations: Sequence[float], workers: int) -> dict[str, float]:
    """What one run came to."""
    first, last = min(start for _, start, _ in spans), max(end for _, _, end in spans)
    filled = max(start for _, start, _ in spans)
    if filled == first:
        raise SystemExit("there must be more trials than workers")

    def idle(until: float) -> float:
        held = sum(min(end, until) - min(start, until) for _, start, end in spans)
        return 1 - held / (workers * (until - first))

    return {
        "filled": idle(filled),
        "whole": idle(last),
        "asleep": sum(durations) / (workers * (last - first)),
        "beside": statistics.median(
            end - start - durations[number] for number, start, end in spans
        ),
        "seconds": last - first,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="8,64", help="slots, a study each")
    parser.add_argument("--rounds", default="6,2", help="trials for each slot, of each study")
    parser.add_argument("--seconds", default="4,10", help="mean duration, of each study")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", help="a part of a contender's name")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    plans = list(
        zip(
            *(each.split(",") for each in (given.workers, given.rounds, given.seconds)), strict=True
        )
    )
    rows = []
    for workers, rounds, seconds in ((int(w), int(r), float(s)) for w, r, s in plans):
        durations = draw(workers * rounds, seconds)
        names = [name for name in CONTENDERS if not given.only or given.only in name]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for turn in range(given.repeats):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                found[name].append(
                    figures(CONTENDERS[name](durations, workers, seconds), durations, workers)
                )
                told = ", ".join(f"{key} {value:.3f}" for key, value in found[name][-1].items())
                print(
                    f"round {turn + 1}: {workers} slots: {name}: {told}",
                    file=sys.stderr,
                    flush=True,
                )
        for name, runs in found.items():
            share = {
                key: machine.spread([100 * run[key] for run in runs], 1)
                for key in ("filled", "whole", "asleep")
            }
            other = [
                machine.spread([run[key] for run in runs], digits)
                for key, digits in (("beside", 2), ("seconds", 1))
            ]
            rows.append(
                [str(workers), name, share["filled"], share["whole"], share["asleep"], *other]
            )
    headings = [
        "slots", "contender", "idle until the last start, %", "idle to the end, %", "asleep, %",
        "a trial beside its sleep, s", "first start to last end, s",
    ]  # fmt: skip
    sizes = "; ".join(
        f"{w} slots: {int(w) * int(r)} trials of {float(s):g} s on average" for w, r, s in plans
    )
    n = f"{sizes}; median (least–most) of {given.repeats}"
    packages = ("dlsearch", "torch", "pytorch-lightning", "optuna")
    machine.publish(f"{machine.table(headings, rows)}\n\n{machine.caption(n, packages)}", given.out)


if __name__ == "__main__":
    main()
