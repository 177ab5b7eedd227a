"""What a claim needs to know of a study's trials, without reading all of them again.

Optuna's storage keeps the trials that are finished in memory and reads the others anew. :class:`TrialIndex` looks at
those alone that can have changed since; the functions ask the database for a handful of rows. None of them costs more
for the ten-thousandth trial than for the tenth, but for one sort or one scan of an index in C.
"""

from __future__ import annotations

import copy
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from optuna.distributions import check_distribution_compatibility, distribution_to_json
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import TrialState

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy.engine import Connection

_TRIALS = sa.table("trials", *map(sa.column, ("trial_id", "number", "study_id", "state")))
_VALUES = sa.table("trial_values", *map(sa.column, ("trial_id", "objective", "value", "value_type")))
_PARAMS = sa.table("trial_params", *map(sa.column, ("trial_id", "param_name", "param_value", "distribution_json")))
_ATTRIBUTES = sa.table("trial_user_attributes", *map(sa.column, ("trial_id", "key", "value_json")))


_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def _label(name: str) -> sa.ColumnElement[Any]:
    """A value of one of Optuna's enums: a literal, because PostgreSQL compares no enum with a string."""
    return sa.literal_column(f"'{name}'")


def params_key(params: dict[str, Any]) -> str:
    """The same for the same parameters (as Optuna stores them), and for no others: 1, 1.0 and True differ."""
    return json.dumps(params, sort_keys=True)


class TrialCache(_CachedStorage):
    """Optuna's cache of the trials, which does not sort them anew each time, and can do without reading again."""

    def __init__(self, backend: RDBStorage) -> None:
        """Nothing is cached yet."""
        super().__init__(backend)
        self._held_by: int | None = None
        self._made: FrozenTrial | None = None  # since all is still
        self._unwritten: list[dict[str, Any]] = []

    @contextmanager
    def still(self) -> Iterator[None]:
        """For this thread nothing changes meanwhile: it has read the trials under the lock that it holds.

        What is suggested for them is kept for :meth:`write_params`.
        """
        self._held_by, self._unwritten = threading.get_ident(), []
        try:
            yield
        finally:
            self._held_by = self._made = None

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._held_by != threading.get_ident():
            super()._read_trials_from_remote_storage(study_id)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Make a trial."""
        trial_id = super().create_new_trial(study_id, template_trial)
        if self._held_by == threading.get_ident():
            number = self._trial_id_to_study_id_and_number[trial_id][1]
            self._made = self._studies[study_id].trials[number]
        return trial_id

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial; one that was just made is as it was made, which would be six questions to the database."""
        made = self._made
        if made is not None and made._trial_id == trial_id and self._held_by == threading.get_ident():
            return copy.deepcopy(made)
        return super().get_trial(trial_id)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Write a parameter; later, where it is known to be of the right kind."""
        with self._lock:
            study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
            known = self._studies[study_id].param_distribution.get(param_name)
        if self._held_by != threading.get_ident() or known is None:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            return
        check_distribution_compatibility(known, distribution)
        row = (trial_id, param_name, param_value_internal, distribution_to_json(distribution))
        self._unwritten.append(dict(zip(_PARAMS.c.keys(), row, strict=True)))

    def write_params(self, connection: Connection) -> None:
        """Write what was suggested while all was still: Optuna asks twice for each parameter."""
        if self._unwritten:
            connection.execute(sa.insert(_PARAMS), self._unwritten)
            self._unwritten = []

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials by number. The numbers are dense: Optuna counts a study's trials to give one."""
        if deepcopy:
            return super().get_all_trials(study_id, deepcopy, states)
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            trials = self._studies[study_id].trials
            some: Iterable[FrozenTrial]
            if states is not None and not any(state in states for state in _FINISHED):
                ids = sorted(self._studies[study_id].unfinished_trial_ids)
                some = (trials[self._trial_id_to_study_id_and_number[each][1]] for each in ids)
            else:
                some = map(trials.__getitem__, range(len(trials)))
            return [trial for trial in some if states is None or trial.state in states]


