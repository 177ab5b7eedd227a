"""How many trials a machine and a card hold; and that a worker opens a card's slots accordingly."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

import pytest
from optuna.trial import TrialState

from dlsearch.core.files.descriptor import Descriptor
from dlsearch.execution.processes.forkserver import Channel, Child
from dlsearch.execution.resources.capacity import (
    Cards,
    Machine,
    choose_workers,
    tightest_quota,
    trials_that_fit,
)
from dlsearch.execution.resources.slots import Slot
from dlsearch.study.models import Result
from tests.execution.workers import worker_of_study
from tests.study.studies import complete, draft, failed, opened

GPU = "GPU-a"


# -- workers=auto ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("machine", "threads", "per_gpu", "expected"),
    [
        (Machine(2), None, None, (2, "2 workers: 2 cores, one thread each")),
        (Machine(1), None, None, (1, "1 worker: 1 core, one thread each")),
        (Machine(8), 2, None, (4, "4 workers: 8 cores, 2 threads each")),
        (Machine(2), 4, None, (1, "1 worker: 2 cores, 4 threads each")),
        (Machine(8, quota=1.5), None, None, (1, "1 worker: a quota of 1.5 of 8 cores, one thread each")),
        (Machine(2, quota=4.0), None, None, (2, "2 workers: 2 cores, one thread each")),
        (
            Machine(16, memory_mib=1024 + 4 * 512),
            None,
            None,
            (4, "4 workers: memory for 4 (3.0 GiB available), 16 cores, 4 threads each"),
        ),
        # one always may try
        (Machine(1, memory_mib=9), None, None, (1, "1 worker: 1 core, one thread each")),
        (Machine(2, memory_mib=64_000), None, None, (2, "2 workers: 2 cores, one thread each")),
        (Machine(16, gpus=2), None, None, (2, "2 workers: 2 GPUs, one trial each")),
        (Machine(16, gpus=1), None, 4, (4, "4 workers: 1 GPU, 4 trials each")),
        (Machine(16, gpus=1), None, "auto", (8, "up to 8 workers: 1 GPU, one trial each until its memory is known")),
    ],
)  # fmt: skip
def test_the_number_of_workers_and_why(
    machine: Machine, threads: int | None, per_gpu: Any, expected: tuple[int, str]
) -> None:
    assert choose_workers(machine, threads=threads, per_gpu=per_gpu) == expected


def test_the_tightest_quota() -> None:
    assert tightest_quota(["max 100000", "150000 100000", "400000 100000"]) == 1.5
    assert tightest_quota(["max 100000"]) is None
    assert tightest_quota([]) is None


# -- slots_per_gpu=auto ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("total", "free", "peaks", "expected"),
    [
        (80_000, 80_000, [], 1),  # nothing is known
        (80_000, 80_000, [40_000], 1),  # more than half, with its context
        (80_000, 80_000, [39_500], 1),  # half: two would leave no margin
        (80_000, 80_000, [35_500], 2),  # 2 * 36,000 = 72,000, which leaves a tenth
        (80_000, 80_000, [35_501], 1),
        (80_000, 80_000, [17_500], 4),
        (80_000, 80_000, [500, 17_500, 20], 4),  # the heaviest decides
        (80_000, 80_000, [100], 8),  # the cap
        (80_000, 40_000, [7_500], 4),  # somebody else has the rest: (40,000 - 8,000) / 8,000
        (80_000, 1_000, [100], 1),  # one always may try
        (8_000, 8_000, [100_000], 1),
    ],
)
def test_trials_that_fit(total: int, free: int, peaks: list[float], expected: int) -> None:
    assert trials_that_fit(total, free, peaks) == expected


@pytest.mark.parametrize("free", [12_000, 24_000, 81_559])
def test_as_many_trials_as_the_heaviest_never_exceed_the_card(free: int) -> None:
    for peak in range(50, 60_000, 371):
        n = trials_that_fit(81_559, free, [peak])
        assert n == 1 or n * (peak + 500) <= free - 0.1 * 81_559
        assert n <= trials_that_fit(81_559, free, [peak / 2])


def test_a_card_opens_after_a_measurement_and_closes_by_half_after_an_end_for_want_of_memory() -> (
    None
):
    cards = Cards({GPU: (80_000, 80_000)})
    assert cards.limit(GPU) == 1
    cards.measured(GPU, None)
    assert cards.limit(GPU) == 1
    assert not cards.ended(GPU, Result.from_json(complete() | {"peak_memory_mib": 1000.0}), 1)
    assert cards.limit(GPU) == 8
    assert cards.ended(GPU, Result.from_json(failed("oom")), 7)
    assert cards.limit(GPU) == 3
    assert cards.ended(GPU, Result.from_json(failed("oom")), 3)
    assert cards.limit(GPU) == 1
    assert not cards.ended(GPU, Result.from_json(failed("oom")), 1)  # alone: its own fault


def test_a_card_of_unknown_memory_takes_one_trial() -> None:
    cards = Cards({GPU: (80_000, 80_000)})
    cards.measured("MIG-1", 10.0)
    assert cards.limit("MIG-1") == 1
    assert cards.ended("MIG-1", Result.from_json(failed("oom")), 2)
    assert cards.limit("MIG-1") == 1


class _Trials:
    """Stands where the fork server stands; what its trials say is said by the test."""

    alive = True

    def __init__(self) -> None:
        self.live: list[tuple[socket.socket, Descriptor]] = []

    def spawn(
        self, target: str, payload: dict[str, Any], *, env: dict[str, str], log: Any
    ) -> Child:
        ours, theirs = socket.socketpair()
        read, write = Descriptor.pipe()
        self.live.append((theirs, write))
        return Child(1 << 30, Channel(ours), read)

    def end(self, result: dict[str, Any]) -> None:
        """The oldest trial ends with `result`."""
        theirs, status = self.live.pop(0)
        theirs.sendall(json.dumps({"type": "done", "result": result}).encode() + b"\n")
        theirs.close()
        os.write(status.fileno(), b"0")
        status.close()


def test_a_worker_fills_a_card_as_far_as_its_memory_is_known(tmp_path: Any) -> None:
    study, trials = opened(tmp_path, draft(n_trials=6, study={"finalize": False})), _Trials()
    slots = [Slot(i, GPU, 1) for i in range(8)]
    cards = Cards({GPU: (16_000, 16_000)})
    worker = worker_of_study(study, tmp_path, slots, trials, cards=cards)

    def step() -> int:
        """Rounds of the worker's loop, until it claims nothing more; how many trials run after them."""
        for _ in range(2 * len(worker.slots)):
            worker.supervisor.wait(0.0)
            worker._filler.fill_free_slots()
            while worker._filler.claimer.busy:
                time.sleep(0.001)
        return len(trials.live)

    assert worker._filler.fill_free_slots()
    assert step() == 1
    trials.end(complete(0.1) | {"peak_memory_mib": 4000.0})
    assert step() == 3  # 3 * 4,500 of 16,000 - 1,600
    trials.end(failed("oom"))  # beside two others
    assert step() == 2  # nothing new: the limit is one
    states = [trial.state for trial in study.trials()]
    assert states.count(TrialState.FAIL) == 0
    assert states.count(TrialState.WAITING) == 1
    error = next(each.error for each in study.leases.rows() if each.error)
    assert error == f"out of memory beside 2 on {GPU}"
    for _ in range(2):
        trials.end(complete(0.2) | {"peak_memory_mib": 4000.0})
    assert step() == 1
    trials.end(failed("oom"))  # alone: its own fault
    assert step() == 1
    while trials.live:
        trials.end(complete(0.3))
        assert step() <= 1
    done = [trial.state for trial in study.trials()]
    assert (done.count(TrialState.COMPLETE), done.count(TrialState.FAIL), len(done)) == (5, 1, 6)
    worker.end_threads()
    worker._selector.close()
    study.storage.close()
