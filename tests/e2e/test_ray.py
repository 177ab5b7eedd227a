"""Workers on a real Ray cluster of several nodes: one joins while the study runs, another is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


@pytest.mark.timeout(400)  # a cluster, and three imports of torch
def test_a_node_joins_and_another_dies(place):
    site = place("ray")
    # a trial stays where it is until both nodes have one, however fast or slow the machine is
    go = site.folder / "go"
    waits = [
        "allow_targets=[tests.e2e.dying]",
        "+callbacks.waits._target_=tests.e2e.dying.Waits",
        f"+callbacks.waits.mark={go}",
    ]
    held = "SELECT DISTINCT worker FROM dlsearch_attempt WHERE state = 'running' AND progress IS NOT NULL"
    with cluster(site.folder / "cluster.txt") as nodes:
        address = nodes.stdout.readline().strip()
        tell(nodes, "add 1")
        words = [
            "-m",
            *TINY,
            *waits,
            "hydra/launcher=ray",
            f"hydra.launcher.ray.init.address='{address}'",
            "study.name=s",
        ]
        with site.running(*words, "study.n_trials=3", "trainer.max_epochs=4") as process:

            def workers(number):
                assert process.poll() is None, site.log.read_text()
                found = site.rows(held)
                return found if len(found) == number else None

            ((first,),) = until(lambda: workers(1), 150)
            tell(nodes, "add 1")
            until(lambda: workers(2), 150)
            tell(nodes, "kill 0")
            go.touch()
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
