"""Successive halving whose resource is the number of epochs that a trial has trained.

Workers report under the epoch's index, from 0. Optuna's halving pruners compare that index with the
resource, so with ``min_resource=1`` their rungs lie after 2, 4 and 10 epochs instead of 1, 3 and 9.

Optuna reads and sorts what all trials scored for each verdict. Where its version is compared, ours
come to the same verdicts by what they have read before, see :mod:`dlsearch.sampling.halving`.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING

from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner

from dlsearch.core.versions import is_compared
from dlsearch.sampling.rungs import RungValues

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


class SuccessiveHalving(SuccessiveHalvingPruner):
    """Optuna's asynchronous successive halving (Li et al. 2020), in epochs trained.

    It takes the same arguments.
    """

    #: What the study that was last asked for has at its rungs.
    _known: RungValues | None = None

    def __getstate__(self) -> dict[str, object]:
        """A copy has read nothing yet."""
        return {**self.__dict__, "_known": None}

    def prune(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> bool:
        """Whether the trial, just reported on, is not among the best at its rung."""
        counted = _with_epoch_counts(trial)
        if not is_compared("optuna"):
            return super().prune(study, counted)
        from dlsearch.sampling.halving import is_stopped

        known = self._known
        if known is None or not known.belong_to(study):
            known = RungValues(study, _only_bracket)
            self._known = known
        return is_stopped(self, study, counted, known)


class Hyperband(HyperbandPruner):
    """Optuna's Hyperband (Li et al. 2018), in epochs trained; it takes the same arguments.

    It is a subclass, because Optuna shows samplers the trials of one bracket alone where the pruner
    is a Hyperband.
    """

    #: What the study that was last asked for has at the rungs of its brackets.
    _known: RungValues | None = None

    def __getstate__(self) -> dict[str, object]:
        """A copy has read nothing yet."""
        return {**self.__dict__, "_known": None}

    def prune(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> bool:
        """Whether the trial, just reported on, is not among its bracket's best at its rung."""
        counted = _with_epoch_counts(trial)
        if not is_compared("optuna"):
            return super().prune(study, counted)
        from dlsearch.sampling.halving import bracket_of, halving_of, has_brackets, is_stopped

        if not has_brackets(self, study):
            return False
        bracket = bracket_of(self, study, trial)
        known = self._known
        if known is None or not known.belong_to(study):
            known = RungValues(study, functools.partial(bracket_of, self))
            self._known = known
        return is_stopped(halving_of(self, bracket), study, counted, known, bracket)


def _only_bracket(_study: Study, _trial: FrozenTrial) -> int:
    return 0


def _with_epoch_counts(trial: FrozenTrial) -> FrozenTrial:
    """The trial with its values under the number of epochs that led to them."""
    counted = copy.copy(trial)
    values = {}
    for epoch, value in trial.intermediate_values.items():
        values[epoch + 1] = value
    counted.intermediate_values = values
    return counted
