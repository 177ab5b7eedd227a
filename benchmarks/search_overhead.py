"""A search costs what its training costs: the wall time of one piece of work under several tools, side by side.

    python benchmarks/search_overhead.py [--repeats 3] [--peers DIR] [--only limit,dlsearch]
    [--small] [--out FILE]

The work: 16 LeNet-5 trials of 2 epochs on MNIST, 12,800 training and 2,000 validation images, a
fixed list of configurations (learning rate, dropout, weight decay, batch size), AdamW. Logged: the
training loss every 50 steps, validation each epoch, the parameters, the best checkpoint, one MLflow
run a trial in SQLite. All contenders train on the same images (the split is drawn once, before any
clock runs).

    raw             a raw PyTorch loop as people write it, over tensors in memory, in two 1-thread processes; nothing is
                    logged
    limit           the same with everything that a step of dlsearch has: a fused optimizer, channels-last
    limit-rows      the limit, with parameters and metrics written by MLflow's log_batch once an epoch
    dlsearch        `dlsearch -m …`, two workers, tracking on, from an empty store (decoding MNIST is part of its time,
                    and so are the study's own run, its storage and its report)
    optuna-2        Optuna, Lightning, DataLoader with torchvision's transforms, MLFlowLogger, ModelCheckpoint; two
                    processes of one thread on one SQLite, eight trials each
    optuna-threads  the same in one process, n_jobs=2: two threads, each with one of torch
    common          the same in one process with torch's own number of threads
    ray             Ray Tune over the same Lightning code: two actors of one core, reused from trial to trial
    hydra-basic     the Hydra Optuna sweeper over the same Lightning code, one trial after the other
    hydra-joblib    the same with two processes of joblib, of one thread each

Ray and the Hydra sweeper (which needs Optuna 2, where dlsearch needs 5) have environments of their
own with the same torch, Lightning and MLflow: `--peers DIR` makes them in DIR with uv, or finds
them there. Without it they are left out.

The code of the contenders is in contenders/, a script each. DataLoaders have no worker processes
unless asked (`--loader-workers`). Every contender is a fresh process; the clock runs from its start
to its exit. They take turns, in an order that is rotated in every round. A contender that fails
says so in its row, and the others go on. torch imports its compiler when a process makes its first
optimizer: in the raw loop that is part of each process's first trial.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import peers
from contenders import work

KEYS = ("optimizer.lr", "model.dropout", "optimizer.weight_decay", "data.batch_size")
SCRIPTS = Path(__file__).resolve().parent / "contenders"


@dataclass(frozen=True)
class Contender:
    """One that takes part.

    Args:
        name: In the table.
        words: Its script in contenders/ and that script's options; none for dlsearch, which is a
            command.
        threads: Threads that a process of it may use; None leaves it torch's own number.
        peer: The environment that it needs, if it is not this one.
    """

    name: str
    words: tuple[str, ...] = ()
    threads: int | None = None
    peer: str | None = None


CONTENDERS = {
    "raw": Contender(
        "raw as people write it: PyTorch loop, tensors in memory, two 1-thread processes, nothing logged",
        ("limit.py",), 1,
    ),
    "limit": Contender(
        "the limit: raw with everything that we use (fused optimizer, channels-last)",
        ("limit.py", "--step", "ours"), 1,
    ),
    "limit-rows": Contender(
        "the limit with MLflow rows, written by `log_batch` once an epoch",
        ("limit.py", "--log", "rows", "--step", "ours"), 1,
    ),
    "dlsearch": Contender("**dlsearch**, two workers"),
    "optuna-2": Contender(
        "Optuna, Lightning, DataLoader, MLFlowLogger, ModelCheckpoint: two processes on one SQLite",
        ("optuna_study.py", "--how", "pair"), 1,
    ),
    "optuna-threads": Contender(
        "Optuna, Lightning, DataLoader, MLFlowLogger: one process, n_jobs=2 threads",
        ("optuna_study.py", "--how", "threads"), 1,
    ),
    "common": Contender(
        "common practice: Optuna, Lightning, DataLoader, MLFlowLogger in one process",
        ("optuna_study.py", "--how", "one"),
    ),
    "ray": Contender("Ray Tune, Lightning, MLFlowLogger, reused actors", ("ray_tune.py",), 1, "ray"),
    "hydra-basic": Contender(
        "Hydra Optuna sweeper, Lightning, MLFlowLogger, basic launcher", ("hydra_sweep.py",), None, "hydra"
    ),
    "hydra-joblib": Contender(
        "Hydra Optuna sweeper, Lightning, MLFlowLogger, joblib launcher, 2 jobs",
        ("hydra_sweep.py", "--launcher", "joblib"), 1, "hydra",
    ),
}  # fmt: skip


class Failed(Exception):
    """A contender's run came to nothing; its first line says why."""


