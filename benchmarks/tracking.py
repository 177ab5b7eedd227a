"""What tracking costs the thread that trains, and how fast rows reach MLflow.

    python benchmarks/tracking.py [--workers 1,4,16] [--small] [--only dlsearch,...] [--out FILE]

Each worker is a process with a run of its own. It writes a row of five metrics for every step (and,
but for dlsearch's journal, nothing else happens in it: no training), in epochs of 50 steps:

    dlsearch               a row into the run's journal, flushed at each epoch's end; the shipper, a process of its own,
                           sends journals while they grow
    MLFlowLogger           Lightning's logger: `log_metrics` at every step
    log_metric             `MlflowClient.log_metric` for every value
    log_batch an epoch     rows gathered by hand, one `MlflowClient.log_batch` at each epoch's end

into MLflow on a SQLite file, and over HTTP to an `mlflow server` that the script starts on
127.0.0.1 (on a SQLite file as well). All write the same rows, in an order that is rotated each
round; slow contenders get fewer steps, so compare the columns that are per row. A contender must
have every value of every run in MLflow's database at the end, with its step, and no other: the
script counts them, and ends with an error otherwise.

The thread's cost is the wall time of its calls, divided by the rows, but for the end of the run;
its share is of a training step of 2.64 ms (the step of LeNet-5 at batch size 32, on one core) with
a row a step. dlsearch's own default is a row every 50 steps. The time until everything is in MLflow
counts from the first row; dlsearch's shipper has been started before, and so have the other
contenders' clients, runs and connections. The shipper is nice: on a busy machine training comes
first.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine

EPOCH = 50  # steps
STEP_MS = 2.64
KEYS = ("train/loss", "train/accuracy", "lr/0", "epoch", "time/step_s")
EXPERIMENT = "benchmark"


def row(step: int) -> dict[str, float]:
    """The metrics of a step."""
    return {key: (step * 31 + place) % 997 / 997 for place, key in enumerate(KEYS)}


# -- contenders: each makes a function that takes a row, and one that takes the end of an epoch ------------------------
Sink = tuple[Callable[[dict[str, float], int], None], Callable[[], None], Callable[[], None]]


def nothing() -> None:
    """Nothing is to be done then."""


def to_journal(uri: str, store: Path, worker: int) -> Sink:
    from dlsearch.tracking import layout
    from dlsearch.tracking.journal import Journal

    journal = Journal(store / layout.trial_folder("bench", worker) / "journal.a1.jsonl")
    journal.open("trial", f"trial-{worker}", EXPERIMENT)

    def end() -> None:
        journal.status("FINISHED")
        journal.close()

    return journal.metrics, journal.flush, end


def to_logger(uri: str, store: Path, worker: int) -> Sink:
    from pytorch_lightning.loggers import MLFlowLogger

    logger = MLFlowLogger(EXPERIMENT, run_name=f"trial-{worker}", tracking_uri=uri)
    _ = logger.run_id  # makes the run
    return logger.log_metrics, nothing, lambda: logger.finalize("success")


def to_log_metric(uri: str, store: Path, worker: int) -> Sink:
    client, run_id = plain_run(uri, worker)

    def write(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            client.log_metric(run_id, key, value, step=step)

    return write, nothing, lambda: client.set_terminated(run_id)


def to_log_batch(uri: str, store: Path, worker: int) -> Sink:
    from mlflow.entities import Metric

    client, run_id = plain_run(uri, worker)
    gathered: list[Any] = []

    def write(values: dict[str, float], step: int) -> None:
        now = time.time_ns() // 1_000_000
        gathered.extend(Metric(key, value, now, step) for key, value in values.items())

    def epoch() -> None:
        for start in range(0, len(gathered), 1000):
            client.log_batch(run_id, metrics=gathered[start : start + 1000])
        gathered.clear()

    return write, epoch, lambda: client.set_terminated(run_id)


def plain_run(uri: str, worker: int) -> tuple[Any, str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return client, client.create_run(
        experiment.experiment_id, run_name=f"trial-{worker}"
    ).info.run_id


#: The steps of all workers together, on SQLite and over HTTP: a few seconds for each.
CONTENDERS: dict[str, tuple[Callable[[str, Path, int], Sink], int, int]] = {
    "dlsearch": (to_journal, 16_000, 4_800),
    "MLFlowLogger": (to_logger, 1_600, 320),
    "log_metric": (to_log_metric, 320, 80),
    "log_batch an epoch": (to_log_batch, 16_000, 4_800),
}


# -- places --------------------------------------------------------------------------------------------------------
def make_database(path: Path) -> None:
    """MLflow's tables, with an experiment: seconds, once."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").create_experiment(
        EXPERIMENT, artifact_location=(path.parent / "a").as_uri()
    )
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.contextmanager
def served(database: Path) -> Iterator[str]:
    """An `mlflow server` over `database`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    log = database.with_name("server.log")
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{database}",
    ]
    command += ["--artifacts-destination", str(database.with_name("artifacts"))]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with log.open("wb") as file:
        # A session of its own: the server has children, and all of them are ended together.
        server = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=database.parent, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5):
                break
            if time.monotonic() > deadline or server.poll() is not None:
                raise SystemExit(f"the MLflow server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield uri
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 9)
        server.wait()


# -- one measurement ---------------------------------------------------------------------------------------------------
def run(
    name: str, uri: str, folder: Path, database: Path, workers: int, steps: int
) -> tuple[float, float]:
    """Seconds of the training thread for each row, and seconds until all rows are in MLflow."""
    from dlsearch.tracking.handle import Shipper

    make = CONTENDERS[name][0]
    before = runs_of(database)
    context = multiprocessing.get_context("fork")
    ready, go, queue = context.Semaphore(0), context.Event(), context.Queue()

    def work(worker: int) -> None:
        write, epoch, end = make(uri, folder / "store", worker)
        rows = [row(step) for step in range(steps)]
        ready.release()
        go.wait()
        inside = 0.0
        for step, values in enumerate(rows):
            started = time.perf_counter()
            write(values, step)
            if step % EPOCH == EPOCH - 1 or step == steps - 1:
                epoch()
            inside += time.perf_counter() - started
        end()
        queue.put(inside)

    shipper = Shipper(folder / "store", uri) if name == "dlsearch" else None
    try:
        if shipper is not None:
            awake(folder / "store")
        processes = [context.Process(target=work, args=(worker,)) for worker in range(workers)]
        for process in processes:
            process.start()
        for _ in processes:
            while not ready.acquire(timeout=1):
                if any(process.exitcode for process in processes):
                    raise SystemExit(f"a worker of {name} failed")
        started = time.perf_counter()
        go.set()
        inside = [queue.get(timeout=600) for _ in processes]
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit(f"a worker of {name} failed")
        if shipper is not None and not shipper.drain(300):
            raise SystemExit("the shipper did not get its rows through")
        whole = time.perf_counter() - started
    finally:
        if shipper is not None:
            shipper.stop(10)
    check(name, database, before, workers, steps)
    return statistics.median(inside) / steps, whole


def awake(store: Path) -> None:
    """Wait until the shipper has imported mlflow and looks at journals."""
    deadline = time.monotonic() + 120
    while "shipping" not in (store / "shipper.log").read_text():
        if time.monotonic() > deadline:
            raise SystemExit(
                f"the shipper did not start:\n{(store / 'shipper.log').read_text()[-3000:]}"
            )
        time.sleep(0.05)


def runs_of(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        return {run_id for (run_id,) in connection.execute("SELECT run_uuid FROM runs")}


def check(name: str, database: Path, before: set[str], workers: int, steps: int) -> None:
    """Every value of every step, in a run a worker, and none beside them."""
    found: dict[str, dict[tuple[str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        for run_id, key, step, value in connection.execute(
            "SELECT run_uuid, key, step, value FROM metrics"
        ):
            if run_id not in before:
                found[run_id][key, step].append(value)
    expected = {(key, step): [value] for step in range(steps) for key, value in row(step).items()}
    wrong = [run_id for run_id, values in found.items() if values != expected]
    if len(found) != workers or wrong:
        raise SystemExit(
            f"{name}: expected {workers} runs of {len(expected)} values; {len(found)}, {len(wrong)} wrong"
        )


def measure(given: argparse.Namespace, backend: str, empty: Path) -> list[list[str]]:
    """The rows of one backend."""
    seconds: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    counts: dict[tuple[str, int], int] = {}
    with contextlib.ExitStack() as stack:
        site = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        shutil.copy(empty, site / "mlflow.db")
        # One server for all: it takes as long to start as a measurement. Its database grows for
        # everyone alike.
        server = stack.enter_context(served(site / "mlflow.db")) if backend == "HTTP" else None
        for turn, workers in itertools.product(range(given.rounds), given.workers):
            shift = turn % len(given.only)
            for name in given.only[shift:] + given.only[:shift]:
                total = CONTENDERS[name][1 if backend == "SQLite" else 2] // given.divide
                steps = max(total // workers, 1)
                counts[name, workers] = steps * workers
                with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                    Path(folder, "store").mkdir()
                    database = site / "mlflow.db"
                    if server is None:
                        database = Path(folder, "mlflow.db")
                        shutil.copy(empty, database)
                    uri = server or f"sqlite:///{database}"
                    seconds[name, workers].append(
                        run(name, uri, Path(folder), database, workers, steps)
                    )
    rows = []
    for workers in given.workers:
        for name in given.only:
            each = seconds[name, workers]
            cost_us = [1e6 * cost for cost, _ in each]
            shares = [100 * cost / STEP_MS / 1e-3 for cost, _ in each]
            rates = [counts[name, workers] / whole for _, whole in each]
            rows.append(
                [backend, str(workers), f"**{name}**" if name == "dlsearch" else name, f"{counts[name, workers]:,}",
                 machine.spread(cost_us, 0), machine.spread(shares, 1 if min(shares) < 100 else 0),
                 machine.spread(rates, 0), machine.spread([whole for _, whole in each], 1)]
            )  # fmt: skip
    return rows


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=numbers, help="processes; 1,4,16 by default")
    parser.add_argument("--backends", default="SQLite,HTTP")
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="to try the script out")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    given.only, given.backends = given.only.split(","), given.backends.split(",")
    if wrong := [*(set(given.only) - set(CONTENDERS)), *(set(given.backends) - {"SQLite", "HTTP"})]:
        parser.error(f"there is no {', '.join(wrong)}")
    given.workers = given.workers or ([1, 4] if given.small else [1, 4, 16])
    given.divide = 8 if given.small else 1
    given.rounds = 1 if given.small else given.rounds
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    import mlflow  # noqa: F401  # once: the workers are forked
    import pytorch_lightning.loggers  # noqa: F401

    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        empty = Path(folder, "empty.db")
        maker = multiprocessing.get_context("fork").Process(target=make_database, args=(empty,))
        # in a process of its own: what MLflow opens must not be inherited by the workers
        maker.start()
        maker.join()
        for backend in given.backends:
            rows += measure(given, backend, empty)
    headings = ["MLflow", "workers", "contender", "rows of 5 values", "training thread, µs a row"]
    headings += [f"% of a {STEP_MS} ms step", "rows/s into MLflow", "all of it in MLflow after, s"]
    n = f"median (least–most) of {given.rounds}"
    packages = ("dlsearch", "mlflow", "pytorch-lightning", "sqlalchemy")
    machine.publish(f"{machine.table(headings, rows)}\n\n{machine.caption(n, packages)}", given.out)


if __name__ == "__main__":
    main()
