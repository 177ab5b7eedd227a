"""Optuna's TPE, without going through every finished trial in Python for each proposal.

Optuna reads, sorts and converts all trials whenever it is asked: at 10,000 trials that is most of
an ask. :class:`~.history.History` converts each trial once, and :class:`Tpe` cuts what Optuna would
build out of its arrays. The proposals are Optuna's, to the last bit.

This works on private names of Optuna: :func:`dlsearch.sampling.factory.build_sampler` imports it
only where :func:`dlsearch.core.versions.is_compared` says that this version was compared.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.sampler import default_gamma
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.study import StudyDirection
from optuna.trial import TrialState

from dlsearch.sampling.fast_tpe.history import (
    Array,
    Distributions,
    History,
    Trials,
    View,
    is_whole_study,
)
from dlsearch.sampling.fast_tpe.parzen import log_density
from dlsearch.storage.optuna_cache import HISTORIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from dlsearch.core.types import Params

#: A set of parameters' names, as an index, and the number of the first trial that has these.
Kind = tuple[int, int]
#: Tails of the normal distribution that are kept: those of thousands of trials.
_TAILS_KEPT = 1 << 17


def _history_of(study: Study) -> History:
    """What is known of a study; it lives as long as the storage object, which caches the trials."""
    attributes = vars(study._storage)
    histories: dict[int, History] = attributes.setdefault(HISTORIES, {})
    return histories.setdefault(study._study_id, History())


class Tpe(TPESampler):
    """Optuna's :class:`TPESampler`, faster; several objectives are left to Optuna's own code."""

    # -- the dimensions to sample together ---------------------------------------------------------
    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> Distributions:
        """The dimensions to sample together."""
        if not self._group or len(study.directions) > 1:
            return super().infer_relative_search_space(study, trial)

        history = _history_of(study)
        with history.lock:
            view = self._view_at_ask(study)
            kinds = history.first_of_each_kind(view.at)
        self._search_space_group = self._add_to_groups(study, view, kinds)
        together: Distributions = {}
        for space in self._search_space_group.search_spaces:
            for name, distribution in sorted(space.items()):
                if not distribution.single():
                    together[name] = distribution
        return together

    def _add_to_groups(
        self,
        study: Study,
        view: View,
        kinds: Sequence[Kind],
    ) -> _SearchSpaceGroup:
        """The parts into which the conditional spaces of trials decompose.

        A parameter has the bounds that it had first, and a trial with the parameters of another
        changes nothing. Like Optuna's, a sampler keeps its parts from ask to ask.
        """
        decomposed = self._group_decomposed_search_space
        assert decomposed is not None
        if decomposed._study_id not in (None, study._study_id):
            raise ValueError("`_GroupDecomposedSearchSpace` cannot handle multiple studies.")
        decomposed._study_id = study._study_id
        added: set[int] = vars(self).setdefault("_kinds_added", set())
        new_kinds = [(kind, number) for kind, number in kinds if kind not in added]
        if new_kinds:
            by_number = _index_by_number(view.trials)
            for kind, number in new_kinds:
                distributions = by_number[number].distributions
                decomposed._search_space.add_distributions(distributions)
                added.add(kind)
        group = _SearchSpaceGroup()
        group._search_spaces = [dict(space) for space in decomposed._search_space.search_spaces]
        return group

    # -- trials ------------------------------------------------------------------------------------
    def _view_at_ask(self, study: Study) -> View:
        """All trials as they were at this ask."""
        trials = study._get_trials(deepcopy=False, use_cache=True)
        known: View | None = getattr(self, "_last_view", None)
        if known is not None and known.trials is trials:
            return known
        self._last_view = _history_of(study).view_trials(trials)
        return self._last_view

    def _view_now(self, study: Study) -> View:
        """All trials as they are now."""
        trials = study._get_trials(deepcopy=False, use_cache=False)
        return _history_of(study).view_trials(trials)

    # -- proposals ---------------------------------------------------------------------------------
    def _sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: Distributions,
    ) -> Params:
        if not search_space:
            return {}
        history = _history_of(study)
        with history.lock:
            finished = len(self._view_at_ask(study).at)
        if finished < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: Distributions,
    ) -> Params:
        is_estimator_known = self._parzen_estimator_cls is _ParzenEstimator
        if len(study.directions) > 1 or not is_estimator_known:
            return super()._sample(study, trial, search_space)
        history = _history_of(study)
        with history.lock:
            view = self._view_for_proposal(study)
            if history.fits_space(search_space):
                return self._propose_params(history, view, study, trial, search_space)
        return super()._sample(study, trial, search_space)

    def _view_for_proposal(self, study: Study) -> View:
        """All trials: the constant liar must know those that others have begun since the ask."""
        if self._constant_liar:
            return self._view_now(study)
        return self._view_at_ask(study)

    def _propose_params(
        self,
        history: History,
        view: View,
        study: Study,
        trial: FrozenTrial,
        search_space: Distributions,
    ) -> Params:
        """Optuna's proposal, from the history's arrays; the history's lock is held."""
        self._gamma = self._gamma or default_gamma
        at = view.at
        if self._constant_liar:
            at = at[history.numbers[at] != trial.number]
        is_best = history.best_trials(
            at,
            self._gamma(len(at)),
            minimize=study.direction == StudyDirection.MINIMIZE,
        )
        values = history.internal_values(at, search_space)
        is_whole = ~np.isnan(values).any(axis=1)
        good_values = values[is_best & is_whole]
        bad_values = values[~is_best & is_whole]
        bad_numbers = history.numbers[at][~is_best & is_whole]
        if self._constant_liar:
            liars = self._find_liars(study, view.unfinished, trial, search_space)
            bad_numbers, bad_values = _add_liars(bad_numbers, bad_values, liars)

        good = self._make_estimator(good_values, search_space)
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        bad_density = log_density(
            samples,
            bad_values,
            bad_numbers,
            search_space,
            self._parzen_estimator_parameters,
            history.kernels,
        )
        if bad_density is None:
            bad_density = self._make_estimator(bad_values, search_space).log_pdf(samples)
        chosen = self._compare(samples, good.log_pdf(samples) - bad_density)

        params = {}
        for name, distribution in search_space.items():
            params[name] = distribution.to_external_repr(chosen[name])
        return params

    def _make_estimator(
        self,
        values: Array,
        space: Distributions,
    ) -> _ParzenEstimator:
        """Optuna's estimator of the density of (trials, names) internal representations."""
        observed = {}
        for column, name in enumerate(space):
            observed[name] = values[:, column]
        return _ParzenEstimator(observed, space, self._parzen_estimator_parameters)

    def _find_liars(
        self,
        study: Study,
        unfinished: Trials,
        own_trial: FrozenTrial,
        space: Distributions,
    ) -> list[tuple[int, list[float]]]:
        """Other running trials, which count as bad ones: numbers and internal representations.

        A trial is left out while not all of its parameters are known.
        """
        liars = []
        for trial in unfinished:
            is_running = trial.state is TrialState.RUNNING
            if not is_running or trial.number == own_trial.number:
                continue
            params = self._get_params(trial, study)
            if not space.keys() <= params.keys():
                continue
            row = []
            for name, distribution in space.items():
                row.append(distribution.to_internal_repr(params[name]))
            liars.append((trial.number, row))
        return liars


