"""Successive halving whose resource is the number of epochs that a trial has trained.

Workers report under the epoch's index, from 0. Optuna's halving pruners compare that index with the
resource, so with ``min_resource=1`` their rungs lie after 2, 4 and 10 epochs instead of 1, 3 and 9.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


class SuccessiveHalving(SuccessiveHalvingPruner):
    """Optuna's asynchronous successive halving (Li et al. 2020), in epochs trained.

    It takes the same arguments.
    """

    def prune(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> bool:
        """Whether the trial, just reported on, is not among the best at its rung."""
        return super().prune(study, _with_epoch_counts(trial))


class Hyperband(HyperbandPruner):
    """Optuna's Hyperband (Li et al. 2018), in epochs trained; it takes the same arguments.

    It is a subclass, because Optuna shows samplers the trials of one bracket alone where the pruner
    is a Hyperband.
    """

    def prune(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> bool:
        """Whether the trial, just reported on, is not among its bracket's best at its rung."""
        return super().prune(study, _with_epoch_counts(trial))


def _with_epoch_counts(trial: FrozenTrial) -> FrozenTrial:
    """The trial with its values under the number of epochs that led to them."""
    counted = copy.copy(trial)
    values = {}
    for epoch, value in trial.intermediate_values.items():
        values[epoch + 1] = value
    counted.intermediate_values = values
    return counted
