"""A search whose first trials all fail alike is stopped: the next would fail so, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.core.failure_cause import FailureCause
from dlsearch.storage.tables import Attempt
from dlsearch.study.states import COUNTED_STATES, AttemptKind, AttemptState, FailureReason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlsearch.storage.database import Storage

#: In a session of a study's document: the id of the newest attempt when it began. What ended before
#: has been seen by somebody, who may have mended the code since. None where a trial had a value
#: already.
AFTER_ATTEMPT = "after_attempt"


@dataclass(frozen=True)
class IdenticalFailures:
    """Why a search was stopped.

    Args:
        count: How many trials failed alike.
        cause: Of the first of them.
    """

    count: int
    cause: FailureCause


class FailureWatch:
    """Tells whether the first trials of a study, or of its newest session, all failed alike.

    It asks the storage until it is known that they did not, which mostly is after the first trial
    that ends.

    Args:
        storage: The open storage.
        study: The study's name.
        limit: ``study.max_identical_failures``; 0 for never.
        sessions: The study's resumptions, from its document.
    """

    def __init__(
        self,
        storage: Storage,
        study: str,
        limit: int,
        sessions: Sequence[Mapping[str, Any]],
    ) -> None:
        """Nothing is asked yet."""
        self._storage = storage
        self._study = study
        self._limit = limit
        self._after: int | None = 0
        if sessions:
            self._after = sessions[-1].get(AFTER_ATTEMPT)
        self._is_settled = limit == 0 or self._after is None

    def look(self) -> IdenticalFailures | None:
        """Why the search is to be stopped; None where it is not."""
        if self._is_settled:
            return None
        causes = [cause_of(attempt) for attempt in self._read_first_ends()]
        if not are_alike(causes):
            self._is_settled = True
            return None
        if len(causes) < self._limit or causes[0] is None:
            return None
        if self._has_value():
            self._is_settled = True
            return None
        return IdenticalFailures(len(causes), causes[0])

    def _read_first_ends(self) -> Sequence[Any]:
        """The attempts at trials that ended first and count, oldest first."""
        query = (
            sa.select(Attempt.state, Attempt.reason, Attempt.result)
            .where(
                Attempt.study == self._study,
                Attempt.kind == AttemptKind.TRIAL,
                Attempt.state.in_(COUNTED_STATES),
                Attempt.id > self._after,
            )
            .order_by(Attempt.ended, Attempt.id)
            .limit(self._limit)
        )
        with self._storage.begin() as connection:
            return connection.execute(query).all()

    def _has_value(self) -> bool:
        """Whether another trial has a value after all: one that ran beside them."""
        query = sa.select(Attempt.id).where(
            Attempt.study == self._study,
            Attempt.kind == AttemptKind.TRIAL,
            Attempt.state.in_((AttemptState.COMPLETE, AttemptState.PRUNED)),
        )
        with self._storage.begin() as connection:
            return connection.execute(query.limit(1)).first() is not None


def are_alike(causes: Sequence[FailureCause | None]) -> bool:
    """Whether all are causes, and like the first."""
    first = causes[0] if causes else None
    return all(cause is not None and first is not None and cause.is_like(first) for cause in causes)


def cause_of(attempt: Any) -> FailureCause | None:
    """Why an attempt failed with an exception; None where it ended otherwise.

    What diverges or runs out of memory does so for its parameters, and the next may not.
    """
    if attempt.state != AttemptState.FAILED or attempt.reason != FailureReason.EXCEPTION:
        return None
    if not attempt.result:
        return None
    result = parse_json(attempt.result, IN_DATABASE)
    return FailureCause.from_json(result.get("cause"))


def newest_attempt(storage: Storage, study: str) -> int | None:
    """What a session notes under :data:`AFTER_ATTEMPT` when it begins."""
    of_trials = (Attempt.study == study, Attempt.kind == AttemptKind.TRIAL)
    has_value = sa.select(Attempt.id).where(
        *of_trials,
        Attempt.state.in_((AttemptState.COMPLETE, AttemptState.PRUNED)),
    )
    newest = sa.select(sa.func.max(Attempt.id)).where(*of_trials)
    with storage.begin() as connection:
        if connection.execute(has_value.limit(1)).first() is not None:
            return None
        return int(connection.execute(newest).scalar() or 0)
