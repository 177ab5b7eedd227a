"""Workers as jobs of submitit: its local executor, which runs them, and signals them, as Slurm's does."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.running import TINY, exactly, recalled, until

pytestmark = pytest.mark.storm


@pytest.mark.timeout(400)  # two imports of torch
def test_a_preempted_job_gives_its_trials_back_and_is_queued_again(place):
    site = place("submitit")
    words = [
        "-m",
        *TINY,
        "hydra/launcher=submitit_local",
        "study.name=s",
        "study.n_trials=1",
        "callbacks=none",
    ]
    live = "SELECT pid, progress FROM dlsearch_attempt WHERE state = 'running' AND progress IS NOT NULL"
    with site.running(*words, "trainer.max_epochs=700", "worker.threads=1") as process:
        ((pid, _),) = until(lambda: site.rows(live), 150)
        os.kill(pid, signal.SIGUSR2)
        assert process.wait(120) == 0, site.log.read_text()
    exactly(site, 1)
    ends = site.rows("SELECT pid, state, reason FROM dlsearch_attempt ORDER BY id")
    given_back = [(state, reason) for _, state, reason in ends if state != "complete"]
    assert given_back == [("interrupted", "interrupted")]
    assert len({pid for pid, *_ in ends}) == 2, "the job that was queued again is another process"
    said = "".join(path.read_text() for path in (site.store / ".submitit").rglob("*_log.*"))
    assert "this job is preempted" in said
    assert "Requeued job" in said
    assert "1 trial (1 complete)" in site.log.read_text()
    assert "report: " in site.log.read_text()


@pytest.mark.timeout(400)  # four imports of torch
def test_ctrl_c_recalls_the_jobs(place):
    words = [
        "-m",
        *TINY,
        "hydra/launcher=submitit_local",
        "study.name=s",
        "study.n_trials=1",
        "callbacks=none",
    ]
    recalled(place("recalled"), *words, "trainer.max_epochs=700", "worker.threads=1")
