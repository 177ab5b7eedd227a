"""Optuna's TPE, without going through every finished trial in Python for each proposal.

Optuna reads, sorts and converts all trials anew whenever it is asked: at 10,000 trials that is most of an ask. A
finished trial never changes, so :class:`History` converts it once, and :class:`Tpe` cuts what Optuna would build out of
arrays. The proposals are Optuna's, to the last bit.
"""

from __future__ import annotations

import functools
import math
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.sampler import _get_pruned_trial_score, default_gamma
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.study import StudyDirection
from optuna.trial import TrialState

from dlsearch.search.parzen import Kernels, log_density

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

#: Optuna's minor versions whose TPESampler :class:`Tpe` was held against.
KNOWN = ("5.0",)

Distributions = dict[str, "BaseDistribution"]


class History:
    """Complete and pruned trials of a study, by number, as arrays."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.numbers = np.empty(0, dtype=np.int64)
        self.values = np.empty(0)  # of the objective; NaN where pruned
        self._kind = np.empty(0, dtype=np.int64)  # which of `_kinds` a trial's parameters are
        self._kinds: dict[frozenset[str], tuple[int, Distributions]] = {}
        self._columns: dict[str, np.ndarray] = {}  # internal representations; NaN where a trial lacks the parameter
        self._seen: set[int] = set()
        self.kernels: dict[Any, Kernels] = {}  # of the bad trials, by dimension

    def find(self, trials: Sequence[FrozenTrial]) -> np.ndarray:
        """Where `trials` (complete or pruned, by number) stand; those that have ended since the last time are added.

        They may be a part of those that are known: under Hyperband a proposal sees its own bracket's.
        """
        if new := [trial for trial in trials if trial.number not in self._seen]:
            self._add(new)
        if len(trials) == len(self.numbers):
            return np.arange(len(trials))
        return np.searchsorted(self.numbers, [trial.number for trial in trials])

    def _add(self, new: list[FrozenTrial]) -> None:
        kinds = []
        for trial in new:
            names = frozenset(trial.distributions)
            kinds.append(self._kinds.setdefault(names, (len(self._kinds), trial.distributions))[0])
        numbers = np.append(self.numbers, [trial.number for trial in new])
        order = np.argsort(numbers)  # a trial may end after those that began later
        values = [math.nan if trial.state is TrialState.PRUNED else trial.values[0] for trial in new]
        for name in {*self._columns, *(name for trial in new for name in trial.params)}:
            old = self._columns.get(name)
            old = np.full(len(self.numbers), np.nan) if old is None else old
            self._columns[name] = np.append(old, [_internal(trial, name) for trial in new])[order]
        self.numbers, self.values = numbers[order], np.append(self.values, values)[order]
        self._kind = np.append(self._kind, kinds)[order]
        self._seen.update(trial.number for trial in new)

    def groups(self, at: np.ndarray) -> _SearchSpaceGroup:
        """The parts into which the conditional spaces of trials decompose. Optuna's does nothing at a kind's return."""
        kinds, first = np.unique(self._kind[at], return_index=True)
        distributions = dict(self._kinds.values())
        found = _SearchSpaceGroup()
        for kind in kinds[np.argsort(first)]:
            found.add_distributions(distributions[int(kind)])
        return found

    def rows(self, at: np.ndarray, names: Iterable[str]) -> np.ndarray:
        """(trials, names): internal representations."""
        missing = np.full(len(self.numbers), np.nan)
        return np.stack([self._columns.get(name, missing)[at] for name in names], axis=1)


def _below(study: Study, trials: Sequence[FrozenTrial], values: np.ndarray, count: int) -> np.ndarray:
    """Which trials are the `count` best, as a mask; pruned ones come after all complete ones."""
    mask = np.zeros(len(trials), dtype=bool)
    complete = np.flatnonzero(~np.isnan(values))
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    best = complete[np.argsort(sign * values[complete], kind="stable")[:count]]
    mask[best] = True
    if left := max(0, count - len(best)):
        pruned = np.flatnonzero(np.isnan(values)).tolist()
        mask[sorted(pruned, key=lambda place: _get_pruned_trial_score(trials[place], study))[:left]] = True
    return mask


def _internal(trial: FrozenTrial, name: str) -> float:
    distribution = trial.distributions.get(name)
    return math.nan if distribution is None else distribution.to_internal_repr(trial.params[name])


_histories: weakref.WeakKeyDictionary[Any, dict[int, History]] = weakref.WeakKeyDictionary()


def _history(study: Study) -> History:
    """What is known of a study; for as long as its storage object lives, which caches the trials."""
    return _histories.setdefault(study._storage, {}).setdefault(study._study_id, History())


class Tpe(TPESampler):
    """Optuna's :class:`TPESampler`, faster; several objectives and constraints are left to Optuna's own code."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        """The dimensions to sample together."""
        if not self._group:
            return super().infer_relative_search_space(study, trial)
        history, states = _history(study), (TrialState.COMPLETE, TrialState.PRUNED)
        ended = study._get_trials(deepcopy=False, states=states, use_cache=True)
        self._search_space_group = history.groups(history.find(ended))
        spaces = self._search_space_group.search_spaces
        return {name: dist for space in spaces for name, dist in sorted(space.items()) if not dist.single()}

    def _sample(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        if len(study.directions) > 1 or self._constraints_func is not None:
            return super()._sample(study, trial, search_space)
        history = _history(study)
        everyone = study._get_trials(deepcopy=False, use_cache=not self._constant_liar)
        ended = [each for each in everyone if each.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        at = history.find(ended)
        self._gamma = self._gamma or default_gamma
        best = _below(study, ended, history.values[at], self._gamma(len(ended)))
        rows = history.rows(at, search_space)
        whole = ~np.isnan(rows).any(axis=1)
        below, above = best & whole, ~best & whole
        numbers, values = history.numbers[at][above], rows[above]
        if self._constant_liar:
            running = [t for t in everyone if t.state is TrialState.RUNNING and t.number != trial.number]
            liars = self._liars(study, running, search_space)
            if liars:
                order = np.argsort(np.append(numbers, [number for number, _ in liars]))
                values = np.concatenate([values, [row for _, row in liars]])[order]
                numbers = np.append(numbers, [number for number, _ in liars])[order]
        good = self._estimator(rows[below], search_space)
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        parameters = self._parzen_estimator_parameters
        bad = log_density(samples, values, numbers, search_space, parameters, history.kernels)
        if bad is None:
            bad = self._estimator(values, search_space).log_pdf(samples)
        chosen = self._compare(samples, good.log_pdf(samples) - bad)
        return {name: dist.to_external_repr(chosen[name]) for name, dist in search_space.items()}

    def _estimator(self, rows: np.ndarray, space: Distributions) -> _ParzenEstimator:
        observed = {name: rows[:, at] for at, name in enumerate(space)}
        return _ParzenEstimator(observed, space, self._parzen_estimator_parameters)

    def _liars(self, study: Study, running: list[FrozenTrial], space: Distributions) -> list[tuple[int, list[float]]]:
        """Trials that run, counted among the bad ones, as far as their parameters are known."""
        found = []
        for trial in running:
            params = self._get_params(trial, study)
            if space.keys() <= params.keys():
                found.append((trial.number, [dist.to_internal_repr(params[name]) for name, dist in space.items()]))
        return found


def quicker(sampler: BaseSampler) -> BaseSampler:
    """A TPESampler that was just made, as a :class:`Tpe`; as it is where nobody has compared its version of Optuna."""
    if type(sampler) is TPESampler and optuna.__version__.startswith(tuple(f"{version}." for version in KNOWN)):
        sampler.__class__ = Tpe
        _remember_tails()
    return sampler


@functools.cache
def _remember_tails() -> None:
    """Give Optuna's cache of the normal distribution's tails room for those of thousands of trials.

    They recur from ask to ask, by the trial, in the same order: a cache of 1,000 forgets each just before it is used.
    """
    _truncnorm._log_ndtr_single = functools.lru_cache(1 << 17)(_truncnorm._log_ndtr_single.__wrapped__)
