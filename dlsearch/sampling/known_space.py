"""Samplers and a pruner for asks that each make a new sampler.

Optuna's own lack two things then: a space that is known beforehand, and a grid.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler

from dlsearch.core.versions import is_compared
from dlsearch.space.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, TrialState

    from dlsearch.core.types import Params

Distributions = dict[str, BaseDistribution]
#: Grids whose points are kept.
_GRIDS_KEPT = 4
#: System attribute of a trial that was enqueued: the parameters that are given.
_FIXED_PARAMS = "fixed_params"


class KnownSpace(BaseSampler):
    """A sampler with another choice of the dimensions that are sampled together.

    Optuna infers them from the trials that are finished, so that they depend on which worker was
    first, and change when the first trial without some conditional dimension ends. CMA-ES then
    never leaves random sampling again, and a quasi-random sequence starts from its beginning.

    Args:
        inner: The sampler.
        choose: Of the dimensions that `inner` infers, those that it samples together.
    """

    def __init__(
        self,
        inner: BaseSampler,
        choose: Callable[[Distributions], Distributions],
    ) -> None:
        """Wrap `inner`."""
        self.inner = inner
        self._choose = choose

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> Distributions:
        """The dimensions to sample together."""
        inferred = self.inner.infer_relative_search_space(study, trial)
        return self._choose(inferred)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: Distributions,
    ) -> Params:
        """Sample them."""
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Sample one of the others."""
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> None:
        """Prepare the inner sampler."""
        self.inner.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Finish with the inner sampler."""
        self.inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Seed the inner sampler again."""
        self.inner.reseed_rng()


@functools.lru_cache(maxsize=_GRIDS_KEPT)
def _shuffle_points(
    space_json: str,
    seed: int,
) -> list[Params]:
    """The points of a space, which is given as JSON, in the seed's order."""
    space = Space.from_json(json.loads(space_json))
    points = list(space.points())
    random.Random(seed).shuffle(points)
    return points


class GridSampler(BaseSampler):
    """Every point of the grid once, in an order that the seed shuffles.

    Unlike Optuna's, it varies no dimension that is inactive, counts a point that was enqueued as
    done, takes trials that fix only some dimensions, and ends no study: when the grid is exhausted
    it proposes the first point again.

    Args:
        space: A space with finitely many values.
        seed: Of the order; the same for every worker.
    """

    def __init__(
        self,
        space: Space,
        seed: int = 0,
    ) -> None:
        """Take over the points."""
        space_json = json.dumps(space.to_json())
        self._points = _shuffle_points(space_json, seed)
        self._random = RandomSampler(seed=seed)
        self._chosen: dict[int, Params] = {}

    def before_trial(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> None:
        """Choose the trial's point: the first that no other trial has."""
        taken = set()
        for other in _all_trials(study):
            if other.number != trial.number:
                taken.add(_key_of(_params_of(other)))
        fitting = self._points_with(trial.system_attrs.get(_FIXED_PARAMS, {}))
        free = (point for point in fitting if _key_of(point) not in taken)
        self._chosen[trial.number] = next(free, fitting[0])

    def _points_with(self, fixed: Mapping[str, Any]) -> list[Params]:
        """The points that have these values; all of them where none has."""

        def has_fixed_values(point: Params) -> bool:
            return all(point.get(name, value) == value for name, value in fixed.items())

        fitting = list(filter(has_fixed_values, self._points))
        return fitting or self._points

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> Distributions:
        """None: a point is chosen before the trial."""
        return {}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: Distributions,
    ) -> Params:
        """Nothing."""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The point's value; a random one where the point has none.

        It has none where a fixed parent made a dimension exist.
        """
        point = self._chosen.get(trial.number, {})
        if param_name in point:
            return point[param_name]
        return self._random.sample_independent(study, trial, param_name, param_distribution)


class RecordedPruner(BasePruner):
    """Prunes each trial after the epoch that a record names, and no other.

    Args:
        last_epochs: By the trial's number.
    """

    def __init__(self, last_epochs: Mapping[str, int]) -> None:
        """Take over the epochs."""
        self._last = {int(number): epoch for number, epoch in last_epochs.items()}

    def prune(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> bool:
        """Whether the trial's last report is of its last epoch."""
        epoch = self._last.get(trial.number)
        return epoch is not None and trial.last_step is not None and trial.last_step >= epoch


def _all_trials(study: Study) -> list[FrozenTrial]:
    """A study's trials, also where Hyperband shows the sampler those of one bracket.

    With a version of Optuna that is not compared, they are the bracket's alone.
    """
    if is_compared("optuna"):
        from dlsearch.storage.optuna_cache import read_all_trials

        # Not study.get_trials: the grid is the whole study's.
        return read_all_trials(study)
    return study.get_trials(deepcopy=False)


def _params_of(trial: FrozenTrial) -> Params:
    fixed: Params = trial.system_attrs.get(_FIXED_PARAMS, {})
    return {**fixed, **trial.params}


def _key_of(params: Params) -> str:
    return json.dumps(params, sort_keys=True)
