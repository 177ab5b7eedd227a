"""What a worker needs of a study, and all that it knows of it: a seam of a few typed calls.

Implementations: :class:`dlsearch.execution.clients.database.DatabaseClient` over the storage,
:class:`dlsearch.execution.clients.in_memory.InMemoryClient` for tests and simulations, and
:class:`dlsearch.execution.clients.loopback.LoopbackClient`, which sends every argument and every
result of another client through JSON. All inherit the tests of ``tests/study/contract.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

# dlsearch.study.wire reads the annotations.
from dlsearch.core.machine.processes import ProcessIdentity  # noqa: TC001
from dlsearch.core.types import JsonObject
from dlsearch.storage.attempts import Holder  # noqa: TC001
from dlsearch.study.states import AttemptKind, AttemptState, FailureReason, RecordedTrialState

if TYPE_CHECKING:
    from dlsearch.storage.studies import Budget
    from dlsearch.study.models import Claim, ConfirmClaim, Result

#: How far an attempt is, for those who watch: plain JSON.
Progress: TypeAlias = JsonObject


@dataclass(frozen=True)
class StudyFacts:
    """What of a study does not change while it is served.

    Args:
        name: Its name.
        objectives: The metrics that decide.
        directions: ``maximize`` or ``minimize``, for each.
        max_epochs: Length of a whole training.
        lease_s: How long an attempt may be silent, seconds.
        max_attempts: How often a trial is tried after deaths.
        max_halvings: How often it is tried after running out of memory.
    """

    name: str
    objectives: list[str]
    directions: list[str]
    max_epochs: int
    lease_s: float
    max_attempts: int
    max_halvings: int


@dataclass(frozen=True)
class ClaimRequest:
    """What a slot asks for.

    Args:
        holder: Who would hold what is claimed.
        confirm: Whether a part of the confirmation will do, where there is no trial.
        deadline: Of the claimant's own, where the study's is later (seconds since the epoch).
        target: Of the claimant's own, where the study's is harder to reach.
    """

    holder: Holder
    confirm: bool = False
    deadline: float | None = None
    target: float | None = None


@dataclass(frozen=True)
class AttemptSummary:
    """An attempt, as far as other workers need to know it.

    Args:
        kind: What it is, or was, at.
        number: The trial's number; of the attempt's row where it is no trial.
        attempt: Which try it is, from 1.
        token: Its fencing token.
        state: Its state.
        reason: Why it ended so.
        worker: The worker that holds it, or held it.
        process: That worker's process; None where only its lease decides.
    """

    kind: AttemptKind
    number: int
    attempt: int
    token: str
    state: AttemptState
    reason: FailureReason | None
    worker: str
    process: ProcessIdentity | None


@dataclass(frozen=True)
class Status:
    """How a study goes.

    Args:
        n_trials: How many trials it may have.
        counts: Trials in each state.
        best_number: The best complete trial by the first objective; None without one.
        best_value: What that scored.
    """

    n_trials: int
    counts: dict[RecordedTrialState, int]
    best_number: int | None
    best_value: float | None


class ClaimWatcher(Protocol):
    """The claimant's side of a claim under way, which takes as long as its sampler does."""

    def opened(self, token: str) -> None:
        """An attempt is open, and its parameters are being proposed: its lease is to be renewed."""
        ...

    def is_unwanted(self) -> bool:
        """Whether the claimant does not want a claim any more."""
        ...


class LeaseRenewer(Protocol):
    """What a heartbeat needs of a study."""

    def renew(self, progress: Mapping[str, Progress]) -> set[str]:
        """Extend leases, and note how far the attempts are.

        Returns the tokens that are still live.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class StudyClient(Protocol):
    """A study, as a worker knows it.

    Every write names the attempt by its fencing token: one that is not live any more changes
    nothing, and the call returns False. Every write may be repeated: the same end written twice is
    one end.
    """

    def facts(self) -> StudyFacts:
        """What does not change while the study is served."""
        ...

    def claim(
        self, request: ClaimRequest, watcher: ClaimWatcher | None = None
    ) -> Claim | ConfirmClaim | None:
        """Claim the next trial, or the next part of the confirmation.

        None where there is none now.
        """
        ...

    def withdraw(self, token: str) -> bool:
        """Take back a claim whose parameters are still being proposed; False where it has them."""
        ...

    def renew(self, progress: Mapping[str, Progress]) -> set[str]:
        """Extend leases, and note how far the attempts are.

        Returns the tokens that are still live.
        """
        ...

    def report(self, claim: Claim, epoch: int, value: float) -> bool:
        """Report the first objective after an epoch; True when the pruner says to stop."""
        ...

    def finish(self, claim: Claim, result: Result, ledger_row: int | None = None) -> bool:
        """Record a result; of a scoring also into the row of the test ledger that it opened."""
        ...

    def release(
        self,
        claim: Claim,
        reason: FailureReason = FailureReason.INTERRUPTED,
        error: str | None = None,
    ) -> bool:
        """Give an attempt back: the trial waits.

        Its next attempt goes on from its checkpoint.
        """
        ...

    def lose(self, claim: Claim, error: str) -> bool:
        """Record that the process of an attempt died: its trial waits, or has failed for good."""
        ...

    def open_test_ledger(self, claim: ConfirmClaim) -> int:
        """Write a row before the test set is opened.

        Returns its number, the same for a repetition.
        """
        ...

    def attempts(
        self, *, kind: AttemptKind | None = None, number: int | None = None
    ) -> list[AttemptSummary]:
        """The study's attempts, oldest first."""
        ...

    def live_attempts(self) -> list[AttemptSummary]:
        """The attempts that are held now."""
        ...

    def reap(self, worker: str | None = None) -> list[AttemptSummary]:
        """End as lost the attempts beyond their lease.

        Of a worker that is known to be dead, all.
        """
        ...

    def is_overdue(self) -> bool:
        """Whether there is an attempt to reap; a look that keeps nobody waiting."""
        ...

    def known_budget(self) -> Budget:
        """The study's budget as it was when it was last read; nothing is asked for it."""
        ...

    def unconfirmed(self) -> set[str]:
        """Tokens of attempts that the study may have although no claim of them was returned."""
        ...

    def forget_unconfirmed(self, tokens: Iterable[str]) -> None:
        """Remove such attempts, where the study has them; their trials wait again."""
        ...

    def note_outage(self) -> None:
        """Note that the study could not be reached: leases that ran out meanwhile say nothing."""
        ...

    def stop_requested(self) -> bool:
        """Whether somebody who cannot send a signal wants the service to end."""
        ...

    def status(self) -> Status:
        """How the study goes."""
        ...

    def separate(self) -> StudyClient:
        """Another client of the same study, for another thread; it waits for no outage to end."""
        ...

    def lease_renewer(self) -> LeaseRenewer:
        """What renews leases alone, for another thread."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
