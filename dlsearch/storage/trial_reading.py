"""Trials as Optuna reads them, in two questions: which have changed, and what belongs to these.

Optuna asks seven, makes an object of each row, and parses the distribution of each parameter of
each trial twice. The tables are those of :mod:`dlsearch.storage.optuna_tables`.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from dlsearch.storage.optuna_tables import (
    INTERMEDIATE_VALUES,
    PARAMS,
    SYSTEM_ATTRIBUTES,
    TRIALS,
    USER_ATTRIBUTES,
    VALUES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from optuna.distributions import BaseDistribution
    from sqlalchemy.engine import Connection

#: Above this number of trials, all between the first and the last are read, and others thrown away:
#: databases bound the number of values in a statement.
_LISTED_TRIALS = 300


# -- which trials have changed ---------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TrialRow:
    """A row of Optuna's table of trials."""

    trial_id: int
    number: int
    state: TrialState
    started: datetime.datetime | None
    ended: datetime.datetime | None


_TRIAL_COLUMNS = (
    TRIALS.c.trial_id,
    TRIALS.c.number,
    TRIALS.c.state,
    TRIALS.c.datetime_start,
    TRIALS.c.datetime_complete,
)
_SELECT_NEWER = sa.select(*_TRIAL_COLUMNS).where(
    TRIALS.c.study_id == sa.bindparam("study_id"),
    TRIALS.c.trial_id > sa.bindparam("newest_id"),
)
_SELECT_LISTED = sa.select(*_TRIAL_COLUMNS).where(
    TRIALS.c.trial_id.in_(sa.bindparam("trial_ids", expanding=True)),
)
_SELECT_NEWER_AND_LISTED = sa.union_all(_SELECT_NEWER, _SELECT_LISTED)


def select_changed(
    connection: Connection,
    study_id: int,
    newest_id: int,
    open_ids: Iterable[int],
) -> list[TrialRow]:
    """The trials of a study that may have changed since they were read, by id.

    Args:
        connection: A connection to the database.
        study_id: Optuna's id of the study.
        newest_id: The largest id that was read; -1 where none was.
        open_ids: Of the trials that were not finished then.
    """
    arguments: dict[str, Any] = {"study_id": study_id, "newest_id": newest_id}
    listed = list(open_ids)
    query: sa.Select[Any] | sa.CompoundSelect[Any] = _SELECT_NEWER
    if listed:
        query = _SELECT_NEWER_AND_LISTED
        arguments["trial_ids"] = listed
    return _read_rows(connection, query, arguments)


def select_listed(
    connection: Connection,
    trial_ids: Sequence[int],
) -> list[TrialRow]:
    """The trials of these ids, as far as there are any."""
    return _read_rows(connection, _SELECT_LISTED, {"trial_ids": trial_ids})


def _read_rows(
    connection: Connection,
    query: sa.Executable,
    arguments: dict[str, Any],
) -> list[TrialRow]:
    rows = []
    for trial_id, number, state, started, ended in connection.execute(query, arguments):
        row = TrialRow(
            trial_id,
            number,
            TrialState[state],
            _to_local_time(started),
            _to_local_time(ended),
        )
        rows.append(row)
    rows.sort(key=lambda row: row.trial_id)
    return rows


def _to_local_time(moment: datetime.datetime | None) -> datetime.datetime | None:
    """The database has UTC, and Optuna's trials local time; neither says so."""
    if moment is None:
        return None
    local = moment.replace(tzinfo=datetime.UTC).astimezone()
    return local.replace(tzinfo=None)


# -- what belongs to them --------------------------------------------------------------------------
class _Part(IntEnum):
    """What a row says of its trial."""

    PARAM = 1
    VALUE = 2
    REPORT = 3
    USER_ATTRIBUTE = 4
    SYSTEM_ATTRIBUTE = 5


_NO_NAME = sa.cast(sa.null(), sa.String)
_NO_NUMBER = sa.cast(sa.null(), sa.Double)


def _select_part(
    part: _Part,
    table: sa.TableClause,
    position: sa.ColumnElement[int],
    name: sa.ColumnElement[str],
    number: sa.ColumnElement[float],
    text: sa.ColumnElement[str],
    *,
    is_listed: bool,
) -> sa.Select[Any]:
    if is_listed:
        is_wanted = table.c.trial_id.in_(sa.bindparam("trial_ids", expanding=True))
    else:
        is_wanted = table.c.trial_id.between(sa.bindparam("first_id"), sa.bindparam("last_id"))
    return sa.select(
        sa.literal_column(str(part.value)).label("part"),
        table.c.trial_id.label("trial_id"),
        position.label("position"),
        name.label("name"),
        number.label("number"),
        text.label("text"),
    ).where(is_wanted)


