"""A study's own row: its record, its budget, its wall time."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from dlsearch.search.database import Storage, StudyRow


def read_row(storage: Storage, name: str) -> StudyRow | None:
    """The row of a study."""
    with storage.begin() as connection, sa.orm.Session(connection, expire_on_commit=False) as session:
        row = session.get(StudyRow, name)
        session.expunge_all()
    return row


def update_row(storage: Storage, name: str, **values: Any) -> None:
    """Set columns of it."""
    with storage.begin() as connection:
        connection.execute(sa.update(StudyRow).where(StudyRow.name == name).values(**values))


def budget(storage: Storage, name: str) -> tuple[int, bool]:
    """How many trials were asked for, and whether the study has been finished."""
    query = sa.select(StudyRow.n_trials, StudyRow.finished).where(StudyRow.name == name)
    with storage.begin() as connection:  # the row's document is long
        n_trials, finished = connection.execute(query).one()
    return int(n_trials), bool(finished)


def names(storage: Storage) -> list[str]:
    """The studies of a storage, newest first."""
    with storage.begin() as connection:
        return list(connection.execute(sa.select(StudyRow.name).order_by(StudyRow.created.desc())).scalars())
