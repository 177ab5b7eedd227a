"""Optuna's storage with less to ask of the database: all of it works on names private to Optuna.

Each module imports this only after :func:`dlsearch.core.versions.is_compared` has confirmed the
version of Optuna; with another version, Optuna's own classes do the same.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.distributions import check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb.models import StudyModel, TrialModel
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState
from sqlalchemy.orm import scoped_session, sessionmaker

from dlsearch.storage.optuna_tables import SYSTEM_ATTRIBUTES, USER_ATTRIBUTES
from dlsearch.storage.trial_reading import read_trials, select_changed, select_listed
from dlsearch.storage.trial_writing import AttributeRow, insert_params, write_attribute

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial
    from sqlalchemy.engine import Connection, Engine

#: The attribute of a storage in which a sampler keeps what it knows of the storage's studies: see
#: :mod:`dlsearch.sampling.fast_tpe.sampler`.
HISTORIES = "_dlsearch_tpe_histories"
_FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


# -- opening ---------------------------------------------------------------------------------------
class UncheckedStorage(RDBStorage):
    """Optuna's storage over tables that are known to be up to date.

    It asks the database for nothing when it is opened, and imports no Alembic.

    Args:
        url: The database.
        engine: Connections to it.
    """

    def __init__(self, url: str, engine: Engine) -> None:
        """Set what Optuna's own constructor sets, without its look at the tables."""
        self.url = url
        self.engine = engine
        self.engine_kwargs = {}
        self.skip_compatibility_check = True
        self.heartbeat_interval = None
        self.grace_period = None
        self.heartbeat_stale_trial_callback = None
        self.failed_trial_callback = None
        self.scoped_session = scoped_session(sessionmaker(bind=engine))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process has connections of its own."""
        from dlsearch.storage.schema import open_tables

        return open_tables, (self.url,)


def join_transaction(rdb: RDBStorage, connection: Connection) -> None:
    """Let Optuna write in the transaction of `connection`, in this thread.

    That lasts until ``rdb.remove_session()``.
    """
    rdb.remove_session()
    rdb.scoped_session(bind=connection, join_transaction_mode="rollback_only")


def read_all_trials(study: Study) -> list[FrozenTrial]:
    """All trials of a study, also where Hyperband shows those of one bracket."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def forget_trials_of_ask(study: Study) -> None:
    """Let the next proposal go by the trials as they are now.

    A study keeps those of the last ask, until the next one.
    """
    study._thread_local.cached_all_trials = None


# -- the cache -------------------------------------------------------------------------------------
class _UnwrittenParam(NamedTuple):
    """A suggested parameter that is not in the database yet."""

    trial_id: int
    name: str
    internal_value: float
    distribution: BaseDistribution


