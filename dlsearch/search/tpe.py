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
    from collections.abc import Callable, Iterable, Sequence

    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

#: Optuna's minor versions whose TPESampler :class:`Tpe` was held against.
KNOWN = ("5.0",)

Distributions = dict[str, "BaseDistribution"]
_COUNTS = (TrialState.COMPLETE, TrialState.PRUNED)


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
        self._settled = np.empty(0, dtype=bool)  # by number: whether a trial was seen finished, in whatever state
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

    def look(self, trials: Sequence[FrozenTrial]) -> tuple[np.ndarray, Sequence[FrozenTrial]]:
        """Where those of `trials` stand that were completed or pruned, and those that are not finished.

        Where `trials` are all there are, only those are looked at that were not finished the last time.
        """
        if not trials or trials[-1].number != len(trials) - 1:  # a bracket's
            ended = [each for each in trials if each.state in _COUNTS]
            return self.find(ended), [each for each in trials if not each.state.is_finished()]
        if len(trials) > len(self._settled):
            self._settled = np.append(self._settled, np.zeros(len(trials), dtype=bool))
        open_ = [trials[number] for number in np.flatnonzero(~self._settled[: len(trials)]).tolist()]
        if new := [each for each in open_ if each.state in _COUNTS and each.number not in self._seen]:
            self._add(new)
        self._settled[[each.number for each in open_ if each.state.is_finished()]] = True
        at = np.arange(np.searchsorted(self.numbers, len(trials)))  # other brackets may know later ones
        return at, [each for each in open_ if not each.state.is_finished()]

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


def _below(study: Study, trial_at: Callable[[int], FrozenTrial], values: np.ndarray, count: int) -> np.ndarray:
    """Which trials are the `count` best, as a mask; pruned ones come after all complete ones."""
    mask = np.zeros(len(values), dtype=bool)
    complete = np.flatnonzero(~np.isnan(values))
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    best = complete[np.argsort(sign * values[complete], kind="stable")[:count]]
    mask[best] = True
    if left := max(0, count - len(best)):
        pruned = np.flatnonzero(np.isnan(values)).tolist()
        mask[sorted(pruned, key=lambda place: _get_pruned_trial_score(trial_at(place), study))[:left]] = True
    return mask


def _at(trials: Sequence[FrozenTrial], numbers: np.ndarray) -> Callable[[int], FrozenTrial]:
    """The trial at a place among those of `numbers`."""
    if len(trials) and trials[-1].number == len(trials) - 1:
        return lambda place: trials[numbers[place]]
    by_number = {each.number: each for each in trials}
    return lambda place: by_number[int(numbers[place])]


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
        self._search_space_group = _history(study).groups(self._look(study)[1])
        spaces = self._search_space_group.search_spaces
        return {name: dist for space in spaces for name, dist in sorted(space.items()) if not dist.single()}

    def _look(self, study: Study) -> tuple[Sequence[FrozenTrial], np.ndarray, Sequence[FrozenTrial]]:
        """All trials as they are at this ask, where those stand that count, and those that are not finished."""
        everyone = study._get_trials(deepcopy=False, use_cache=True)
        known = getattr(self, "_looked", None)
        if known is None or known[0] is not everyone:
            known = self._looked = everyone, *_history(study).look(everyone)
        return known

    def _sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        if not search_space or len(self._look(study)[1]) < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        if len(study.directions) > 1 or self._constraints_func is not None:
            return super()._sample(study, trial, search_space)
        history = _history(study)
        everyone, at, unfinished = self._look(study)
        self._gamma = self._gamma or default_gamma
        best = _below(study, _at(everyone, history.numbers[at]), history.values[at], self._gamma(len(at)))
        rows = history.rows(at, search_space)
        whole = ~np.isnan(rows).any(axis=1)
        below, above = best & whole, ~best & whole
        numbers, values = history.numbers[at][above], rows[above]
        if self._constant_liar:
            running = [t for t in unfinished if t.state is TrialState.RUNNING and t.number != trial.number]
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
