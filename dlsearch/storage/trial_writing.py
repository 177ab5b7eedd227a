"""Trials written as Optuna writes them, in a statement or two where Optuna needs ten.

Each is a part of a transaction under the study's lock. The tables are those of
:mod:`dlsearch.storage.optuna_tables`.
"""

from __future__ import annotations

import datetime
import functools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite

from dlsearch.storage.optuna_tables import (
    INTERMEDIATE_VALUES,
    PARAMS,
    TRIALS,
    VALUES,
    enum_label,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection


def _now() -> datetime.datetime:
    """The database has UTC without saying so."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


# -- beginning -------------------------------------------------------------------------------------
_LAST_NUMBER = (
    sa.select(TRIALS.c.number)
    .where(TRIALS.c.study_id == sa.bindparam("its_study"))
    .order_by(TRIALS.c.trial_id.desc())
    .limit(1)
    .scalar_subquery()
)
_INSERT_TRIAL = (
    sa.insert(TRIALS)
    .values(
        number=sa.func.coalesce(_LAST_NUMBER, -1) + 1,
        study_id=sa.bindparam("its_study"),
        state=enum_label("RUNNING"),
        datetime_start=sa.bindparam("now", type_=sa.DateTime),
    )
    .returning(TRIALS.c.number)
)


def begin_trial(connection: Connection, study_id: int) -> int:
    """Make a new trial that runs; returns its number."""
    arguments = {"its_study": study_id, "now": _now()}
    number: int = connection.execute(_INSERT_TRIAL, arguments).scalar_one()
    return number


# -- proposing -------------------------------------------------------------------------------------
def insert_params(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write parameters, whose distributions were compared with those of other trials."""
    connection.execute(_INSERT_PARAM, rows)


_INSERT_PARAM = sa.insert(PARAMS)


@dataclass(frozen=True)
class AttributeRow:
    """An attribute of a trial.

    Args:
        table: Optuna's table of user's attributes, or of samplers'.
        trial_id: Optuna's id of the trial.
        key: Its name.
        value: Plain JSON.
    """

    table: sa.TableClause
    trial_id: int
    key: str
    value: Any


def write_attribute(connection: Connection, row: AttributeRow) -> None:
    """Write an attribute of a trial, which may have it."""
    make_insert: Any = postgresql.insert
    if connection.dialect.name == "sqlite":
        make_insert = sqlite.insert
    insert = make_insert(row.table)
    upsert = insert.on_conflict_do_update(
        index_elements=["trial_id", "key"],
        set_={"value_json": insert.excluded.value_json},
    )
    arguments = {"trial_id": row.trial_id, "key": row.key, "value_json": json.dumps(row.value)}
    connection.execute(upsert, arguments)


def is_any_like(
    connection: Connection,
    own_id: int,
    newest_id: int,
    trial_ids: Sequence[int],
    params: Mapping[str, float],
) -> bool:
    """Whether another trial has these parameters, perhaps among more.

    Args:
        connection: A connection to the database.
        own_id: The trial that has them, too.
        newest_id: Trials after this one are looked at.
        trial_ids: These are looked at, too.
        params: Internal representations by name.
    """
    arguments: dict[str, Any] = {"own_id": own_id, "newest_id": newest_id, "count": len(params)}
    if trial_ids:
        arguments["trial_ids"] = trial_ids
    for index, (name, value) in enumerate(params.items()):
        arguments[f"name_{index}"] = name
        arguments[f"value_{index}"] = value
    query = _select_like(len(params), is_any_listed=bool(trial_ids))
    return connection.execute(query, arguments).first() is not None


@functools.cache
def _select_like(count: int, *, is_any_listed: bool) -> sa.Select[Any]:
    """A trial with `count` parameters of given names and values."""
    is_looked_at: sa.ColumnElement[bool] = PARAMS.c.trial_id > sa.bindparam("newest_id")
    if is_any_listed:
        is_listed = PARAMS.c.trial_id.in_(sa.bindparam("trial_ids", expanding=True))
        is_looked_at = sa.or_(is_looked_at, is_listed)
    are_equal = []
    for index in range(count):
        has_name = PARAMS.c.param_name == sa.bindparam(f"name_{index}")
        has_value = PARAMS.c.param_value == sa.bindparam(f"value_{index}")
        are_equal.append(sa.and_(has_name, has_value))
    return (
        sa.select(PARAMS.c.trial_id)
        .where(is_looked_at, sa.or_(*are_equal))
        .where(PARAMS.c.trial_id != sa.bindparam("own_id"))
        .group_by(PARAMS.c.trial_id)
        .having(sa.func.count() == sa.bindparam("count"))
        .limit(1)
    )


# -- ending ----------------------------------------------------------------------------------------
_ENDS = {
    state: sa.update(TRIALS)
    .where(
        TRIALS.c.trial_id == sa.bindparam("its_id"),
        TRIALS.c.state == enum_label("RUNNING"),
    )
    .values(
        state=enum_label(state.name),
        datetime_complete=sa.bindparam("now", type_=sa.DateTime),
    )
    for state in (TrialState.COMPLETE, TrialState.PRUNED)
}
_INSERT_VALUE = sa.insert(VALUES).values(value_type=enum_label("FINITE"))
_SELECT_LAST_REPORT = (
    sa.select(
        INTERMEDIATE_VALUES.c.intermediate_value,
        sa.cast(INTERMEDIATE_VALUES.c.intermediate_value_type, sa.Text),
    )
    .where(INTERMEDIATE_VALUES.c.trial_id == sa.bindparam("its_id"))
    .order_by(INTERMEDIATE_VALUES.c.step.desc())
    .limit(1)
)


def end_trial(
    connection: Connection,
    trial_id: int,
    state: TrialState,
    values: Sequence[float] | None,
    objectives: int,
) -> bool:
    """End a running trial, and tell no sampler of it.

    Args:
        connection: A connection to the database.
        trial_id: Optuna's id of the trial.
        state: COMPLETE or PRUNED. A pruned trial of one objective has the value that it reported
            last.
        values: Of a complete trial.
        objectives: How many values a trial has.

    Returns:
        False where nothing was written: the trial does not run, or the values are none that this
        function writes.
    """
    if state is TrialState.PRUNED:
        last = connection.execute(_SELECT_LAST_REPORT, {"its_id": trial_id}).one_or_none()
        values = None
        if last is not None and objectives == 1:
            if last[1] != "FINITE":
                return False
            values = [last[0]]
    elif values is None or len(values) != objectives or not all(map(math.isfinite, values)):
        return False
    ended = connection.execute(_ENDS[state], {"its_id": trial_id, "now": _now()}).rowcount
    if ended != 1:
        return False
    if values:
        rows = [
            {"trial_id": trial_id, "objective": objective, "value": float(value)}
            for objective, value in enumerate(values)
        ]
        connection.execute(_INSERT_VALUE, rows)
    return True