class TrialIndex:
    """Which trials are open, and which parameters have been tried.

    It relies on two promises of Optuna: numbers are dense from 0, and a finished trial never changes.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.trials: Sequence[FrozenTrial] = ()
        self._open: set[int] = set()
        self._tried: dict[str, int] = {}

    @property
    def seen(self) -> int:
        """Number of trials at the last update: the next one's number."""
        return len(self.trials)

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Take over what changed; `trials` are all of the study, by number."""
        for number in sorted(self._open.union(range(self.seen, len(trials)))):
            trial = trials[number]
            if not trial.state.is_finished():
                self._open.add(number)
                continue
            self._open.discard(number)
            if trial.state is not TrialState.FAIL:
                key = params_key(trial.params)
                self._tried[key] = min(number, self._tried.get(key, number))
        self.trials = trials

    def open(self, state: TrialState) -> list[FrozenTrial]:
        """The trials that are RUNNING, or WAITING, by number."""
        return [self.trials[number] for number in sorted(self._open) if self.trials[number].state is state]

    def tried(self, key: str) -> int | None:
        """The first trial that was completed or pruned with the parameters of this :func:`params_key`."""
        return self._tried.get(key)


def counts(connection: Connection, study_id: int) -> dict[TrialState, int]:
    """How many trials are in each state."""
    query = sa.select(_TRIALS.c.state, sa.func.count()).where(_TRIALS.c.study_id == study_id).group_by(_TRIALS.c.state)
    return {TrialState[state]: count for state, count in connection.execute(query)}


def best_id(connection: Connection, study_id: int, direction: str) -> int | None:
    """Optuna's id of the best complete trial by the first objective, the earliest of several; None without one.

    Args:
        connection: To the storage.
        study_id: Optuna's id of the study.
        direction: ``maximize`` or ``minimize``.
    """
    query = (
        sa.select(_TRIALS.c.trial_id)
        .join(_VALUES, sa.and_(_VALUES.c.trial_id == _TRIALS.c.trial_id, _VALUES.c.objective == 0))
        .where(_TRIALS.c.study_id == study_id, _TRIALS.c.state == _label("COMPLETE"))
        .order_by(*_by_value(direction), _TRIALS.c.number)
        .limit(1)
    )
    return connection.execute(query).scalar()


def best_numbers(connection: Connection, study_id: int, direction: str, count: int, without: str) -> list[int]:
    """Numbers of the `count` best complete trials by the first objective, best first.

    Args:
        connection: To the storage.
        study_id: Optuna's id of the study.
        direction: ``maximize`` or ``minimize``.
        count: How many.
        without: Trials that have this user attribute are left out.
    """
    other = sa.exists().where(_ATTRIBUTES.c.trial_id == _TRIALS.c.trial_id, _ATTRIBUTES.c.key == without)
    query = (
        sa.select(_TRIALS.c.number)
        .join(_VALUES, sa.and_(_VALUES.c.trial_id == _TRIALS.c.trial_id, _VALUES.c.objective == 0))
        .where(_TRIALS.c.study_id == study_id, _TRIALS.c.state == _label("COMPLETE"), ~other)
        .order_by(*_by_value(direction), _TRIALS.c.number)
        .limit(count)
    )
    return list(connection.execute(query).scalars())


def _by_value(direction: str) -> list[Any]:
    value, kind = _VALUES.c.value, _VALUES.c.value_type
    rank = sa.case((kind == _label("INF_POS"), 1), (kind == _label("INF_NEG"), -1), else_=0)
    return [rank.desc(), value.desc()] if direction == "maximize" else [rank, value]


def running(connection: Connection, study_id: int) -> set[int]:
    """Numbers of the running trials."""
    query = sa.select(_TRIALS.c.number).where(_TRIALS.c.study_id == study_id, _TRIALS.c.state == _label("RUNNING"))
    return set(connection.execute(query).scalars())


def running_with(connection: Connection, study_id: int, attribute: str, value: Any) -> list[int]:
    """Numbers of the running trials whose user attribute has this value."""
    query = (
        sa.select(_TRIALS.c.number)
        .join(_ATTRIBUTES, sa.and_(_ATTRIBUTES.c.trial_id == _TRIALS.c.trial_id, _ATTRIBUTES.c.key == attribute))
        .where(_TRIALS.c.study_id == study_id, _TRIALS.c.state == _label("RUNNING"))
        .where(_ATTRIBUTES.c.value_json == json.dumps(value))
        .order_by(_TRIALS.c.number)
    )
    return list(connection.execute(query).scalars())
