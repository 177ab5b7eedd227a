"""Exactly-once accounting: n_trials is the study's total, with any number of workers, whoever is killed."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.running import TINY, exactly, new_child, until

TOTAL = 37


@pytest.mark.parametrize(
    ("workers", "total"),
    [
        (1, 7),
        pytest.param(2, 17, marks=pytest.mark.storm),
        pytest.param(4, TOTAL, marks=pytest.mark.storm),
    ],
)
def test_the_total_is_exact(place, workers, total):
    site = place("total")
    said = site.run(
        "-m", *TINY, f"study.n_trials={total}", f"hydra.launcher.workers={workers}", "study.name=s"
    )
    exactly(site, total)
    assert all(states == ["complete"] for states in site.attempts().values())
    slots = {slot for (slot,) in site.rows("SELECT slot FROM dlsearch_attempt")}
    assert slots == set(range(workers))
    assert f"study s: {total} trials ({total} complete)" in said


@pytest.mark.parametrize("workers", [2])
@pytest.mark.storm
def test_killed_processes_cost_one_attempt_and_no_result(place, warm, workers):
    site = place("killed")
    command = [
        "-m",
        *TINY,
        f"study.n_trials={TOTAL}",
        f"hydra.launcher.workers={workers}",
        "study.name=s",
    ]
    with site.running(*command) as process:
        until(lambda: len(site.finished()) >= 5)
        new_child(warm._process.pid).kill()
        (number,) = until(
            lambda: site.rows("SELECT number, error FROM dlsearch_attempt WHERE state='lost'"),
            timeout=90,
        )[0][:1]

        until(lambda: len(site.finished()) >= 15)
        new_child(warm._process.pid)
        before = site.finished()
        ((worker,),) = site.rows("SELECT DISTINCT pid FROM dlsearch_attempt WHERE state='running'")
        os.kill(worker, signal.SIGKILL)
        assert process.wait(60) == 0, site.log.read_text()
    exactly(site, TOTAL)
    assert before.items() <= site.finished().items()
    attempts = site.attempts()
    hit = {number: states for number, states in attempts.items() if states != ["complete"]}
    assert number in hit
    assert all(states == ["lost", "complete"] for states in hit.values()), hit
    assert 2 <= len(hit) <= 1 + workers
    rows = site.json("trials", "s")
    assert {row["number"] for row in rows if row["attempt"] == 2} == set(hit)
    assert {row["attempt"] for row in rows} == {1, 2}
    assert [row["state"] for row in rows] == ["complete"] * TOTAL
    ((error,),) = site.rows(
        "SELECT error FROM dlsearch_attempt WHERE number=? AND attempt=1", number
    )
    assert error == "killed by SIGKILL"
