"""What a claim asks first, in one question: may a trial be made, or is there more to do?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from dlsearch.storage.attempts import LIVE
from dlsearch.storage.optuna_tables import STUDIES, TRIALS, enum_label
from dlsearch.storage.studies import Budget
from dlsearch.storage.tables import Attempt, StudyRow

if TYPE_CHECKING:
    from dlsearch.storage.database import Storage


@dataclass(frozen=True)
class Outlook:
    """How a study stands.

    Args:
        budget: Its budget.
        trials: How many trials there are.
        is_clear: Whether no trial waits, none runs that nobody holds, and no lease has run out: all
            that is left to do is to take a new trial.
        now: On the database's clock.
    """

    budget: Budget
    trials: int
    is_clear: bool
    now: float


_BUDGET_COLUMNS = (
    StudyRow.n_trials,
    StudyRow.finished,
    StudyRow.seconds,
    StudyRow.timeout_s,
    StudyRow.trial_timeout_s,
    StudyRow.target,
    StudyRow.deadline,
)
_ITS_NAME = sa.bindparam("its_name", type_=sa.String)
_IS_OF_STUDY = TRIALS.c.study_id == sa.bindparam("its_id", type_=sa.Integer)
#: Numbers are dense: Optuna counts a study's trials to give one.
_LAST_NUMBER = (
    sa.select(TRIALS.c.number)
    .where(_IS_OF_STUDY)
    .order_by(TRIALS.c.trial_id.desc())
    .limit(1)
    .scalar_subquery()
)
_IS_LIVE = sa.and_(Attempt.study == _ITS_NAME, Attempt.state == LIVE)
_IS_HELD = sa.exists().where(_IS_LIVE, Attempt.kind == "trial", Attempt.number == TRIALS.c.number)
_HAS_UNHELD = sa.exists().where(
    _IS_OF_STUDY,
    TRIALS.c.state == enum_label("RUNNING"),
    ~_IS_HELD,
)
_HAS_WAITING = sa.exists().where(_IS_OF_STUDY, TRIALS.c.state == enum_label("WAITING"))
_FIRST_LEASE_END = sa.select(sa.func.min(Attempt.lease_until)).where(_IS_LIVE).scalar_subquery()


def _select_outlook(clock: sa.ColumnElement[float]) -> sa.Select[*tuple[object, ...]]:
    # Optuna's own processes lock this row while they make a trial; SQLite has no such locks.
    return (
        sa.select(
            *_BUDGET_COLUMNS,
            _LAST_NUMBER.label("last_number"),
            sa.or_(_HAS_WAITING, _HAS_UNHELD).label("has_open"),
            _FIRST_LEASE_END.label("first_lease_end"),
            clock.label("now"),
        )
        .select_from(StudyRow)
        .join(STUDIES, STUDIES.c.study_id == sa.bindparam("its_id", type_=sa.Integer))
        .where(StudyRow.name == _ITS_NAME)
        .with_for_update(of=STUDIES)
    )


_SELECT_WITH_CLOCK = _select_outlook(sa.literal_column("extract(epoch FROM clock_timestamp())"))
_SELECT_WITHOUT_CLOCK = _select_outlook(sa.literal_column("0.0"))


def read_outlook(storage: Storage, name: str, study_id: int) -> Outlook:
    """How a study stands; the caller holds its lock.

    Args:
        storage: The open storage.
        name: The study's name.
        study_id: Optuna's id of it.
    """
    query = _SELECT_WITHOUT_CLOCK if storage.sqlite else _SELECT_WITH_CLOCK
    arguments = {"its_name": name, "its_id": study_id}
    with storage.begin() as connection:
        found = connection.execute(query, arguments).one()
    now = time.time() if storage.sqlite else float(found.now)
    is_overdue = found.first_lease_end is not None and found.first_lease_end < now
    last_number = -1 if found.last_number is None else found.last_number
    budget = Budget(
        found.n_trials,
        found.finished,
        found.seconds,
        found.timeout_s,
        found.trial_timeout_s,
        found.target,
        found.deadline,
    )
    return Outlook(budget, last_number + 1, not (found.has_open or is_overdue), now)