def dlsearch_command(spec: dict[str, Any], folder: Path) -> list[str]:
    """The command that a user would type."""
    enqueue = folder / "configurations.json"
    enqueue.write_text(
        json.dumps([dict(zip(KEYS, config, strict=True)) for config in spec["configs"]])
    )
    return [
        str(Path(sys.executable).with_name("dlsearch")), "-m", "model=lenet", "data=mnist", "study.name=benchmark",
        f"study.enqueue={enqueue}", "study.default_first=false", "study.finalize=false",
        f"study.n_trials={len(spec['configs'])}", f"trainer.max_epochs={work.EPOCHS}", "trainer.accelerator=cpu",
        f"trainer.log_every_n_steps={work.LOG_EVERY}", f"data.train_size={spec['train']}",
        f"data.val_size={spec['val']}", f"data.eval_batch_size={work.EVAL_BATCH}",
        "optimizer.lr=tag(log, interval(1e-5, 1e-1))", "model.dropout=interval(0, 0.6)",
        "optimizer.weight_decay=tag(log, interval(1e-6, 1))", "data.batch_size=choice(32, 64, 128)",
        "hydra.launcher.workers=2", f"paths.store={folder / 'store'}", f"paths.data={spec['data']}",
        *spec["overrides"],
    ]  # fmt: skip


def read_store(folder: Path) -> list[dict[str, Any]]:
    """The trials of dlsearch's study, from their journals: opened with the claim, closed with the result."""
    found = []
    for number, path in enumerate(
        sorted((folder / "store" / "studies" / "benchmark").glob("t*/journal.a1.jsonl"))
    ):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        scores = [
            r["values"]["val/accuracy"]
            for r in rows
            if r["row"] == "metrics" and "val/accuracy" in r["values"]
        ]
        if rows[-1] != {**rows[-1], "row": "status", "status": "FINISHED"}:
            raise Failed(f"trial {number} did not finish: {rows[-1]}")
        started, ended = rows[0]["started"] / 1e3, rows[-1]["t"] / 1e3
        found.append({"number": number, "started": started, "ended": ended, "score": max(scores)})
    return found


