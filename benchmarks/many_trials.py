"""What a study of many trials costs: its last proposals, its workers' memory, and to look at it.

    python benchmarks/many_trials.py [--trials 10000] [--served 3000] [--repeats 3] [--keep DIR]
    [--out FILE]

Nothing is trained. Trials are claimed and told one by one, as a worker does it, with results as a
training of five epochs gives them; one in three is pruned after its second epoch. `dlsearch
status`, `trials` and `report` then run as processes of their own: seconds from start to exit, and
seconds of CPU. What a claim with TPE and telling the result cost with so many trials there is
measured on a second study, whose trials were put into the tables in bulk. A worker then serves a
third study, with a process for every trial (`benchmarks/cheap.py`): what it holds in memory after
the first thousand trials, and after the last.
"""

from __future__ import annotations

import argparse
import contextlib
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
import psutil
import sqlalchemy
import storage

from dlsearch.execution.clients.database import DatabaseClient
from dlsearch.execution.clients.database_files import DatabaseFiles
from dlsearch.execution.processes.forkserver import Child, ForkServer
from dlsearch.execution.processes.warm_server import WarmServer
from dlsearch.execution.resources.slots import Slot
from dlsearch.execution.worker import Worker, WorkerSettings
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.storage.attempts import Holder
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study

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


def proposals(folder: Path, trials: int, count: int) -> tuple[list[float], list[float]]:
    """Seconds of claiming with TPE and telling the result, and of reporting five epochs, with `trials` trials there."""
    url = f"sqlite:///{folder / 'tpe.db'}"
    storage.Dlsearch.make(url, "tpe", trials)
    study, rng = Study(Storage(url), "s"), random.Random(0)
    found: tuple[list[float], list[float]] = [], []
    study.reap()
    for number in range(count + 1):
        started = time.perf_counter()
        claim = study.claim(Holder("w", "bench", os.getpid(), 0, "cpu:0"))
        claimed = time.perf_counter()
        assert claim is not None
        told = result(rng.random(), EPOCHS, "complete")
        for epoch, value in told["history"]:
            study.report(claim, epoch, value)
        reported = time.perf_counter()
        if not study.finish(claim, told):
            raise SystemExit("a result was refused")
        if number:  # the first reads the trials
            found[0].append(claimed - started + time.perf_counter() - reported)
            found[1].append(reported - claimed)
    study.storage.close()
    return found


class CheapTrials(ForkServer):
    """Forks `cheap.run_trial`, whatever is asked for."""

    def spawn(
        self, target: str, payload: dict[str, Any], *, env: dict[str, str], log: Path | None
    ) -> Child:
        return super().spawn("cheap:run_trial", payload, env=env, log=log)


def served(folder: Path, trials: int) -> list[tuple[int, float]]:
    """What a worker holds in memory after so many trials: (finished, MiB)."""
    url = f"sqlite:///{folder / 'served.db'}"
    draft = storage.draft("random")
    draft.config["study"].update(n_trials=trials, finalize=False)
    document = document_of(draft, {}, {"provenance": {}, "sha": {"env": "", "code": ""}})
    opened = Storage(url)
    open_study(opened, draft, document, lease_s=30.0)
    opened.close()
    server = CheapTrials.start(["cheap"], env={"PYTHONPATH": str(Path(__file__).resolve().parent)})
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            study, slots = Study(Storage(url), NAME), [Slot(0, "cpu:0", 1), Slot(1, "cpu:1", 1)]
            client = DatabaseClient(study)
            worker = Worker(
                client,
                DatabaseFiles(client, folder / "store", {}),
                slots,
                WarmServer(lambda: server, server),
                settings=WorkerSettings(patience_s=study.storage.patience_s),
            )
            code = 0 if worker.run() else 1
        finally:
            os._exit(code)
    process, found, engine = psutil.Process(pid), [], sqlalchemy.create_engine(url)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        with engine.connect() as connection:
            query = sqlalchemy.text(
                "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
            )
            done = int(connection.execute(query).scalar_one())
        with contextlib.suppress(psutil.Error):
            found.append((done, process.memory_info().rss / 2**20))
        time.sleep(0.5)
    engine.dispose()
    server.stop()
    if not found or found[-1][0] < trials - 20:
        raise SystemExit(f"the worker ended after {found[-1:]} of {trials} trials")
    return found


def held(found: list[tuple[int, float]], since: float, until: float) -> float:
    """Median MiB between two numbers of finished trials."""
    return statistics.median(
        [mib for done, mib in found if since <= done <= until] or [found[-1][1]]
    )


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
    parser.add_argument(
        "--sampler", choices=list(storage.SAMPLERS), default="random", help="of the proposals"
    )
    parser.add_argument(
        "--claims", type=int, default=200, help="with TPE, when all trials are there"
    )
    parser.add_argument(
        "--served",
        type=int,
        default=3000,
        help="trials of the worker whose memory is watched; 0: none",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--keep", type=Path, help="folder for the store, which is filled if it is new, and stays"
    )
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = (given.keep or Path(place)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        costs = (
            [] if (folder / "dlsearch.db").is_file() else fill(folder, given.trials, given.sampler)
        )
        rows = []
        for words in (["status", NAME], ["trials", NAME], ["report", NAME]):
            times = [command(words, folder) for _ in range(given.repeats)]
            wall, cpu = ([each[at] for each in times] for at in (0, 1))
            rows.append([f"`dlsearch {words[0]}`", machine.spread(wall, 1), machine.spread(cpu, 1)])
        report = folder / "studies" / NAME / "report"
        size = sum(path.stat().st_size for path in report.rglob("*") if path.is_file()) / 1e6
        asked, reported = proposals(Path(place), given.trials, given.claims)
        memory = served(Path(place), given.served) if given.served else []
    text = machine.table(["command", "s", "CPU, s"], rows)
    more = [["report, MB", f"{size:.1f}"]]
    more.append(["claim with TPE and tell, ms p50 / p95", storage.milliseconds(asked)])
    more.append(["five reports, ms p50 / p95", storage.milliseconds(reported)])
    if memory:
        first, last = (
            held(memory, 0.05 * given.served, 1000),
            held(memory, given.served - 1000, given.served),
        )
        label = (
            f"memory of a worker, MiB: trials up to 1,000, and the last 1,000 of {given.served:,}"
        )
        more.append([label, f"{first:.0f}, {last:.0f}"])
    text += f"\n\n{machine.table(['what else', 'found'], more)}"
    if costs:
        last_costs = [1e3 * cost for cost in costs[-100:]]
        text += f"\n\nClaim, five reports and tell of the last {len(last_costs)} trials of the first study took"
        text += f" {statistics.median(last_costs):.1f} ms of CPU (median), sampler {given.sampler}."
    n = f"{given.trials:,} trials, sampler {given.sampler}, median (least–most) of {given.repeats}"
    machine.publish(
        f"{text}\n\n{machine.caption(n, ('dlsearch', 'optuna', 'sqlalchemy'))}", given.out
    )


if __name__ == "__main__":
    main()
