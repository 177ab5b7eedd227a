"""A study's own row: its record, its budget, its wall time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dlsearch.config.compose import seconds
from dlsearch.core.names import is_name
from dlsearch.storage.database import Storage, StudyRow


@dataclass(frozen=True)
class Budget:
    """How far a study may go: what the last session set that was opened.

    Args:
        n_trials: How many trials, over all sessions.
        finished: Whether the study is over.
        seconds: Wall time that ended sessions spent.
        timeout_s: Wall time of the search, over all sessions; None for no end.
        trial_timeout_s: Deadline of one trial; None for none.
        target: No trial is claimed once the best value has reached this.
        deadline: No trial is claimed after this time, on the database's clock; None where
            `timeout_s` is, or while no session is open.
    """

    n_trials: int
    finished: bool
    seconds: float
    timeout_s: float | None
    trial_timeout_s: float | None
    target: float | None
    deadline: float | None

    def deadline_from(self, now: float) -> float | None:
        """The deadline of the session that is open; of one that begins `now`, where none is."""
        if self.timeout_s is None:
            return None
        if self.deadline is not None:
            return self.deadline
        return now + self.timeout_s - self.seconds

    def is_time_over(self, now: float) -> bool:
        """Whether no trial may be claimed any more, by the database's clock."""
        deadline = self.deadline_from(now)
        return deadline is not None and now >= deadline


def budget_columns(
    settings: Mapping[str, Any],
    spent_s: float,
    now: float,
) -> dict[str, Any]:
    """The columns of a study's row that a session sets when it is opened.

    Args:
        settings: The section ``study`` of its config.
        spent_s: Wall time that earlier sessions spent, seconds.
        now: On the database's clock.
    """
    timeout_s = seconds(settings["timeout"], "study.timeout")
    trial_timeout_s = seconds(settings["trial_timeout"], "study.trial_timeout")
    deadline = None
    if timeout_s is not None:
        deadline = now + timeout_s - spent_s
    return {
        "n_trials": max(settings["n_trials"], 1),
        "timeout_s": timeout_s,
        "trial_timeout_s": trial_timeout_s,
        "target": settings["target"],
        "deadline": deadline,
    }


def read_row(storage: Storage, name: str) -> StudyRow | None:
    """The row of a study; None where there is none."""
    with (
        storage.begin() as connection,
        sa.orm.Session(connection, expire_on_commit=False) as session,
    ):
        row = session.get(StudyRow, name)
        session.expunge_all()
    return row


def update_row(storage: Storage, name: str, **values: Any) -> None:
    """Set columns of a study's row."""
    update = sa.update(StudyRow).where(StudyRow.name == name).values(**values)
    with storage.begin() as connection:
        connection.execute(update)


def read_budget(storage: Storage, name: str) -> Budget:
    """The budget of a study, as it is now."""
    columns = (
        StudyRow.n_trials,
        StudyRow.finished,
        StudyRow.seconds,
        StudyRow.timeout_s,
        StudyRow.trial_timeout_s,
        StudyRow.target,
        StudyRow.deadline,
    )
    # Not the whole row: its document is long.
    query = sa.select(*columns).where(StudyRow.name == name)
    with storage.begin() as connection:
        found = connection.execute(query).mappings().one()
    return Budget(**found)


def end_session(storage: Storage, name: str, spent_s: float) -> None:
    """Set the wall time that all sessions spent, and end the one that is open.

    A deadline that has passed stays: the next session sets another.
    """
    with storage.begin() as connection:
        now = storage.now(connection)
        passed_deadline = sa.case((StudyRow.deadline > now, None), else_=StudyRow.deadline)
        update = (
            sa.update(StudyRow)
            .where(StudyRow.name == name)
            .values(seconds=spent_s, deadline=passed_deadline)
        )
        connection.execute(update)


def names(storage: Storage) -> list[str]:
    """The studies of a storage, newest first.

    A name that no study may have, as ``../x``, is left out.
    """
    query = sa.select(StudyRow.name).order_by(StudyRow.created.desc())
    with storage.begin() as connection:
        found = connection.execute(query).scalars().all()
    return [name for name in found if is_name(name)]
