"""The study of a record in memory, shown to a sampler or a pruner as somebody saw it once."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from dlsearch.core.errors import ConfigError
from dlsearch.core.types import JsonObject
from dlsearch.sampling.arm_study import ArmStudy
from dlsearch.sampling.arms import Arms
from dlsearch.space.space import Space
from dlsearch.study.states import RecordedTrialState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from dlsearch.core.types import Params
    from dlsearch.study.seen import SeenTrials
    from dlsearch.verification.report_file import ReplayRow, ReportedStudy

_FINISHED_STATES: dict[str, TrialState] = {
    RecordedTrialState.COMPLETE: TrialState.COMPLETE,
    RecordedTrialState.PRUNED: TrialState.PRUNED,
    RecordedTrialState.FAILED: TrialState.FAIL,
}
#: Optuna wants a moment when a trial began; nothing goes by it.
_SOME_TIME = datetime(2000, 1, 1, tzinfo=UTC)
#: System attribute of a trial that was enqueued: the parameters that are given.
_FIXED_PARAMS = "fixed_params"

#: Attributes of Optuna's trials by name: JSON whose shape samplers and pruners decide.
Attributes: TypeAlias = JsonObject


@dataclass
class _Asked:
    """What is suggested for, and noted of, a trial that is being asked for."""

    trial: FrozenTrial
    params: Params
    distributions: dict[str, BaseDistribution]


@dataclass(frozen=True)
class Proposal:
    """What a sampler proposed for a trial.

    Args:
        params: Searched values, decoded.
        suggested: The same as Optuna stores them.
        distributions: Of each.
        system_attrs: What the sampler noted for later asks.
        user_attrs: What a function of the trial noted.
    """

    params: Params
    suggested: Params
    distributions: dict[str, BaseDistribution]
    system_attrs: Attributes
    user_attrs: Attributes


class RecordedStorage(InMemoryStorage):
    """Holds one study, whose trials are those that were shown last. A trial's id is its number.

    What is written to the trial that is asked for or judged is kept apart, as in a search, where
    nobody sees it before it is written.

    Args:
        name: The study's name.
        directions: The study's directions.
    """

    def __init__(self, name: str, directions: Sequence[str]) -> None:
        """Show no trial yet."""
        super().__init__()
        known_directions = [StudyDirection[each.upper()] for each in directions]
        self.create_new_study(known_directions, name)
        self._shown: Sequence[FrozenTrial] = ()
        self._asked: _Asked | None = None

    def show(self, trials: Sequence[FrozenTrial], own: FrozenTrial) -> _Asked:
        """Show these trials, and let one of them be asked for or judged.

        Args:
            trials: By number.
            own: The one that is asked for or judged; its attributes are changed.

        Returns:
            What will be written to it.
        """
        self._shown = trials
        self._asked = _Asked(own, {}, {})
        return self._asked

    def _own(self, trial_id: int) -> _Asked:
        asked = self._asked
        assert asked is not None
        assert asked.trial.number == trial_id, "nothing is written to another trial"
        return asked

    # -- Optuna's interface ------------------------------------------------------------------------
    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials that are shown."""
        found = list(self._shown)
        if states is not None:
            found = [trial for trial in found if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_n_trials(
        self,
        study_id: int,
        state: tuple[TrialState, ...] | TrialState | None = None,
    ) -> int:
        """How many trials are shown."""
        return BaseStorage.get_n_trials(self, study_id, state)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The best trial of those that are shown."""
        return BaseStorage.get_best_trial(self, study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial that is shown, or a copy of the one that is asked for."""
        if self._asked is not None and self._asked.trial.number == trial_id:
            return copy.deepcopy(self._asked.trial)
        return self._shown[trial_id]

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """A trial's number is its id."""
        return trial_id

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """A trial's id is its number."""
        return trial_number

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Keep what was suggested."""
        own = self._own(trial_id)
        own.params[param_name] = distribution.to_external_repr(param_value_internal)
        own.distributions[param_name] = distribution

    def set_trial_system_attr(
        self,
        trial_id: int,
        key: str,
        value: Any,
    ) -> None:
        """Keep what a sampler or a pruner wants to find again."""
        own = self._own(trial_id).trial
        own.system_attrs = {**own.system_attrs, key: value}

    def set_trial_user_attr(
        self,
        trial_id: int,
        key: str,
        value: Any,
    ) -> None:
        """Keep what a function of the trial noted."""
        own = self._own(trial_id).trial
        own.user_attrs = {**own.user_attrs, key: value}


class RecordedStudy:
    """The trials of a record, as Optuna has them.

    Args:
        study: The study as reported.
        rows: Its trials, by number.
    """

    def __init__(self, study: ReportedStudy, rows: Sequence[ReplayRow]) -> None:
        """Rebuild the trials that have ended."""
        self.rows = rows
        self.name = study["name"]
        self.space = Space.from_json(study["space"])
        self._config = study["config"]
        self._arms = Arms.of_study(self.space, self._config["study"])
        #: Of a comparison, the pruner of each arm, which keeps what it has measured.
        self._arm_pruners: dict[int, BasePruner] = {}
        self._storage = RecordedStorage(self.name, study["directions"])
        self._base = [self._rebuild(row) for row in rows]
        #: Numbers of the trials that had not ended when the record was read.
        self._unfinished: set[int] = set()
        for trial in self._base:
            if not trial.state.is_finished():
                self._unfinished.add(trial.number)

    # -- asking ------------------------------------------------------------------------------------
    def open_arm(
        self,
        number: int,
        pruner: BasePruner | None,
    ) -> ArmStudy | None:
        """The arm of a trial, of which nothing is read yet; None where nothing is compared.

        Args:
            number: The trial's.
            pruner: As the study's was made; each arm keeps a copy of its own.
        """
        if self._arms is None:
            return None
        place = self._arms.place_of(number)
        if place not in self._arm_pruners:
            self._arm_pruners[place] = copy.deepcopy(pruner or NopPruner())
        return ArmStudy(self._storage, self.name, self._arms, place, self._arm_pruners[place])

    def propose(
        self,
        number: int,
        trials: Sequence[FrozenTrial],
        sampler: BaseSampler,
        pruner: BasePruner | None = None,
    ) -> Proposal:
        """Ask a sampler for a trial.

        Args:
            number: The trial's.
            trials: What it sees.
            sampler: A new one.
            pruner: The study's, by which Optuna may show the sampler fewer trials.
        """
        own = _make_trial(number, TrialState.RUNNING)
        own.system_attrs = self._fixed_params_of(number)
        return self._suggest(own, trials, sampler, pruner)

    def _suggest(
        self,
        own: FrozenTrial,
        trials: Sequence[FrozenTrial],
        sampler: BaseSampler,
        pruner: BasePruner | None,
    ) -> Proposal:
        asked = self._storage.show(trials, own)
        study = self._open(sampler, pruner)
        with warnings.catch_warnings():
            # A value that somebody wrote into the record may lie outside of its range.
            warnings.simplefilter("ignore", UserWarning)
            params = self.space.suggest(optuna.Trial(study, own.number), self._config)
        return Proposal(
            params,
            asked.params,
            asked.distributions,
            own.system_attrs,
            own.user_attrs,
        )

    def judge(
        self,
        own: FrozenTrial,
        trials: Sequence[FrozenTrial],
        pruner: BasePruner,
    ) -> bool:
        """Ask a pruner whether to stop a trial.

        Args:
            own: The trial with what it has reported; what the pruner notes is added to it.
            trials: What the pruner sees.
            pruner: The pruner; of a comparison, what that of each arm is copied from.
        """
        self._storage.show(trials, own)
        arm = self.open_arm(own.number, pruner)
        if arm is not None:
            return arm.prune(self._storage.get_trial(own.number))
        study = self._open(RandomSampler(seed=0), pruner)
        return bool(pruner.prune(study, self._storage.get_trial(own.number)))

    def _open(self, sampler: BaseSampler, pruner: BasePruner | None) -> optuna.Study:
        """A handle of the study: it has read no trials yet."""
        return optuna.load_study(
            study_name=self.name,
            storage=self._storage,
            sampler=sampler,
            pruner=pruner or NopPruner(),
        )

    # -- trials as they were -----------------------------------------------------------------------
    def see(self, seen: SeenTrials) -> list[FrozenTrial]:
        """The trials as they were seen, by number.

        Raises:
            ValueError: A trial counts as ended that the record does not have as ended.
        """
        self._check_ended(seen)
        trials = self._base[: seen.count]
        for number in seen.running:
            last_step = seen.steps.get(number)
            trials[number] = self.with_params(number, TrialState.RUNNING, last_step)
        for number in seen.released:
            last_step = seen.steps.get(number)
            trials[number] = self.with_params(number, TrialState.WAITING, last_step)
        for number in seen.proposing:
            trials[number] = self._without_params(number, TrialState.RUNNING)
        for number in seen.waiting:
            trials[number] = self._without_params(number, TrialState.WAITING)
        return trials

    def _check_ended(self, seen: SeenTrials) -> None:
        """Check that what counts as ended has ended in the record.

        Raises:
            ValueError: It has not.
        """
        open_numbers = seen.open_numbers
        for number in sorted(self._unfinished):
            if number < seen.count and number not in open_numbers:
                raise ValueError(f"trial {number} counts as ended, and has not ended")

    def with_params(
        self,
        number: int,
        state: TrialState,
        last_step: int | None,
    ) -> FrozenTrial:
        """An open trial that has its parameters.

        Args:
            number: The trial's.
            state: RUNNING or WAITING.
            last_step: The last step that it had reported; None where it had reported nothing.
        """
        base = self._base[number]
        steps = []
        if last_step is not None:
            steps = [step for step in base.intermediate_values if step <= last_step]
        trial = _make_trial(number, state)
        trial.params = base.params
        trial.distributions = base.distributions
        trial.system_attrs = base.system_attrs
        trial.intermediate_values = {step: base.intermediate_values[step] for step in steps}
        return trial

    def _without_params(self, number: int, state: TrialState) -> FrozenTrial:
        """An open trial that has no parameters yet."""
        trial = _make_trial(number, state)
        trial.system_attrs = self._fixed_params_of(number)
        return trial

    def note(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Note what a sampler or a pruner keeps with a trial, for those that see it later."""
        base = self._base[number]
        base.system_attrs = {**attributes, **base.system_attrs}

    def attributes_of(self, number: int) -> Attributes:
        """What samplers and pruners keep with a trial, as far as it was noted."""
        return self._base[number].system_attrs

    def _fixed_params_of(self, number: int) -> Attributes:
        row = self.rows[number]
        if not is_given(row):
            return {}
        return {_FIXED_PARAMS: self.space.encode(row["params"])}

    def _rebuild(self, row: ReplayRow) -> FrozenTrial:
        """The trial as the record has it."""
        number = row["number"]
        state = _FINISHED_STATES.get(row["state"], TrialState.RUNNING)
        trial = _make_trial(number, state)
        for step, value in row["intermediate"] or []:
            trial.intermediate_values[int(step)] = _to_float(value)
        if state is TrialState.COMPLETE:
            trial.values = row["values"]
        elif state is TrialState.PRUNED:
            trial.value = _last_finite_value(trial)
        if row["params"]:
            given = self._suggest_recorded(row)
            trial.params = given.suggested
            trial.distributions = given.distributions
            trial.user_attrs = given.user_attrs
            trial.system_attrs = given.system_attrs
        trial.system_attrs = {**trial.system_attrs, **self._fixed_params_of(number)}
        return trial

    def _suggest_recorded(self, row: ReplayRow) -> Proposal:
        """The recorded parameters as if a sampler had proposed them.

        A function of the trial is asked too: it says which parameters there are, and constraints.

        Raises:
            ConfigError: No sampler proposes such a value.
        """
        recorded = self.space.encode(row["params"])
        own = _make_trial(row["number"], TrialState.RUNNING)
        own.system_attrs = {_FIXED_PARAMS: recorded}
        try:
            given = self._suggest(own, [own], RandomSampler(seed=0), None)
        except ConfigError:
            raise  # of a function of the trial
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                "report.json", f"trial {row['number']} has values that were not searched: {reason}"
            ) from error
        names = [name for name in given.suggested if name in recorded]
        system_attrs = dict(given.system_attrs)
        del system_attrs[_FIXED_PARAMS]
        return Proposal(
            given.params,
            {name: given.suggested[name] for name in names},
            {name: given.distributions[name] for name in names},
            system_attrs,
            given.user_attrs,
        )


def _make_trial(number: int, state: TrialState) -> FrozenTrial:
    """A trial of which nothing is known but its state."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        datetime_start=_SOME_TIME,
        datetime_complete=_SOME_TIME if state.is_finished() else None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _last_finite_value(trial: FrozenTrial) -> float | None:
    """What Optuna takes for the value of a pruned trial: its last report."""
    values = trial.intermediate_values
    if not values:
        return None
    last = values[max(values)]
    return None if math.isnan(last) else last


def is_given(row: ReplayRow) -> bool:
    """Whether a trial's parameters were given, rather than proposed by the sampler."""
    return row["default"] or row["enqueued"]


def _to_float(value: float | None) -> float:
    return float("nan") if value is None else float(value)
