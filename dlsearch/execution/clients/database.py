"""The client of a study whose database this process reaches itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dlsearch.confirmation.rounds import Rounds
from dlsearch.records.record import STATES
from dlsearch.storage.attempts import Leases, holder_of
from dlsearch.storage.database import Storage
from dlsearch.study.client import (
    AttemptSummary,
    ClaimRequest,
    ClaimWatcher,
    Progress,
    Status,
    StudyFacts,
)
from dlsearch.study.states import AttemptKind, AttemptState, FailureReason, OpeningKind
from dlsearch.study.study import Study

if TYPE_CHECKING:
    from dlsearch.storage.database import Attempt
    from dlsearch.storage.studies import Budget
    from dlsearch.study.models import Claim, ConfirmClaim, Result


#: A database may hold a word of another version, which decides nothing here.
_REASONS = {reason.value: reason for reason in FailureReason}


class DatabaseClient:
    """A study in a database.

    Args:
        study: The open study; one thread at a time uses it.
        stop_requested: Whether somebody who cannot send a signal wants the service to end.
    """

    def __init__(self, study: Study, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """Read nothing yet."""
        self.study = study
        self.rounds = Rounds(study)
        self._stop_requested = stop_requested
        self._has_failed = False  # to write the last end

    def facts(self) -> StudyFacts:
        """What does not change while the study is served."""
        study = self.study
        return StudyFacts(
            name=study.name,
            objectives=study.typed.objectives,
            directions=study.directions,
            max_epochs=study.typed.max_epochs,
            lease_s=study.leases.lease_s,
            max_attempts=study.max_attempts,
            max_halvings=study.max_halvings,
        )

    def claim(
        self, request: ClaimRequest, watcher: ClaimWatcher | None = None
    ) -> Claim | ConfirmClaim | None:
        """Claim the next trial, or the next part of the confirmation.

        None where there is none now.
        """
        claim = self.study.claim(
            request.holder,
            deadline=request.deadline,
            target=request.target,
            opened=None if watcher is None else watcher.opened,
            give_up=None if watcher is None else watcher.is_unwanted,
        )
        if claim is not None or not request.confirm:
            return claim
        if watcher is not None and watcher.is_unwanted():
            return None
        return self.rounds.claim(request.holder, deadline=request.deadline, target=request.target)

    def withdraw(self, token: str) -> bool:
        """Take back a claim whose parameters are still being proposed; False where it has them."""
        return self.study.withdraw(token)

    def renew(self, progress: Mapping[str, Progress]) -> set[str]:
        """Extend leases, and note how far the attempts are.

        Returns the tokens that are still live.
        """
        return self.study.leases.renew(progress, _known(progress))

    def report(self, claim: Claim, epoch: int, value: float) -> bool:
        """Report the first objective after an epoch; True when the pruner says to stop."""
        return self.study.report(claim, epoch, value)

    def finish(self, claim: Claim, result: Result, ledger_row: int | None = None) -> bool:
        """Record a result; of a scoring also into the row of the test ledger that it opened."""
        with self._write():
            if claim.kind == AttemptKind.TEST:
                return self.rounds.score(claim, result, ledger_row)
            return self.study.finish(claim, result)

    def release(
        self,
        claim: Claim,
        reason: FailureReason = FailureReason.INTERRUPTED,
        error: str | None = None,
    ) -> bool:
        """Give an attempt back: the trial waits, and goes on from its checkpoint."""
        return self.study.release(claim, reason, error)

    def lose(self, claim: Claim, error: str) -> bool:
        """Record that the process of an attempt died: its trial waits, or has failed for good."""
        with self._write():
            return self.study.lose(claim, error)

    @contextmanager
    def _write(self) -> Iterator[None]:
        """A write of an end.

        After one that failed the trials are read again: what was taken back may stand in a cache.
        """
        if self._has_failed:
            self.study.trials()
            self._has_failed = False
        try:
            yield
        except BaseException:
            self._has_failed = True
            raise

    def open_test_ledger(self, claim: ConfirmClaim) -> int:
        """Write a row before the test set is opened.

        Returns its number, the same for a repetition.
        """
        number = claim.finalist.trial_number
        return self.study.ledger.opened(OpeningKind.CONFIRM, number, claim.seed, claim.token)

    def attempts(
        self, *, kind: AttemptKind | None = None, number: int | None = None
    ) -> list[AttemptSummary]:
        """The study's attempts, oldest first."""
        return [_summary_of(row) for row in self.study.leases.rows(kind=kind, number=number)]

    def live_attempts(self) -> list[AttemptSummary]:
        """The attempts that are held now."""
        return [_summary_of(row) for row in self.study.leases.live()]

    def reap(self, worker: str | None = None) -> list[AttemptSummary]:
        """End as lost the attempts beyond their lease, or all of a worker that is dead."""
        return [_summary_of(row) for row in self.study.reap(worker)]

    def is_overdue(self) -> bool:
        """Whether there is an attempt to reap; a look that keeps nobody waiting."""
        return self.study.leases.overdue()

    def known_budget(self) -> Budget:
        """The study's budget as it was when it was last read; nothing is asked for it."""
        return self.study.known_budget

    def unconfirmed(self) -> set[str]:
        """Tokens of attempts that the study may have although no claim of them was returned."""
        return set(self.study.leases.unsure)

    def forget_unconfirmed(self, tokens: Iterable[str]) -> None:
        """Remove such attempts, where the study has them; their trials wait again."""
        for token in tokens:
            self.study.take_back(token)

    def note_outage(self) -> None:
        """Note that the study could not be reached: leases that ran out meanwhile say nothing."""
        self.study.leases.broken()

    def stop_requested(self) -> bool:
        """Whether somebody who cannot send a signal wants the service to end."""
        return self._stop_requested()

    def status(self) -> Status:
        """How the study goes."""
        counts = {STATES[state]: count for state, count in self.study.counts().items()}
        best = self.study.best()
        return Status(
            n_trials=self.study.budget().n_trials,
            counts=counts,
            best_number=None if best is None else best.number,
            best_value=None if best is None else best.values[0],
        )

    def separate(self) -> DatabaseClient:
        """Another client of the same study, for another thread; it waits for no outage to end."""
        own = self.study.storage
        storage = Storage(own.url, patience_s=0.0)
        storage.patience_s = own.patience_s
        try:
            study = Study(storage, self.study.name, lease_s=self.study.leases.lease_s)
        except BaseException:
            storage.close()
            raise
        return DatabaseClient(study, self._stop_requested)

    def lease_renewer(self) -> DatabaseLeaseRenewer:
        """What renews leases alone, for another thread."""
        leases = self.study.leases
        return DatabaseLeaseRenewer(self.study.storage.url, self.study.name, leases.lease_s)

    def close(self) -> None:
        """Close the storage."""
        self.study.storage.close()