# -- measuring ---------------------------------------------------------------------------------------------------------
def environment(threads: int | None) -> dict[str, str]:
    """Without what would point dlsearch or MLflow elsewhere, or have every process compile its imports again."""
    left_out = ("DLSEARCH_STORE", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    found = {k: v for k, v in os.environ.items() if k not in left_out}
    pinned = {
        name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if threads is not None
    }
    return found | pinned


def measure(name: str, spec: dict[str, Any], python: Path, timeout: float) -> dict[str, float]:
    """One contender, once: seconds from process start to exit, CPU, to the first trial, of the first to the last.

    Raises:
        Failed: It did not run all trials.
    """
    contender = CONTENDERS[name]
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        (folder / "spec.json").write_text(json.dumps(spec))
        script = (
            [str(python), str(SCRIPTS / contender.words[0]), str(folder)] if contender.words else []
        )
        command = [*script, *contender.words[1:]] or dlsearch_command(spec, folder)
        with (folder / "log.txt").open("wb") as log:
            t0, started, used = time.time(), time.perf_counter(), _cpu_of_children()
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=log,
                stderr=log,
                env=environment(contender.threads),
                start_new_session=True,
            )
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                code = None
            whole = time.perf_counter() - started
            # what it left behind must not run beside the next one
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said = (folder / "log.txt").read_text(errors="replace")
        if code is None:
            raise Failed(f"was not done after {timeout:g} s\n{said[-4000:]}")
        if code:
            raise Failed(f"exit status {code}\n{said[-4000:]}")
        trials = work.Book(folder).rows() if contender.words else read_store(folder)
        numbers = sorted(t["number"] for t in trials)
        if numbers != list(range(len(spec["configs"]))):
            raise Failed(
                f"ran trials {numbers}, not each of {len(spec['configs'])} once\n{said[-4000:]}"
            )
        first, last = min(t["started"] for t in trials), max(t["ended"] for t in trials)
        return {
            "whole": whole,
            "cpu": _cpu_of_children() - used,
            "first": first - t0,
            "trials": last - first,
            "score": statistics.mean(t["score"] for t in trials),
        }


def _cpu_of_children() -> float:
    """CPU time of all processes that have ended and were waited for, with theirs, seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def draw_split(spec: dict[str, Any], cache: Path) -> Path:
    """The images that all contenders train and validate on: dlsearch's own split, as index files."""
    from dlsearch.systems.vision.data.image import MNIST

    data = MNIST(
        root=spec["data"], cache=str(cache), shape=(1, 28, 28), num_classes=10,
        train_size=spec["train"], val_size=spec["val"],
    )  # fmt: skip
    data.prepare_data()
    return data.split_folder()


def pythons(names: list[str], place: Path | None) -> tuple[dict[str, Path], dict[str, str]]:
    """The interpreter of every contender that can take part; and why the others cannot."""
    made: dict[str, Path | str] = {}
    for peer in {CONTENDERS[name].peer for name in names} - {None}:
        if place is None:
            made[peer] = "needs an environment of its own, which --peers DIR makes"
            continue
        try:
            made[peer] = peers.make(peer, place)
        except peers.Unavailable as error:
            made[peer] = str(error)
    found: dict[str, Path] = {}
    absent: dict[str, str] = {}
    for name in names:
        peer = CONTENDERS[name].peer
        here = Path(sys.executable) if peer is None else made[peer]
        if isinstance(here, Path):
            found[name] = here
        else:
            absent[name] = here
    return found, absent


