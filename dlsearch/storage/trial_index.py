"""What a claim needs to know of a study's trials, without reading all of them again.

Optuna's storage keeps finished trials in memory and reads the others each time. :class:`TrialIndex`
looks at those alone that can have changed since; the functions ask the database for a handful of
rows. None of them costs more for the ten-thousandth trial than for the tenth, except for one sort
or one scan of an index in C.

With a version of Optuna that is not compared, the functions ask Optuna for all trials.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from dlsearch.core.versions import is_compared

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy.engine import Connection

    from dlsearch.storage.database import Storage
    from dlsearch.storage.optuna_cache import TrialCache


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial keeps to its constraints (Optuna's ``Trial.set_constraint``), if any."""
    return all(value <= 0 for value in trial.constraints.values())


def params_key(params: Mapping[str, Any]) -> str:
    """A text for parameters as Optuna stores them; other parameters have another text.

    1, 1.0 and True differ.
    """
    return json.dumps(params, sort_keys=True)


class TrialIndex:
    """Which trials are open, and which parameters have been tried.

    It relies on two promises of Optuna: numbers are dense from 0, and a finished trial never
    changes.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.trials: Sequence[FrozenTrial] = ()
        self._open_numbers: set[int] = set()
        #: The first trial with these parameters, by :func:`params_key`.
        self._first_with: dict[str, int] = {}

    @property
    def seen(self) -> int:
        """Number of trials at the last update: the next one's number."""
        return len(self.trials)

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Take over what changed; `trials` are all of the study, by number."""
        new_numbers = range(self.seen, len(trials))
        for number in sorted(self._open_numbers.union(new_numbers)):
            trial = trials[number]
            if trial.state.is_finished():
                self._open_numbers.discard(number)
                self._note_params(trial)
            else:
                self._open_numbers.add(number)
        self.trials = trials

    def _note_params(self, trial: FrozenTrial) -> None:
        """Note the parameters of a finished trial, unless it failed."""
        if trial.state is TrialState.FAIL:
            return
        key = params_key(trial.params)
        earlier = self._first_with.get(key, trial.number)
        self._first_with[key] = min(trial.number, earlier)

    def open(self, state: TrialState) -> list[FrozenTrial]:
        """The trials that are RUNNING, or WAITING, by number."""
        found = []
        for number in sorted(self._open_numbers):
            trial = self.trials[number]
            if trial.state is state:
                found.append(trial)
        return found

    def unproposed(self) -> list[int]:
        """Numbers of the open trials whose parameters are not known."""
        return [number for number in sorted(self._open_numbers) if not self.trials[number].params]

    def has_any_with(self, key: str) -> bool:
        """Whether some trial that did not fail has the parameters of this key.

        Args:
            key: Of :func:`params_key`.
        """
        if key in self._first_with:
            return True
        opened = (self.trials[number].params for number in self._open_numbers)
        return any(params_key(params) == key for params in opened)

    def tried(self, key: str) -> int | None:
        """The first trial that was completed or pruned with the parameters of this key.

        Args:
            key: Of :func:`params_key`.
        """
        return self._first_with.get(key)


# -- questions to the database ---------------------------------------------------------------------
def counts(storage: Storage, study_id: int) -> dict[TrialState, int]:
    """How many trials are in each state."""
    if is_compared("optuna"):
        from dlsearch.storage.optuna_tables import count_states

        with storage.begin() as connection:
            return count_states(connection, study_id)
    states = [trial.state for trial in _all_trials(storage, study_id)]
    return dict(Counter(states))


def best_numbers(
    storage: Storage,
    study_id: int,
    direction: str,
    count: int | None,
    without: str | None = None,
) -> list[int]:
    """Numbers of the best complete and feasible trials by the first objective, best first.

    Ties are in the order of numbers.

    Args:
        storage: The open storage.
        study_id: Optuna's id of the study.
        direction: ``maximize`` or ``minimize``.
        count: How many; None for all.
        without: Trials that have this user attribute are left out.
    """
    if is_compared("optuna"):
        from dlsearch.storage.optuna_tables import rank_numbers

        with storage.begin() as connection:
            ranked = rank_numbers(connection, study_id, direction, without)
            return list(itertools.islice(ranked, count))

    sign = -1 if direction == "maximize" else 1
    ranking = []
    for trial in _all_trials(storage, study_id):
        is_complete = trial.state is TrialState.COMPLETE
        if is_complete and is_feasible(trial) and without not in trial.user_attrs:
            ranking.append((sign * trial.values[0], trial.number))
    ranking.sort()
    return [number for _, number in ranking[:count]]


def end_directly(
    storage: Storage,
    trial_id: int,
    state: TrialState,
    values: Sequence[float] | None,
    objectives: int,
) -> bool:
    """End a complete or pruned trial without Optuna; False where Optuna must do it.

    Args:
        storage: The open storage.
        trial_id: Optuna's id of the trial.
        state: COMPLETE or PRUNED.
        values: Of a complete trial.
        objectives: How many values a trial has.
    """
    if not is_compared("optuna"):
        return False
    from dlsearch.storage.trial_writing import end_trial

    with storage.begin() as connection:
        return end_trial(connection, trial_id, state, values, objectives)


def begin_directly(storage: Storage, study: optuna.Study, study_id: int) -> int:
    """Make a new trial that runs, without Optuna, whose version is compared; returns its number.

    Args:
        storage: The open storage.
        study: Optuna's study.
        study_id: Optuna's id of it.
    """
    assert is_compared("optuna")
    from dlsearch.storage.optuna_cache import forget_trials_of_ask
    from dlsearch.storage.trial_writing import begin_trial

    forget_trials_of_ask(study)
    with storage.begin() as connection:
        return begin_trial(connection, study_id)


def may_be_tried(
    storage: Storage,
    own_id: int,
    newest_id: int,
    trial_ids: Sequence[int],
    params: Mapping[str, float],
) -> bool:
    """Whether a trial that was not read, or was read without parameters, may have these.

    Args:
        storage: The open storage.
        own_id: Optuna's id of the trial that has them.
        newest_id: Optuna's id of the newest trial that was read.
        trial_ids: Of the trials that had no parameters then.
        params: Internal representations by name.
    """
    if not params or not is_compared("optuna"):
        return True
    from dlsearch.storage.trial_writing import is_any_like

    with storage.begin() as connection:
        return is_any_like(connection, own_id, newest_id, trial_ids, params)


def running_with(
    storage: Storage,
    study_id: int,
    attribute: str,
    value: Any,
) -> list[int]:
    """Numbers of the running trials whose user attribute has this value."""
    if is_compared("optuna"):
        from dlsearch.storage.optuna_tables import select_running

        with storage.begin() as connection:
            return select_running(connection, study_id, attribute, value)
    numbers = []
    for trial in _all_trials(storage, study_id):
        is_running = trial.state is TrialState.RUNNING
        if is_running and trial.user_attrs.get(attribute) == value:
            numbers.append(trial.number)
    return numbers


def _all_trials(storage: Storage, study_id: int) -> list[FrozenTrial]:
    return storage.optuna.get_all_trials(study_id, deepcopy=False)


# -- the cache of trials ---------------------------------------------------------------------------
def open_cache(rdb: RDBStorage) -> TrialCache:
    """A cache of the trials over Optuna's storage.

    It is ours, or Optuna's own where the version is not compared. Optuna's own gets the two methods
    that a claim calls on ours: it reads trials each time, and keeps nothing back.
    """
    if is_compared("optuna"):
        from dlsearch.storage.optuna_cache import TrialCache

        return TrialCache(rdb)
    own: Any = optuna.storages.get_storage(rdb)
    methods = {"still": _change_as_ever, "write_params": _write_nothing}
    own.__class__ = type("PlainCache", (type(own),), methods)
    return own


@contextmanager
def _change_as_ever(_cache: Any) -> Iterator[None]:
    """In the place of :meth:`TrialCache.still`."""
    yield


def _write_nothing(_cache: Any, _connection: Connection) -> None:
    """In the place of :meth:`TrialCache.write_params`: all has been written."""