class TrialCache(_CachedStorage):
    """Optuna's cache of the trials, which need not sort or read them again each time."""

    def __init__(self, backend: RDBStorage) -> None:
        """Nothing is cached yet."""
        super().__init__(backend)
        #: The thread for which all is still.
        self._still_thread: int | None = None
        #: The trial that is being proposed.
        self._proposed: FrozenTrial | None = None
        self._unwritten_params: list[_UnwrittenParam] = []
        self._unwritten_attributes: list[AttributeRow] = []
        #: The largest id of each study's trials that were read.
        self._newest_ids: dict[int, int] = {}
        #: Each study's trials by number, as far as they are known without a gap.
        self._lists: dict[int, list[FrozenTrial]] = {}

    def __getstate__(self) -> dict[Any, Any]:
        """A copy has cached nothing, and holds no lock."""
        return {"backend": self._backend}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__init__(state["backend"])  # type: ignore[misc]

    def delete_study(self, study_id: int) -> None:
        """Delete a study, with what samplers know of it: SQLite gives its id to the next one."""
        super().delete_study(study_id)
        histories = vars(self).get(HISTORIES, {})
        histories.pop(study_id, None)
        self._newest_ids.pop(study_id, None)
        self._lists.pop(study_id, None)

    # -- proposing from a snapshot -----------------------------------------------------------------
    @contextmanager
    def still(self) -> Iterator[None]:
        """Meanwhile nothing changes for this thread: it has read the trials, and uses what it read.

        What is suggested for a trial, and noted of it, is kept for :meth:`write_params`.
        """
        self._still_thread = threading.get_ident()
        self._forget_unwritten()
        try:
            yield
        finally:
            self._still_thread = None

    def write_params(self, connection: Connection) -> None:
        """Write what was suggested and noted while all was still.

        Optuna would ask the database twice for each parameter.
        """
        rows = []
        for param in self._unwritten_params:
            if self._find_distribution(param.trial_id, param.name) is None:
                # The first of this name: Optuna compares its distribution with others'.
                super().set_trial_param(*param)
                continue
            row = {
                "trial_id": param.trial_id,
                "param_name": param.name,
                "param_value": param.internal_value,
                "distribution_json": distribution_to_json(param.distribution),
            }
            rows.append(row)
        if rows:
            insert_params(connection, rows)
        for attribute in self._unwritten_attributes:
            write_attribute(connection, attribute)
        self._forget_unwritten()

    def _forget_unwritten(self) -> None:
        self._unwritten_params = []
        self._unwritten_attributes = []

    def _is_still(self) -> bool:
        """Whether all is still for this thread."""
        return self._still_thread == threading.get_ident()

    def _is_proposed_here(self, trial_id: int) -> bool:
        """Whether a trial is the one that this thread proposes."""
        if not self._is_still() or self._proposed is None:
            return False
        return self._proposed._trial_id == trial_id

    def _find_distribution(self, trial_id: int, param_name: str) -> BaseDistribution | None:
        """The distribution of other trials' parameters of this name, where it was seen before."""
        with self._lock:
            study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
            return self._studies[study_id].param_distribution.get(param_name)

    # -- Optuna's interface ------------------------------------------------------------------------
    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        """Read the trials that may have changed: those that were open, and newer ones."""
        if self._is_still():
            return
        with self._lock:
            known = self._studies.setdefault(study_id, _StudyInfo())
            trials = self._read_changed_trials(study_id, known.unfinished_trial_ids)
            if not trials:
                return
            self._add_trials_to_cache(study_id, trials)
            for trial in trials:
                if trial.state.is_finished():
                    known.unfinished_trial_ids.discard(trial._trial_id)
                else:
                    known.unfinished_trial_ids.add(trial._trial_id)
            self._newest_ids[study_id] = max(self._newest_id(study_id), trials[-1]._trial_id)

    def _read_changed_trials(self, study_id: int, open_ids: set[int]) -> list[FrozenTrial]:
        with _create_scoped_session(self._backend.scoped_session) as session:
            connection = session.connection()
            rows = select_changed(connection, study_id, self._newest_id(study_id), open_ids)
            if not rows:
                # There may be no such study (any more): that is an error.
                StudyModel.find_or_raise_by_id(study_id, session)
            return read_trials(connection, rows)

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        super()._add_trials_to_cache(study_id, trials)
        listed = self._lists.setdefault(study_id, [])
        known = self._studies[study_id].trials
        for trial in trials:
            if trial.number < len(listed):
                listed[trial.number] = trial
        while len(listed) in known:
            listed.append(known[len(listed)])

    def _newest_id(self, study_id: int) -> int:
        """The largest id of a study's trials that were read."""
        return self._newest_ids.get(study_id, -1)

    def create_new_trial(
        self,
        study_id: int,
        template_trial: FrozenTrial | None = None,
    ) -> int:
        """Make a trial."""
        trial_id = super().create_new_trial(study_id, template_trial)
        if self._is_still():
            _, number = self._trial_id_to_study_id_and_number[trial_id]
            trial = self._studies[study_id].trials[number]
            self._proposed = copy.deepcopy(trial)
        return trial_id

    def set_trial_state_values(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float] | None = None,
    ) -> bool:
        """Set a trial's state; what was known of it before is read again."""
        if self._proposed is not None and self._proposed._trial_id == trial_id:
            self._proposed = None
        return super().set_trial_state_values(trial_id, state, values)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial; the one that is being proposed is as it was read first.

        To read it again would be six queries each time.
        """
        if not self._is_still():
            return self._read_trial(trial_id)
        if self._proposed is None or self._proposed._trial_id != trial_id:
            self._proposed = self._find_running(trial_id) or self._read_trial(trial_id)
        return copy.deepcopy(self._proposed)

    def _find_running(self, trial_id: int) -> FrozenTrial | None:
        """A trial that was running when the trials were read; its parts are copied."""
        with self._lock:
            if trial_id not in self._trial_id_to_study_id_and_number:
                return None
            study_id, number = self._trial_id_to_study_id_and_number[trial_id]
            trial = self._studies[study_id].trials[number]
        if trial.state is not TrialState.RUNNING:
            return None  # it has been taken since
        return copy.deepcopy(trial)

    def _read_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            known = self._get_cached_trial(trial_id)
        if known is not None:
            return known
        with _create_scoped_session(self._backend.scoped_session) as session:
            connection = session.connection()
            trials = read_trials(connection, select_listed(connection, [trial_id]))
            if not trials:
                TrialModel.find_or_raise_by_id(trial_id, session)
        return trials[0]

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Write a parameter; later, while all is still."""
        if not self._is_still():
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            return
        known = self._find_distribution(trial_id, param_name)
        if known is not None:
            check_distribution_compatibility(known, distribution)
        param = _UnwrittenParam(trial_id, param_name, param_value_internal, distribution)
        self._unwritten_params.append(param)

    def set_trial_system_attr(
        self,
        trial_id: int,
        key: str,
        value: Any,
    ) -> None:
        """Note what a sampler wants to find again; later, while all is still."""
        if not self._is_proposed_here(trial_id):
            super().set_trial_system_attr(trial_id, key, value)
            return
        assert self._proposed is not None
        self._proposed.system_attrs[key] = value
        attribute = AttributeRow(SYSTEM_ATTRIBUTES, trial_id, key, value)
        self._unwritten_attributes.append(attribute)

    def set_trial_user_attr(
        self,
        trial_id: int,
        key: str,
        value: Any,
    ) -> None:
        """Note what a user wants to find again; later, while all is still."""
        if not self._is_proposed_here(trial_id):
            super().set_trial_user_attr(trial_id, key, value)
            return
        assert self._proposed is not None
        self._proposed.user_attrs[key] = value
        attribute = AttributeRow(USER_ATTRIBUTES, trial_id, key, value)
        self._unwritten_attributes.append(attribute)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """All trials by number.

        The numbers are dense: Optuna counts a study's trials to give one.
        """
        if deepcopy:
            return super().get_all_trials(study_id, deepcopy, states)
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            study = self._studies[study_id]
            if states is None:
                # A copy of a list: this is asked for at every claim, and there may be thousands.
                return self._lists.get(study_id, [])[:]
            numbers: Sequence[int] = range(len(study.trials))
            if not any(state in states for state in _FINISHED_STATES):
                trial_ids = sorted(study.unfinished_trial_ids)
                numbers = [self._trial_id_to_study_id_and_number[each][1] for each in trial_ids]
            trials = [study.trials[number] for number in numbers]
            return [trial for trial in trials if trial.state in states]
