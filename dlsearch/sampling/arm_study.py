"""One arm of a comparison as a study of its own, for samplers and pruners.

A sampler that is shown an arm sees a study that consists of the arm's trials, under their numbers
within the arm, and without the choice that is compared. So it proposes what it would propose in a
search of that option alone; and a pruner compares a trial with those of its arm.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dlsearch.core.versions import is_compared

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

    from dlsearch.core.types import ParamValue
    from dlsearch.sampling.arms import Arms
    from dlsearch.space.space import Space

Distributions = dict[str, BaseDistribution]


class ArmStorage:
    """Optuna's storage of a study, of which the trials of one arm are seen.

    What is written goes to the storage itself: a trial keeps its id.

    Args:
        storage: The storage.
        arms: The comparison's.
        place: The arm.
    """

    def __init__(
        self,
        storage: BaseStorage,
        arms: Arms,
        place: int,
    ) -> None:
        """Nothing is read yet."""
        self._storage = storage
        self._arms = arms
        self._place = place
        #: The trials that have ended, by number within the arm: they never change.
        self._ended: dict[int, FrozenTrial] = {}

    def __getattr__(self, name: str) -> Any:
        """All that is not of trials."""
        return getattr(self._storage, name)

    def project(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial of this arm as a study of the arm alone would have it."""
        number = self._arms.number_within(trial.number)
        known = self._ended.get(number)
        if known is not None:
            return known
        projected = copy.copy(trial)
        projected.number = number
        key = self._arms.key
        projected.params = {n: value for n, value in trial.params.items() if n != key}
        projected.distributions = {n: each for n, each in trial.distributions.items() if n != key}
        if trial.state.is_finished():
            self._ended[number] = projected
        return projected

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The arm's trials, by number."""
        found = []
        for trial in self._storage.get_all_trials(study_id, deepcopy=False):
            is_of_arm = self._arms.place_of(trial.number) == self._place
            if is_of_arm and (states is None or trial.state in states):
                found.append(self.project(trial))
        return copy.deepcopy(found) if deepcopy else found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial of the arm."""
        return self.project(self._storage.get_trial(trial_id))

    def get_n_trials(
        self,
        study_id: int,
        state: tuple[TrialState, ...] | TrialState | None = None,
    ) -> int:
        """How many trials the arm has."""
        states = (state,) if isinstance(state, TrialState) else state
        return len(self.get_all_trials(study_id, deepcopy=False, states=states))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The best of the arm's trials."""
        return BaseStorage.get_best_trial(self, study_id)  # type: ignore[arg-type]


class ArmStudy:
    """One arm of a comparison.

    Args:
        storage: Optuna's storage of the comparison.
        name: The comparison's name.
        arms: Its arms.
        place: The arm.
        pruner: The arm's own.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        arms: Arms,
        place: int,
        pruner: BasePruner,
    ) -> None:
        """Read no trial yet."""
        self.arms = arms
        self.place = place
        self._storage = ArmStorage(storage, arms, place)
        self._name = name
        self._pruner = pruner
        self.study = self._open()

    def _open(self) -> optuna.Study:
        return optuna.Study(
            self._name,
            self._storage,  # type: ignore[arg-type]
            sampler=RandomSampler(seed=0),
            pruner=self._pruner,
        )

    @property
    def option(self) -> ParamValue:
        """The arm's value of the choice that is compared."""
        return self.arms.options[self.place]

    def project(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial as a study of the arm alone would have it."""
        return self._storage.project(trial)

    def begin_ask(self) -> None:
        """Let the next proposal go by the trials as they are now."""
        if is_compared("optuna"):
            from dlsearch.storage.optuna_cache import forget_trials_of_ask

            forget_trials_of_ask(self.study)
        else:
            self.study = self._open()

    def shown_to_sampler(self, trial: FrozenTrial) -> optuna.Study:
        """What a sampler sees: of a Hyperband one bracket, where Optuna's version is compared."""
        if not is_compared("optuna"):
            return self.study
        from dlsearch.sampling.halving import show_bracket

        return show_bracket(self.study, trial)

    def prune(self, trial: FrozenTrial) -> bool:
        """Whether the arm's pruner says that a trial is to stop."""
        return bool(self._pruner.prune(self.study, self.project(trial)))


class ArmStudies:
    """The arms of a comparison, each opened when it is asked for.

    Args:
        storage: Optuna's storage.
        name: The comparison's name.
        arms: Its arms.
        build_pruner: Makes the pruner of an arm.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        arms: Arms,
        build_pruner: Callable[[], BasePruner],
    ) -> None:
        """Open no arm yet."""
        self._storage = storage
        self._name = name
        self._arms = arms
        self._build_pruner = build_pruner
        self._open: dict[int, ArmStudy] = {}

    def of(self, number: int) -> ArmStudy:
        """The arm of a trial."""
        place = self._arms.place_of(number)
        if place not in self._open:
            self._open[place] = ArmStudy(
                self._storage,
                self._name,
                self._arms,
                place,
                self._build_pruner(),
            )
        return self._open[place]


class ArmSampler(BaseSampler):
    """A sampler that sees one arm, and gives the trial the arm's value of what is compared.

    Args:
        inner: The sampler, seeded by the trial's number within the arm.
        arm: The arm.
        space: The comparison's space.
    """

    def __init__(
        self,
        inner: BaseSampler,
        arm: ArmStudy,
        space: Space,
    ) -> None:
        """Wrap `inner`."""
        dim = space[arm.arms.key]
        self.inner = inner
        self._arm = arm
        self._name = dim.name
        self._distribution = dim.distribution()
        self._value = dim.encode(arm.option)
        arm.begin_ask()

    def infer_relative_search_space(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
    ) -> Distributions:
        """What the sampler samples together, and what is compared."""
        shown, own = self._show(trial)
        inferred = self.inner.infer_relative_search_space(shown, own)
        return {**inferred, self._name: self._distribution}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: Distributions,
    ) -> dict[str, Any]:
        """What the sampler proposes, and the arm's value."""
        shown, own = self._show(trial)
        inner_space = {n: each for n, each in search_space.items() if n != self._name}
        proposed = self.inner.sample_relative(shown, own, inner_space)
        return {**proposed, self._name: self._value}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """What the sampler proposes for one dimension."""
        shown, own = self._show(trial)
        return self.inner.sample_independent(shown, own, param_name, param_distribution)

    def before_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
    ) -> None:
        """Prepare the sampler."""
        self.inner.before_trial(*self._show(trial))

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Finish with the sampler."""
        shown, own = self._show(trial)
        self.inner.after_trial(shown, own, state, values)

    def reseed_rng(self) -> None:
        """Seed the sampler again."""
        self.inner.reseed_rng()

    def _show(self, trial: FrozenTrial) -> tuple[optuna.Study, FrozenTrial]:
        """The study and the trial as the sampler sees them."""
        own = self._arm.project(trial)
        return self._arm.shown_to_sampler(own), own
