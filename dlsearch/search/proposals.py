"""What Optuna's samplers lack when each ask makes a new one: a space that is known beforehand, and a grid."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler

from dlsearch.search.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, TrialState

Distributions = dict[str, BaseDistribution]


class KnownSpace(BaseSampler):
    """A sampler that is told which dimensions to sample together.

    Optuna infers them from the trials that are finished, so that they depend on which worker was first, and change
    when the first trial without some conditional dimension ends. CMA-ES then never leaves random sampling again, and
    a quasi-random sequence starts anew.

    Args:
        inner: The sampler.
        choose: From the dimensions that `inner` infers to those that it shall sample together.
    """

    def __init__(self, inner: BaseSampler, choose: Callable[[Distributions], Distributions]) -> None:
        """Wrap `inner`."""
        self.inner, self._choose = inner, choose

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        """The dimensions to sample together."""
        return self._choose(self.inner.infer_relative_search_space(study, trial))

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        """Sample them."""
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample one of the others."""
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on."""
        self.inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Pass on."""
        self.inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Pass on."""
        self.inner.reseed_rng()


@functools.lru_cache(maxsize=4)
def _shuffled(space: str, seed: int) -> list[dict[str, Any]]:
    points = list(Space.from_json(json.loads(space)).points())
    random.Random(seed).shuffle(points)
    return points


class GridSampler(BaseSampler):
    """Every point of the grid once, in an order that the seed shuffles.

    Unlike Optuna's, it varies no dimension that is inactive, counts a point that was enqueued as done, takes trials
    that fix only some dimensions, and ends no study: when the grid is exhausted it proposes the first point again.

    Args:
        space: A space with finitely many values.
        seed: Of the order; the same for every worker.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        """Take over the points."""
        self._points = _shuffled(json.dumps(space.to_json()), seed)
        self._random = RandomSampler(seed=seed)
        self._chosen: dict[int, Mapping[str, Any]] = {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the trial's point: the first that nobody has."""
        # Not study.get_trials: under Hyperband that is one bracket, and the grid is the whole study's.
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        taken = {_key(_params(other)) for other in trials if other.number != trial.number}
        fixed = trial.system_attrs.get("fixed_params", {})
        fitting = [p for p in self._points if all(p.get(name, value) == value for name, value in fixed.items())]
        fitting = fitting or self._points
        self._chosen[trial.number] = next((p for p in fitting if _key(p) not in taken), fitting[0])

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        """None: a point is chosen before the trial."""
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The point's value; a random one where a fixed parent made another dimension exist."""
        point = self._chosen[trial.number]
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

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial's last report is of its last epoch."""
        epoch = self._last.get(trial.number)
        return epoch is not None and trial.last_step is not None and trial.last_step >= epoch


def _params(trial: FrozenTrial) -> dict[str, Any]:
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
