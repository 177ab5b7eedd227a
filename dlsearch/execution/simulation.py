"""A simulated service to a study.

Synthetic learning curves on a virtual clock, and no process at all.

It drives a client as workers do, many slots at once: claims, reports, pruning verdicts, deaths,
confirmation and the scoring of the winner. Ten thousand trials take less than a minute, so that
samplers, pruners and the confirmation can be tried at the size of a real study.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from dlsearch.study.client import ClaimRequest
from dlsearch.study.models import ConfirmClaim, Result
from dlsearch.study.states import AttemptKind, AttemptState

if TYPE_CHECKING:
    from dlsearch.execution.clients.in_memory import VirtualClock
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import StudyClient
    from dlsearch.study.models import Claim

#: What a claim scores after each of its epochs.
Curve: TypeAlias = Callable[["Claim", int], list[float]]

_BEST_LOG_RATE = -2.5  # log10 of the learning rate at which the synthetic curves end highest
_NOISE = 0.01


def synthetic_curve(claim: Claim, epochs: int) -> list[float]:
    """Accuracies that rise to a level which the learning rate decides, with noise from the seed.

    Args:
        claim: What is trained; of its parameters those with a number count.
        epochs: How long.
    """
    noise = random.Random(claim.seed)
    level = 0.95 - _penalty(claim.params)
    speed = noise.uniform(0.5, 1.0)
    return [
        level * (1.0 - math.exp(-speed * (epoch + 1))) + noise.gauss(0.0, _NOISE)
        for epoch in range(epochs)
    ]


def _penalty(params: Mapping[str, Any]) -> float:
    """How much worse than the best parameters these are."""
    numbers = [
        float(value)
        for value in params.values()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    rates = [value for value in numbers if 0.0 < value < 1.0]
    return sum(0.05 * abs(math.log10(value) - _BEST_LOG_RATE) for value in rates)


@dataclass
class _Running:
    """A claim in a slot.

    Args:
        claim: What is done.
        slot: Where.
        values: What it scores after each epoch.
        epochs: Epochs that have ended.
        dies_after: The epoch after which its process dies; None where it lives.
    """

    claim: Claim
    slot: int
    values: list[float]
    epochs: int = 0
    dies_after: int | None = None


@dataclass
class Tally:
    """What a simulation came to.

    Args:
        claims: Claims of each kind.
        ends: How attempts ended.
        epochs: Epochs that were trained.
        virtual_s: Seconds on the virtual clock.
    """

    claims: Counter[AttemptKind] = field(default_factory=Counter)
    ends: Counter[AttemptState] = field(default_factory=Counter)
    epochs: int = 0
    virtual_s: float = 0.0


class Simulator:
    """Serves a study to its end on a virtual clock.

    Args:
        client: The study.
        clock: The client's.
        holders: One for each slot.
        epoch_s: How long an epoch takes on average, virtual seconds; less than a lease.
        death_rate: The chance that an attempt's process dies.
        curve: What claims score.
        seed: Of durations and deaths.
    """

    def __init__(
        self,
        client: StudyClient,
        clock: VirtualClock,
        holders: list[Holder],
        *,
        epoch_s: float = 1.0,
        death_rate: float = 0.0,
        curve: Curve = synthetic_curve,
        seed: int = 0,
    ) -> None:
        """Nothing is claimed yet."""
        self._client = client
        self._clock = clock
        self._holders = holders
        self._epoch_s = epoch_s
        self._death_rate = death_rate
        self._curve = curve
        self._random = random.Random(seed)
        self._max_epochs = client.facts().max_epochs
        self._free = list(range(len(holders)))
        self._events: list[tuple[float, int, _Running]] = []  # when an epoch ends
        self._scheduled = 0
        self.tally = Tally()

    def run(self) -> Tally:
        """Claim, train and confirm until nothing is left to do."""
        began = self._clock()
        self._fill_free_slots()
        while self._events:
            self._clock.now, _, running = heapq.heappop(self._events)
            self._end_epoch(running)
            if running.slot in self._free:
                self._fill_free_slots()
        self.tally.virtual_s = self._clock() - began
        return self.tally

    def _fill_free_slots(self) -> None:
        while self._free:
            slot = self._free[0]
            claim = self._client.claim(ClaimRequest(self._holders[slot], confirm=True))
            if claim is None:
                return
            self._free.pop(0)
            self._start(claim, slot)

    def _start(self, claim: Claim, slot: int) -> None:
        self.tally.claims[claim.kind] += 1
        epochs = getattr(claim, "epochs", None) or self._max_epochs
        if claim.kind == AttemptKind.TEST:
            epochs = 1
        running = _Running(claim, slot, self._curve(claim, epochs))
        if self._random.random() < self._death_rate:
            running.dies_after = self._random.randrange(epochs) + 1
        self._schedule(running)

    def _schedule(self, running: _Running) -> None:
        duration = self._epoch_s * self._random.uniform(0.5, 1.5)
        self._scheduled += 1
        heapq.heappush(self._events, (self._clock() + duration, self._scheduled, running))

    def _end_epoch(self, running: _Running) -> None:
        claim = running.claim
        running.epochs += 1
        self.tally.epochs += 1
        if running.epochs == running.dies_after:
            self._client.lose(claim, "its simulated process died")
            self._free_slot(running, AttemptState.LOST)
            return
        self._client.renew({claim.token: {"epoch": running.epochs}})
        epoch = running.epochs - 1
        is_pruned = self._client.report(claim, epoch, running.values[epoch])
        if is_pruned or running.epochs == len(running.values):
            self._finish(running, is_pruned=is_pruned)
        else:
            self._schedule(running)

    def _finish(self, running: _Running, *, is_pruned: bool) -> None:
        claim = running.claim
        ledger_row: int | None = None
        if isinstance(claim, ConfirmClaim) and claim.kind == AttemptKind.TEST:
            ledger_row = self._client.open_test_ledger(claim)
            result = _scores(running.values[-1])
        elif is_pruned:
            result = Result(AttemptState.PRUNED, epochs=running.epochs)
        else:
            result = _result(running.values)
        accepted = self._client.finish(claim, result, ledger_row)
        assert accepted, "nobody else holds it, and its lease was renewed"
        self._free_slot(running, result.state)

    def _free_slot(self, running: _Running, state: AttemptState) -> None:
        self.tally.ends[state] += 1
        heapq.heappush(self._free, running.slot)


def _result(values: list[float]) -> Result:
    """The result of a whole training."""
    best = max(values)
    return Result(
        AttemptState.COMPLETE,
        values=[best],
        best_epoch=values.index(best),
        epochs=len(values),
        history=[[float(epoch), value] for epoch, value in enumerate(values)],
    )


def _scores(value: float) -> Result:
    """The result of a scoring."""
    metrics = {"test/accuracy": value}
    return Result(AttemptState.COMPLETE, test={"metrics": metrics, "n": 1, "each": [metrics]})
