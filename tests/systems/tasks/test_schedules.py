"""Curves, against formulas and against torch's own schedulers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from dlsearch.systems.shared.schedules import Constant, Cosine, OneCycle, Plateau, Schedule, Step

TOTAL, PER_EPOCH = 40, 10


def optimizer(lr: float = 1.0) -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(schedule: Schedule, steps: int = TOTAL, lr: float = 1.0) -> list[float]:
    """What each step is taken with."""
    optim = optimizer(lr)
    schedulers = [each["scheduler"] for each in schedule.configure(optim, TOTAL, PER_EPOCH)]
    found = []
    for _ in range(steps):
        found.append(optim.param_groups[0]["lr"])
        optim.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


def test_constant_costs_nothing() -> None:
    assert Constant().configure(optimizer(), TOTAL, PER_EPOCH) == []
    assert rates(Constant(), lr=0.3) == [0.3] * TOTAL


def test_step() -> None:
    assert rates(Step(every=2, gamma=0.1), lr=2.0) == pytest.approx([2.0] * 20 + [0.2] * 20)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine(final: float) -> None:
    expected = [final + (1 - final) * (1 + math.cos(math.pi * t / TOTAL)) / 2 for t in range(TOTAL)]
    assert rates(Cosine(final=final)) == pytest.approx(expected)


@pytest.mark.parametrize("rise", [0.25, 0.3])
def test_one_cycle_is_torchs(rise: float) -> None:
    optim = optimizer()
    theirs = OneCycleLR(optim, max_lr=0.5, total_steps=TOTAL, pct_start=rise, cycle_momentum=False)
    expected = []
    for _ in range(TOTAL):
        expected.append(optim.param_groups[0]["lr"])
        optim.step()
        if len(expected) < TOTAL:
            theirs.step()
    assert rates(OneCycle(rise=rise), lr=0.5) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("warmup", [0.2, 8])
@pytest.mark.parametrize("schedule", [Constant, Step, Cosine, OneCycle])
def test_warmup_is_linear_and_ends_where_the_schedule_begins(schedule: Any, warmup: float) -> None:
    found = rates(schedule(warmup=warmup))
    first = schedule().factor(0, TOTAL - 8, PER_EPOCH)
    assert found[:8] == pytest.approx([first * (step + 1) / 8 for step in range(8)])
    assert found[8] == pytest.approx(first)
    assert found[8:] == pytest.approx(
        [schedule().factor(step, TOTAL - 8, PER_EPOCH) for step in range(TOTAL - 8)]
    )


def test_plateau_waits_and_falls() -> None:
    optim = optimizer()
    (config,) = Plateau(patience=1, gamma=0.5).configure(optim, TOTAL, PER_EPOCH)
    assert {key: config[key] for key in ("monitor", "interval", "reduce_on_plateau")} == {
        "monitor": "val/loss",
        "interval": "epoch",
        "reduce_on_plateau": True,
    }
    found = []
    for loss in (1.0, 0.9, 0.95, 0.95, 0.95, 0.95):
        config["scheduler"].step(loss)
        found.append(optim.param_groups[0]["lr"])
    assert found == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]


def test_plateau_after_a_warmup_keeps_what_it_has_lowered() -> None:
    optim = optimizer()
    warmup, watch = (
        c["scheduler"]
        for c in Plateau(patience=0, gamma=0.5, warmup=4).configure(optim, TOTAL, PER_EPOCH)
    )
    found = []
    for step in range(8):
        found.append(optim.param_groups[0]["lr"])
        optim.step()
        warmup.step()
        if step in (4, 5):
            watch.step(1.0)  # the second time without improvement
    assert found == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.5]


def test_states_are_plain() -> None:
    """A checkpoint holds them, and is loaded with ``weights_only``."""
    for schedule in (Step(), Cosine(warmup=2), OneCycle(), Plateau(warmup=3)):
        for config in schedule.configure(optimizer(), TOTAL, PER_EPOCH):
            state = config["scheduler"].state_dict()
            assert not [key for key, value in state.items() if callable(value)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(warmup=-1), "^warmup: expected a fraction"),
        (lambda: Cosine(final=2), "^final: expected 0 to 1"),
        (lambda: Step(every=0), "^every: expected 1 epoch or more"),
        (lambda: OneCycle(rise=1.0), "^rise: expected a fraction between"),
        (lambda: Plateau(mode="best"), "^mode: expected min or max"),
        (lambda: Plateau(gamma=1.0), "^gamma: expected a number between"),
    ],
)
def test_impossible_ones_are_refused_by_their_argument(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_a_plateau_lowers_during_the_warmup_stays_lowered() -> None:
    optim = optimizer()
    configured = Plateau(patience=0, gamma=0.5, warmup=8).configure(optim, TOTAL, PER_EPOCH)
    warmup, watch = (config["scheduler"] for config in configured)
    found = []
    for step in range(10):
        found.append(optim.param_groups[0]["lr"])
        optim.step()
        warmup.step()
        if step in (2, 3):
            watch.step(1.0)  # the second time without improvement
    assert found == [0.125, 0.25, 0.375, 0.5, 0.3125, 0.375, 0.4375, 0.5, 0.5, 0.5]