class DatabaseLeaseRenewer:
    """Renews leases over a connection of its own, which is opened when it is first needed.

    Args:
        url: The study's storage.
        study: The study's name.
        lease_s: How long an attempt lives without renewal, seconds.
    """

    def __init__(self, url: str, study: str, lease_s: float) -> None:
        """Nothing is opened yet."""
        self._url = url
        self._study = study
        self._lease_s = lease_s
        self._leases: Leases | None = None

    def renew(self, progress: Mapping[str, Progress]) -> set[str]:
        """Extend leases, and note how far the attempts are.

        Returns the tokens that are still live.
        """
        if self._leases is None:
            storage = Storage(self._url, patience_s=0.0)
            self._leases = Leases(storage, self._study, self._lease_s)
        return self._leases.renew(progress, _known(progress))

    def close(self) -> None:
        """Close the connection."""
        if self._leases is not None:
            self._leases.storage.close()


def _known(progress: Mapping[str, Progress]) -> dict[str, Progress]:
    """Of the attempts that have something to say."""
    return {token: value for token, value in progress.items() if value}


def _summary_of(row: Attempt) -> AttemptSummary:
    return AttemptSummary(
        kind=AttemptKind(row.kind),
        number=row.number,
        attempt=row.attempt,
        token=row.token,
        state=AttemptState(row.state),
        reason=_REASONS.get(row.reason or ""),
        worker=row.worker,
        process=holder_of(row),
    )
