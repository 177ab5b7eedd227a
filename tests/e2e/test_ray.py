"""Workers on a real Ray cluster of several nodes: one joins while the study runs, another is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.e2e.running import FAST, ROOT, TINY, exactly, recalled, until

pytest.importorskip("ray")

pytestmark = pytest.mark.storm


@contextmanager
def cluster(log) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        **FAST,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'dlsearch/_hydra'}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.ray_nodes"], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        process.stdout.close()


def tell(process, line) -> None:
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == line


def trial_of(worker: int) -> psutil.Process:
    """The process of a worker's trial: a child of its fork server."""
    (server,) = psutil.Process(worker).children()
    return until(lambda: next(iter(server.children()), None))


@pytest.mark.timeout(400)  # a cluster, and three imports of torch
def test_a_node_joins_and_another_dies(place):
    site = place("ray")
    held = "SELECT worker, pid FROM dlsearch_attempt WHERE kind = 'trial' AND progress IS NOT NULL GROUP BY worker"
    workers = "SELECT DISTINCT worker FROM dlsearch_attempt"
    with cluster(site.folder / "cluster.txt") as nodes:
        address = nodes.stdout.readline().strip()
        tell(nodes, "add 1")
        words = [
            "-m",
            *TINY,
            "hydra/launcher=ray",
            f"hydra.launcher.ray.init.address='{address}'",
            "study.name=s",
        ]
        with site.running(*words, "study.n_trials=3", "trainer.max_epochs=100") as process:
            ((first, pid),) = until(lambda: site.rows(held), 150)
            trial_of(pid).suspend()  # it shall not end before the other node is there
            tell(nodes, "add 1")
            # the other node's may end before its first renewal says how far it is
            until(lambda: len(site.rows(workers)) == 2, 150)
            tell(nodes, "kill 0")
            assert process.wait(150) == 0, site.log.read_text()
    exactly(site, 3)
    ends = site.rows("SELECT worker, state FROM dlsearch_attempt ORDER BY id")
    assert [worker for worker, state in ends if state == "lost"] == [first]
    assert len({worker for worker, _ in ends}) == 2
    assert "3 trials (3 complete)" in site.log.read_text()


@pytest.mark.timeout(400)  # a cluster, and four imports of torch
def test_ctrl_c_recalls_the_workers(place):
    site = place("recalled")
    with cluster(site.folder / "cluster.txt") as nodes:
        address = nodes.stdout.readline().strip()
        tell(nodes, "add 1")
        words = [
            "-m",
            *TINY,
            "hydra/launcher=ray",
            f"hydra.launcher.ray.init.address='{address}'",
            "study.name=s",
        ]
        recalled(site, *words, "study.n_trials=1", "trainer.max_epochs=700", "callbacks=none")