def left_out(absent: dict[str, str]) -> str:
    """One line; empty where all take part."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in absent.items():
        by_reason.setdefault(reason, []).append(name)
    said = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
    return f"left out: {said}" if said else ""


# -- the table ---------------------------------------------------------------------------------------------------------
def report(
    found: dict[str, list[dict[str, float]]],
    failures: dict[str, list[str]],
    repeats: int,
    spec: dict[str, Any],
    absent: dict[str, str],
) -> str:
    """The table, its caption, and who is left out."""

    def times(name: str, key: str) -> str:
        if not found.get("limit"):
            return ""
        mine, limit = (
            statistics.median(run[key] for run in found[each]) for each in (name, "limit")
        )
        return f"{mine / limit:.2f}"

    rows = []
    for name, runs in sorted(found.items(), key=lambda item: _order(item[1])):
        title, failed = CONTENDERS[name].name, failures[name]
        if not runs:
            rows.append([title, f"failed: {failed[0]}" if failed else "not run", *[""] * 6])
            continue
        title += (
            f" ({len(failed)} of {len(failed) + len(runs)} runs failed: {failed[0]})"
            if failed
            else ""
        )
        columns = {
            key: machine.spread([run[key] for run in runs], 1)
            for key in ("whole", "cpu", "first", "trials")
        }
        if not CONTENDERS[name].words:  # nobody waits for the processes of its trials
            columns["cpu"] = "–"
        score = f"{statistics.mean(run['score'] for run in runs):.4f}"
        rows.append(
            [
                title, columns["whole"], times(name, "whole"), columns["cpu"], columns["first"],
                columns["trials"], times(name, "trials"), score,
            ]
        )  # fmt: skip
    headings = [
        "contender",
        "whole, s",
        "× limit",
        "CPU, s",
        "first trial starts at, s",
        "first to last trial, s",
        "× limit",
    ]
    text = machine.table([*headings, "mean validation accuracy"], rows)
    n = f"{len(spec['configs'])} trials, {spec['train']:,} + {spec['val']:,} images, median (least–most) of {repeats}"
    packages = ("dlsearch", "torch", "pytorch-lightning", "optuna", "mlflow", "torchvision")
    caption = machine.caption(n, packages)
    used = dict.fromkeys(CONTENDERS[name].peer for name in found)
    caption += "".join(
        f"; {peer}'s environment: the same with {peers.shown(peer)}" for peer in used if peer
    )
    return "\n\n".join(part for part in (text, caption, left_out(absent)) if part)


def _order(runs: list[dict[str, float]]) -> float:
    return statistics.median(run["whole"] for run in runs) if runs else float("inf")


def rounds(
    repeats: int, names: list[str], run: Callable[[str], dict[str, float]]
) -> tuple[dict[str, list[dict[str, float]]], dict[str, list[str]]]:
    """Run all in turn; the figures and the failures of each."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    failures: dict[str, list[str]] = {name: [] for name in names}
    for turn in range(repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            try:
                found[name].append(run(name))
                told = ", ".join(f"{key} {value:.3f}" for key, value in found[name][-1].items())
            except Failed as error:
                told = f"failed: {error}"
                failures[name].append(str(error).splitlines()[0])
            print(f"round {turn + 1}: {name}: {told}", file=sys.stderr, flush=True)
    return found, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help=f"of {','.join(CONTENDERS)}")
    parser.add_argument(
        "--peers", type=Path, help="folder of the environments of Ray and of the Hydra sweeper"
    )
    parser.add_argument(
        "--small", action="store_true", help="2 trials of 640 images: a rehearsal, no measurement"
    )
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder that holds MNIST/"
    )
    parser.add_argument("--loader-workers", type=int, default=0, help="of the DataLoaders")
    parser.add_argument(
        "--timeout", type=float, default=900.0, help="seconds that one run of a contender may take"
    )
    parser.add_argument(
        "--override", action="append", default=[], help="one more word for dlsearch's command"
    )
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(CONTENDERS)
    if unknown := set(names) - set(CONTENDERS):
        parser.error(
            f"--only: expected some of {', '.join(CONTENDERS)}, got {', '.join(sorted(unknown))}"
        )
    using, absent = pythons(names, given.peers)
    if absent:
        print(left_out(absent), file=sys.stderr, flush=True)
    if not using:
        parser.exit(2, "nothing is left to measure\n")
    cache = Path(tempfile.mkdtemp(prefix="bench-split-"))
    try:
        spec = work.make_spec(given.data, cache, small=given.small)
        spec |= {"loader_workers": given.loader_workers, "overrides": given.override}
        spec["split"] = str(draw_split(spec, cache))
        for python in dict.fromkeys(using.values()):  # into the page cache, with their byte code
            peer = next(CONTENDERS[name].peer for name, each in using.items() if each == python)
            imports = (
                peers.IMPORTS[peer]
                if peer
                else "import mlflow, optuna, pytorch_lightning, torchvision"
            )
            subprocess.run(
                [str(python), "-c", imports], check=True, env=environment(None), stderr=subprocess.DEVNULL
            )  # fmt: skip
        found, failures = rounds(
            given.repeats, list(using), lambda name: measure(name, spec, using[name], given.timeout)
        )
        machine.publish(report(found, failures, given.repeats, spec, absent), given.out)
    finally:
        shutil.rmtree(cache)


if __name__ == "__main__":
    main()
