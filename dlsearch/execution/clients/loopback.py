"""A client that sends all that passes through JSON: what fits through it fits through HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from dlsearch.storage.studies import Budget
from dlsearch.study.client import (
    AttemptSummary,
    ClaimRequest,
    ClaimWatcher,
    LeaseRenewer,
    Progress,
    Status,
    StudyClient,
    StudyFacts,
)
from dlsearch.study.models import Claim, ConfirmClaim, Result
from dlsearch.study.states import AttemptKind, FailureReason
from dlsearch.study.wire import decode, encode

T = TypeVar("T")
AnyClaim = ConfirmClaim | Claim


def _sent(kind: Any, value: T) -> T:
    """`value` as it arrives at the other side."""
    arrived: T = decode(kind, encode(kind, value))
    return arrived


class _RemoteWatcher:
    """A claimant at the other end of the wire: tokens reach it as text, its answers are a bool."""

    def __init__(self, watcher: ClaimWatcher) -> None:
        self._watcher = watcher

    def opened(self, token: str) -> None:
        self._watcher.opened(_sent(str, token))

    def is_unwanted(self) -> bool:
        return _sent(bool, self._watcher.is_unwanted())


class LoopbackClient:
    """Another client, behind a wire that ends in this process.

    Args:
        client: What answers.
    """

    def __init__(self, client: StudyClient) -> None:
        """Nothing is sent yet."""
        self._client = client

    def facts(self) -> StudyFacts:
        """What does not change while the study is served."""
        return _sent(StudyFacts, self._client.facts())

    def claim(
        self, request: ClaimRequest, watcher: ClaimWatcher | None = None
    ) -> Claim | ConfirmClaim | None:
        """Claim the next trial, or the next part of the confirmation.

        None where there is none now.
        """
        remote = None if watcher is None else _RemoteWatcher(watcher)
        claim = self._client.claim(_sent(ClaimRequest, request), remote)
        return _sent(AnyClaim | None, claim)

    def withdraw(self, token: str) -> bool:
        """Take back a claim whose parameters are still being proposed; False where it has them."""
        is_withdrawn = self._client.withdraw(_sent(str, token))
        return _sent(bool, is_withdrawn)

    def renew(self, progress: Mapping[str, Progress]) -> set[str]:
        """Extend leases, and note how far the attempts are.

        Returns the tokens that are still live.
        """
        held: dict[str, Progress] = _sent(dict[str, Progress], dict(progress))
        return _sent(set[str], self._client.renew(held))

    def report(self, claim: Claim, epoch: int, value: float) -> bool:
        """Report the first objective after an epoch; True when the pruner says to stop."""
        prune = self._client.report(
            _sent(AnyClaim, claim),
            _sent(int, epoch),
            _sent(float, value),
        )
        return _sent(bool, prune)

    def finish(
        self,
        claim: Claim,
        result: Result,
        ledger_row: int | None = None,
    ) -> bool:
        """Record a result; of a scoring also into the row of the test ledger that it opened."""
        is_accepted = self._client.finish(
            _sent(AnyClaim, claim),
            _sent(Result, result),
            _sent(int | None, ledger_row),
        )
        return _sent(bool, is_accepted)

    def release(
        self,
        claim: Claim,
        reason: FailureReason = FailureReason.INTERRUPTED,
        error: str | None = None,
    ) -> bool:
        """Give an attempt back: the trial waits, and goes on from its checkpoint."""
        is_accepted = self._client.release(
            _sent(AnyClaim, claim),
            _sent(FailureReason, reason),
            _sent(str | None, error),
        )
        return _sent(bool, is_accepted)

    def lose(self, claim: Claim, error: str) -> bool:
        """Record that the process of an attempt died: its trial waits, or has failed for good."""
        is_accepted = self._client.lose(
            _sent(AnyClaim, claim),
            _sent(str, error),
        )
        return _sent(bool, is_accepted)

    def open_test_ledger(self, claim: ConfirmClaim) -> int:
        """Write a row before the test set is opened.

        Returns its number, the same for a repetition.
        """
        row = self._client.open_test_ledger(_sent(ConfirmClaim, claim))
        return _sent(int, row)

    def attempts(
        self, *, kind: AttemptKind | None = None, number: int | None = None
    ) -> list[AttemptSummary]:
        """The study's attempts, oldest first."""
        found = self._client.attempts(
            kind=_sent(AttemptKind | None, kind),
            number=_sent(int | None, number),
        )
        return _sent(list[AttemptSummary], found)

    def live_attempts(self) -> list[AttemptSummary]:
        """The attempts that are held now."""
        return _sent(list[AttemptSummary], self._client.live_attempts())

    def reap(self, worker: str | None = None) -> list[AttemptSummary]:
        """End as lost the attempts beyond their lease, or all of a worker that is dead."""
        lost = self._client.reap(_sent(str | None, worker))
        return _sent(list[AttemptSummary], lost)

    def is_overdue(self) -> bool:
        """Whether there is an attempt to reap; a look that keeps nobody waiting."""
        return _sent(bool, self._client.is_overdue())

    def known_budget(self) -> Budget:
        """The study's budget as it was when it was last read; nothing is asked for it."""
        return _sent(Budget, self._client.known_budget())

    def unconfirmed(self) -> set[str]:
        """Tokens of attempts that the study may have although no claim of them was returned."""
        return _sent(set[str], self._client.unconfirmed())

    def forget_unconfirmed(self, tokens: Iterable[str]) -> None:
        """Remove such attempts, where the study has them; their trials wait again."""
        given = list(tokens)
        self._client.forget_unconfirmed(_sent(list[str], given))

    def note_outage(self) -> None:
        """Note that the study could not be reached: leases that ran out meanwhile say nothing."""
        self._client.note_outage()

    def stop_requested(self) -> bool:
        """Whether somebody who cannot send a signal wants the service to end."""
        return _sent(bool, self._client.stop_requested())

    def status(self) -> Status:
        """How the study goes."""
        return _sent(Status, self._client.status())

    def separate(self) -> LoopbackClient:
        """Another client of the same study, for another thread; it waits for no outage to end."""
        return LoopbackClient(self._client.separate())

    def lease_renewer(self) -> LeaseRenewer:
        """What renews leases alone, for another thread."""
        return self.separate()

    def close(self) -> None:
        """Close what answers."""
        self._client.close()