def _select_parts(*, is_listed: bool) -> sa.CompoundSelect[Any]:
    """All that belongs to trials, in the order in which Optuna lists it."""
    nowhere: sa.ColumnElement[int] = sa.literal_column("0")
    params = _select_part(
        _Part.PARAM,
        PARAMS,
        PARAMS.c.param_id,
        PARAMS.c.param_name,
        PARAMS.c.param_value,
        PARAMS.c.distribution_json,
        is_listed=is_listed,
    )
    values = _select_part(
        _Part.VALUE,
        VALUES,
        VALUES.c.objective,
        _NO_NAME,
        VALUES.c.value,
        sa.cast(VALUES.c.value_type, sa.Text),
        is_listed=is_listed,
    )
    reports = _select_part(
        _Part.REPORT,
        INTERMEDIATE_VALUES,
        INTERMEDIATE_VALUES.c.step,
        _NO_NAME,
        INTERMEDIATE_VALUES.c.intermediate_value,
        sa.cast(INTERMEDIATE_VALUES.c.intermediate_value_type, sa.Text),
        is_listed=is_listed,
    )
    attributes = [
        _select_part(
            part,
            table,
            nowhere,
            table.c.key,
            _NO_NUMBER,
            table.c.value_json,
            is_listed=is_listed,
        )
        for part, table in (
            (_Part.USER_ATTRIBUTE, USER_ATTRIBUTES),
            (_Part.SYSTEM_ATTRIBUTE, SYSTEM_ATTRIBUTES),
        )
    ]
    union = sa.union_all(params, values, reports, *attributes)
    return union.order_by("part", "trial_id", "position", "name")


_SELECT_PARTS_OF_LISTED = _select_parts(is_listed=True)
_SELECT_PARTS_BETWEEN = _select_parts(is_listed=False)


class _Parts:
    """What belongs to one trial."""

    __slots__ = (
        "distributions",
        "params",
        "reports",
        "system_attributes",
        "user_attributes",
        "values",
    )

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        self.values: list[float] | None = None
        self.reports: dict[int, float] = {}
        self.user_attributes: dict[str, Any] = {}
        self.system_attributes: dict[str, Any] = {}

    def add(
        self,
        part: int,
        position: int,
        name: str,
        number: float | None,
        text: str,
    ) -> None:
        """Take over a row."""
        if part == _Part.PARAM:
            assert number is not None
            distribution = _parse_distribution(text)
            self.distributions[name] = distribution
            self.params[name] = distribution.to_external_repr(number)
        elif part == _Part.VALUE:
            self.values = [*(self.values or []), _read_number(number, text)]
        elif part == _Part.REPORT:
            self.reports[position] = _read_number(number, text)
        elif part == _Part.USER_ATTRIBUTE:
            self.user_attributes[name] = json.loads(text)
        else:
            self.system_attributes[name] = json.loads(text)


@functools.lru_cache(maxsize=4096)
def _parse_distribution(text: str) -> BaseDistribution:
    """A distribution; trials share it, for nothing changes one."""
    return json_to_distribution(text)


_NUMBERS_BY_TYPE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}


def _read_number(number: float | None, number_type: str) -> float:
    """A value as Optuna keeps it: what a database has no number for is a type without one."""
    if number is None or number_type != "FINITE":
        return _NUMBERS_BY_TYPE[number_type]
    return number


def read_trials(
    connection: Connection,
    rows: Sequence[TrialRow],
) -> list[FrozenTrial]:
    """The trials of these rows, which are in the order of ids."""
    if not rows:
        return []
    parts = {row.trial_id: _Parts() for row in rows}
    if len(rows) <= _LISTED_TRIALS:
        found = connection.execute(_SELECT_PARTS_OF_LISTED, {"trial_ids": list(parts)})
    else:
        bounds = {"first_id": rows[0].trial_id, "last_id": rows[-1].trial_id}
        found = connection.execute(_SELECT_PARTS_BETWEEN, bounds)
    for part, trial_id, *rest in found:
        of_trial = parts.get(trial_id)
        if of_trial is not None:
            of_trial.add(part, *rest)
    return list(itertools.starmap(_make_trial, zip(rows, parts.values(), strict=True)))


def _make_trial(row: TrialRow, parts: _Parts) -> FrozenTrial:
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        values=parts.values,
        datetime_start=row.started,
        datetime_complete=row.ended,
        params=parts.params,
        distributions=parts.distributions,
        user_attrs=parts.user_attributes,
        system_attrs=parts.system_attributes,
        intermediate_values=parts.reports,
        trial_id=row.trial_id,
    )
