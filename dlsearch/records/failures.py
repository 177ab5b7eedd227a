"""The failures of a study, grouped by their cause."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.core.json_model import JsonModel
from dlsearch.storage.tables import Attempt
from dlsearch.study.states import AttemptKind, AttemptState, FailureReason
from dlsearch.study.study import DUPLICATE

if TYPE_CHECKING:
    from dlsearch.study.study import Study

#: The line of an exception that has a place in the user's code.
_WITH_PLACE = re.compile(r"(\w+): .* (\(\S+:\d+\))")


@dataclass(frozen=True)
class FailureGroup(JsonModel):
    """Trials that failed alike.

    Args:
        trials: Their numbers.
        reason: Why.
        error: The first one's, in a line.
    """

    trials: list[int]
    reason: str
    error: str | None


@dataclass(frozen=True)
class StopRecord(JsonModel):
    """That a search was stopped because its first trials all failed alike.

    Args:
        failed: How many.
        error: Why, in a line.
    """

    failed: int
    error: str


def group_failures(study: Study) -> list[FailureGroup]:
    """The failed trials of a study by their cause, the most frequent first."""
    failed: dict[int, int] = {}
    for trial in study.trials():
        if trial.state is TrialState.FAIL:
            failed[trial.number] = trial.user_attrs.get(DUPLICATE, trial.number)
    if not failed:
        return []
    causes = _read_last_errors(study)
    groups: dict[tuple[str, str], FailureGroup] = {}
    for number, source in failed.items():
        reason, error = causes.get(source, (FailureReason.EXCEPTION, None))
        found = _WITH_PLACE.fullmatch(error or "")
        alike = f"{found[1]} {found[2]}" if found else error or ""
        group = groups.setdefault((reason, alike), FailureGroup([], reason, error))
        group.trials.append(number)
    return sorted(groups.values(), key=lambda group: (-len(group.trials), group.trials[0]))


def _read_last_errors(study: Study) -> dict[int, tuple[str, str | None]]:
    """Reason and line of the last attempt at each trial that failed, or was lost."""
    query = (
        sa.select(Attempt.number, Attempt.reason, Attempt.error)
        .where(
            Attempt.study == study.name,
            Attempt.kind == AttemptKind.TRIAL,
            Attempt.state.in_((AttemptState.FAILED, AttemptState.LOST)),
        )
        .order_by(Attempt.id)
    )
    with study.storage.begin() as connection:
        rows = connection.execute(query).all()
    return {row.number: (row.reason or FailureReason.EXCEPTION, row.error) for row in rows}


def find_stop(study: Study) -> StopRecord | None:
    """Why nobody may claim the trials that are left; None where that is not so."""
    if not study.is_stopped_by_failures():
        return None
    found = study.failure_watch.look()
    return None if found is None else StopRecord(found.count, found.cause.line)
