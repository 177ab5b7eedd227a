"""Questions to Optuna's own tables, each of which reads a handful of rows.

The tables are private to Optuna. They are as the versions have them that
:func:`dlsearch.core.versions.is_compared` knows; :mod:`dlsearch.storage.trial_index` asks these
questions only there, and Optuna itself with any other version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.core.bounded import IN_DATABASE, parse_json

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def _describe_table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *[sa.column(column) for column in columns])


STUDIES = _describe_table("studies", "study_id", "study_name")
TRIALS = sa.table(
    "trials",
    sa.column("trial_id", sa.Integer),
    sa.column("number", sa.Integer),
    sa.column("study_id", sa.Integer),
    sa.column("state"),
    sa.column("datetime_start", sa.DateTime),
    sa.column("datetime_complete", sa.DateTime),
)
VALUES = _describe_table("trial_values", "trial_id", "objective", "value", "value_type")
PARAMS = _describe_table(
    "trial_params",
    "param_id",
    "trial_id",
    "param_name",
    "param_value",
    "distribution_json",
)
INTERMEDIATE_VALUES = _describe_table(
    "trial_intermediate_values",
    "trial_id",
    "step",
    "intermediate_value",
    "intermediate_value_type",
)
USER_ATTRIBUTES = _describe_table("trial_user_attributes", "trial_id", "key", "value_json")
SYSTEM_ATTRIBUTES = _describe_table("trial_system_attributes", "trial_id", "key", "value_json")

#: System attributes that hold constraints: all of a trial as a list, as Optuna 4 wrote them, or
#: each under a name.
_CONSTRAINTS = "constraints"
#: Trials that are read at once for a ranking: a few at first, for most ask for the best alone.
_FIRST_CHUNK = 16
_LARGEST_CHUNK = 4096
_CHUNK_GROWTH = 8


def enum_label(name: str) -> sa.ColumnElement[Any]:
    """A value of one of Optuna's enums: a literal: PostgreSQL compares none with a string."""
    return sa.literal_column(f"'{name}'")


def count_states(connection: Connection, study_id: int) -> dict[TrialState, int]:
    """How many trials are in each state."""
    query = (
        sa.select(TRIALS.c.state, sa.func.count())
        .where(TRIALS.c.study_id == study_id)
        .group_by(TRIALS.c.state)
    )
    found = {}
    for state, count in connection.execute(query):
        found[TrialState[state]] = count
    return found


def select_running(
    connection: Connection,
    study_id: int,
    attribute: str,
    value: Any,
) -> list[int]:
    """Numbers of the running trials whose user attribute has this value."""
    arguments = {
        "its_study": study_id,
        "its_key": attribute,
        "its_value": json.dumps(value),
    }
    return list(connection.execute(_SELECT_RUNNING, arguments).scalars())


_SELECT_RUNNING = (
    sa.select(TRIALS.c.number)
    .join(
        USER_ATTRIBUTES,
        sa.and_(
            USER_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id,
            USER_ATTRIBUTES.c.key == sa.bindparam("its_key"),
        ),
    )
    .where(TRIALS.c.study_id == sa.bindparam("its_study"))
    .where(TRIALS.c.state == enum_label("RUNNING"))
    .where(USER_ATTRIBUTES.c.value_json == sa.bindparam("its_value"))
    .order_by(TRIALS.c.number)
)


# -- rankings --------------------------------------------------------------------------------------
def rank_numbers(
    connection: Connection,
    study_id: int,
    direction: str,
    without: str | None,
) -> Iterator[int]:
    """Numbers of complete and feasible trials, best first; a few are read at a time.

    Args:
        connection: A connection to the database.
        study_id: Optuna's id of the study.
        direction: ``maximize`` or ``minimize``.
        without: Trials that have this user attribute are left out.
    """
    query = _select_ranking(study_id, direction, without)
    size = _FIRST_CHUNK
    offset = 0
    while True:
        chunk = query.limit(size).offset(offset)
        rows = connection.execute(chunk).all()
        infeasible = _find_infeasible(connection, [row.trial_id for row in rows])
        for row in rows:
            if row.trial_id not in infeasible:
                yield row.number
        if len(rows) < size:
            return
        offset += size
        size = min(_CHUNK_GROWTH * size, _LARGEST_CHUNK)


def _select_ranking(
    study_id: int,
    direction: str,
    without: str | None,
) -> sa.Select[Any]:
    """Complete trials by their first objective; ties by number."""
    is_first_value = sa.and_(
        VALUES.c.trial_id == TRIALS.c.trial_id,
        VALUES.c.objective == 0,
    )
    query = (
        sa.select(TRIALS.c.trial_id, TRIALS.c.number)
        .join(VALUES, is_first_value)
        .where(TRIALS.c.study_id == study_id)
        .where(TRIALS.c.state == enum_label("COMPLETE"))
        .order_by(*_order_by_value(direction), TRIALS.c.number)
    )
    if without is None:
        return query
    has_attribute = sa.exists().where(
        USER_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id,
        USER_ATTRIBUTES.c.key == without,
    )
    return query.where(~has_attribute)


def _order_by_value(direction: str) -> list[sa.ColumnElement[Any]]:
    """The order of the best values first; Optuna keeps infinite ones as a type without a value."""
    value = VALUES.c.value
    value_type = VALUES.c.value_type
    rank = sa.case(
        (value_type == enum_label("INF_POS"), 1),
        (value_type == enum_label("INF_NEG"), -1),
        else_=0,
    )
    if direction == "maximize":
        return [rank.desc(), value.desc()]
    return [rank, value]


def _find_infeasible(connection: Connection, trial_ids: Sequence[int]) -> set[int]:
    """Those trials that violate a constraint."""
    key = SYSTEM_ATTRIBUTES.c.key
    is_named = key.startswith(f"{_CONSTRAINTS}:", autoescape=True)
    query = sa.select(SYSTEM_ATTRIBUTES.c.trial_id, SYSTEM_ATTRIBUTES.c.value_json).where(
        SYSTEM_ATTRIBUTES.c.trial_id.in_(trial_ids),
        sa.or_(key == _CONSTRAINTS, is_named),
    )
    infeasible = set()
    for trial_id, text in connection.execute(query):
        value = parse_json(text, IN_DATABASE)
        constraints = value if isinstance(value, list) else [value]
        if any(constraint > 0 for constraint in constraints):
            infeasible.add(trial_id)
    return infeasible
