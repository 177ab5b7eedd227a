"""A study on a Ray cluster of several hosts: one joins while it runs, another dies.

    sudo python benchmarks/ray_hosts.py [--trials 24] [--seconds 5] [--lease 6] [--keep DIR] [--out
    FILE]

The hosts are those of `hosts.py`: network namespaces with addresses, names and stores of their own.
`center` runs PostgreSQL, an `mlflow server`, Ray's head without a core for tasks, and the command
(`hydra/launcher=ray`, `worker.own_paths=true`). `left` is a node of one core from the beginning.
Once it has finished a trial, `right` joins; once both train, all that runs on `left` is killed.
When the study is over, `left` is back for a moment: a `dlsearch worker` finds nothing left to do,
and says of the attempt that died there that it was lost. Then the two databases are asked, as in
`hosts.py`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hosts
import machine
from scale import EXPERIMENT

HEAD = f"{hosts.HOSTS['center']}:6379"


def start_node(network: hosts.Network, host: str, environment: dict[str, str], *words: str) -> None:
    """A node of the cluster on a host."""
    network.start(
        host, f"ray-{host}.txt", str(hosts.BIN / "ray"), "start", "--block", *words, "--disable-usage-stats",
        f"--node-ip-address={hosts.HOSTS[host]}", **environment, DLSEARCH_STORE=str(network.folder / host),
    )  # fmt: skip


def kill(network: hosts.Network, host: str) -> None:
    """All that runs there, at once."""
    listed = subprocess.run(
        ["ip", "netns", "pids", f"{network.prefix}-{host}"],
        capture_output=True,
        text=True,
        check=False,
    )
    for pid in listed.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:  # it went with another
            continue


def run(network: hosts.Network, socket: str, given: argparse.Namespace) -> tuple[list[int], float]:
    """The study; the exit codes of the command and of the worker at the end, and when `left` died."""
    (network.folder / "conf" / "experiment").mkdir(parents=True)
    (network.folder / "conf" / "experiment" / "sleeping.yaml").write_text(EXPERIMENT)
    environment = {
        "PYTHONPATH": str(Path(__file__).resolve().parent), "PYTHONDONTWRITEBYTECODE": "",
        "MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }  # fmt: skip
    place = [
        f"study.storage=postgresql+psycopg://postgres@{hosts.HOSTS['center']}/dlsearch",
        f"tracking.uri=http://{hosts.HOSTS['center']}:5000", f"worker.lease_s={given.lease}",
    ]  # fmt: skip
    start_node(
        network,
        "center",
        environment,
        "--head",
        "--port=6379",
        "--num-cpus=0",
        "--include-dashboard=false",
    )
    start_node(network, "left", environment, f"--address={HEAD}", "--num-cpus=1")
    time.sleep(10)
    command = network.start(
        "center", "command.txt", str(hosts.BIN / "dlsearch"), "--config-dir", "conf", "-m", "experiment=sleeping",
        "hydra/launcher=ray", f"hydra.launcher.ray.init.address='{HEAD}'", "worker.own_paths=true",
        f"study.name={hosts.NAME}", f"study.n_trials={given.trials}", f"task.mean={given.seconds}", "sampler=random",
        "study.default_first=false", "study.finalize=false", f"trainer.max_epochs={hosts.EPOCHS}",
        "trainer.accelerator=cpu", *place, **environment, DLSEARCH_STORE=str(network.folder / "center"),
    )  # fmt: skip
    rows = "SELECT state FROM dlsearch_attempt WHERE host = '{}' ORDER BY id"
    done = "SELECT 1 FROM dlsearch_attempt WHERE host = 'left' AND state = 'complete'"
    hosts.until(lambda: hosts.query(socket, "dlsearch", done), "no trial on left")
    start_node(network, "right", environment, f"--address={HEAD}", "--num-cpus=1")

    def both() -> bool:
        states = [
            [row.state for row in hosts.query(socket, "dlsearch", rows.format(host))]
            for host in ("left", "right")
        ]
        return all(each[-1:] == ["running"] for each in states)

    hosts.until(both, "no trial on right")
    died = hosts.now(socket)
    kill(network, "left")
    codes = [hosts.ended(command)]
    back = network.start(
        "left", "back.txt", str(hosts.BIN / "dlsearch"), "worker", f"study={hosts.NAME}", *place, **environment,
        DLSEARCH_STORE=str(network.folder / "left"),
    )  # fmt: skip
    return [*codes, hosts.ended(back)], died


def check(socket: str, n_trials: int, died: float) -> Iterator[hosts.Check]:
    """What the study's database says."""
    states = dict(
        hosts.query(socket, "dlsearch", "SELECT state::text, count(*) FROM trials GROUP BY 1")
    )
    yield (
        "trials, of those asked for",
        f"{states.get('COMPLETE', 0)} of {n_trials}",
        states == {"COMPLETE": n_trials},
    )
    attempts = hosts.query(socket, "dlsearch", "SELECT * FROM dlsearch_attempt ORDER BY id")
    ends = [sum(a.state == "complete" for a in attempts if a.number == n) for n in range(n_trials)]
    yield (
        "trials with more or less than one result",
        str(sum(n != 1 for n in ends)),
        all(n == 1 for n in ends),
    )
    lost = [a for a in attempts if a.state == "lost"]
    yield (
        "attempts that were lost, all of the node that died",
        str(len(lost)),
        bool(lost) and all(a.host == "left" for a in lost),
    )
    later = {a.host for a in attempts if a.started > died}
    yield "hosts that claimed trials after that", ", ".join(sorted(later)), later == {"right"}
    running = [a for a in attempts if a.state == "running"]
    yield "attempts RUNNING at the end", str(len(running)), not running
    again = min(
        (a.started for a in attempts if a.number in {b.number for b in lost} and a.attempt > 1),
        default=0.0,
    )
    yield "from the node's death to the next attempt, s", f"{again - died:.1f}", again > died


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="that a trial sleeps, on average"
    )
    parser.add_argument("--lease", type=float, default=6.0, help="worker.lease_s")
    parser.add_argument("--keep", type=Path, help="a new folder for stores and logs, which stays")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    reason = hosts.refusal()
    if reason is None and not (hosts.BIN / "ray").exists():
        reason = "needs Ray (pip install 'dlsearch[ray]')"
    if reason is not None:
        sys.stderr.write(f"ray_hosts: {reason}\n")
        raise SystemExit(2)
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = (given.keep or Path(place)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        network = hosts.Network(f"dls{os.getpid()}", folder)
        started = time.monotonic()
        try:
            network.build()
            socket = hosts.start_database(network, Path(place))
            hosts.make_databases(socket)
            hosts.start_tracking(network, socket)
            codes, died = run(network, socket, given)
            checks = [
                (
                    "exit codes of the command, and of a worker that comes late",
                    str(codes),
                    codes == [0, 0],
                )
            ]
            checks += [*check(socket, given.trials, died), *hosts.check_tracking(socket)]
        finally:
            for host in hosts.HOSTS:
                if host != "center":
                    kill(network, host)
            network.remove()
    took = time.monotonic() - started
    rows = [(what, seen, "yes" if fine else "**no**") for what, seen, fine in checks]
    text = f"{machine.table(['what', 'seen', 'as it should be'], rows)}\n\n{took:.0f} s in all."
    n = f"{given.trials} trials of {given.seconds:g} s on average, nodes of one core, lease {given.lease:g} s, once"
    machine.publish(
        f"{text}\n\n{machine.caption(n, ('dlsearch', 'ray', 'optuna', 'mlflow', 'psycopg'))}",
        given.out,
    )
    raise SystemExit(0 if all(fine for _, _, fine in checks) else 1)


if __name__ == "__main__":
    main()