def _index_by_number(
    trials: Trials,
) -> Trials | dict[int, FrozenTrial]:
    """Trials so that their number finds them: a whole study's are at their positions already."""
    if is_whole_study(trials):
        return trials
    return {trial.number: trial for trial in trials}


def _add_liars(
    numbers: Array,
    values: Array,
    liars: Sequence[tuple[int, list[float]]],
) -> tuple[Array, Array]:
    """Numbers and internal representations of the bad trials with those that run, by number."""
    if not liars:
        return numbers, values
    liars_numbers = [number for number, _ in liars]
    liars_values = [row for _, row in liars]
    all_numbers = np.append(numbers, liars_numbers)
    order = np.argsort(all_numbers)
    all_values = np.concatenate([values, liars_values])
    return all_numbers[order], all_values[order]


def quicker(sampler: BaseSampler) -> BaseSampler:
    """A TPESampler that was just made, as a :class:`Tpe`; any other as it is."""
    if type(sampler) is TPESampler:
        sampler.__class__ = Tpe
        _keep_more_tails()
    return sampler


@functools.cache
def _keep_more_tails() -> None:
    """Let Optuna's cache of the normal distribution's tails hold those of thousands of trials.

    They recur from ask to ask, by the trial, in the same order: a cache of 1,000 forgets each just
    before it is used.
    """
    keep = functools.lru_cache(_TAILS_KEPT)
    _truncnorm._log_ndtr_single = keep(_truncnorm._log_ndtr_single.__wrapped__)
