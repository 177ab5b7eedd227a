"""Sixteen processes that claim and finish, and are killed at any moment: the total is exact."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.core.machine.processes import ProcessIdentity
from dlsearch.storage.attempts import Holder
from dlsearch.storage.database import Storage
from dlsearch.study.study import DUPLICATE, Study
from tests.study.studies import complete, draft, opened

PROCESSES = 16
TRIALS = 96
KILLS = 24
LEASE_S = 0.2
DEADLINE_S = 120
#: Many parameters are equal here, so that trials are duplicates of those that run.
SMALL_SPACE = ["model.dropout=choice(0.0, 0.25, 0.5)", "model.width=range(1, 40)"]


def claim_and_finish(url: str, name: str) -> None:
    """Work until nothing can be claimed and nothing runs."""
    study = Study(Storage(url), "s", lease_s=LEASE_S)
    me = Holder(name, "host", os.getpid(), 0, "cpu:0", ProcessIdentity.of(os.getpid()))
    while study.searching():
        claim = study.claim(me)
        if claim is None:
            time.sleep(0.01)
            study.reap()
            continue
        study.finish(claim, complete(random.random()))
    study.storage.close()


@pytest.mark.parametrize("space", [None, SMALL_SPACE], ids=["continuous", "with duplicates"])
def test_as_many_trials_are_completed_as_were_asked_for(tmp_path, space):
    study = opened(tmp_path, draft(TRIALS, space=space, study={"max_attempts": 1000}))
    url = study.storage.url
    study.storage.close()
    context = multiprocessing.get_context("fork")
    rng = random.Random(0)

    def start(index: int) -> multiprocessing.Process:
        process = context.Process(target=claim_and_finish, args=(url, f"w{index}"))
        process.start()
        return process

    processes = [start(index) for index in range(PROCESSES)]
    deadline = time.monotonic() + DEADLINE_S
    kills = 0
    while any(process.is_alive() for process in processes):
        assert time.monotonic() < deadline
        time.sleep(rng.uniform(0.0, 0.2))
        victim = rng.randrange(PROCESSES)
        if kills < KILLS and processes[victim].is_alive():
            os.kill(processes[victim].pid, signal.SIGKILL)
            processes[victim].join()
            kills += 1
            processes[victim] = start(PROCESSES + kills)
    for process in processes:
        process.join()

    study = Study(Storage(url), "s")
    study.reap()
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    completed = sa.text(
        "SELECT number FROM dlsearch_attempt WHERE state = 'complete' ORDER BY number"
    )
    with study.storage.begin() as connection:
        trained = list(connection.execute(completed).scalars())
    originals = [trial.number for trial in trials if DUPLICATE not in trial.user_attrs]
    assert trained == originals, "each was trained to its end once, and no duplicate was"
    assert study.claim(Holder("w", "host", 1, 0, "cpu:0")) is None
    study.storage.close()
