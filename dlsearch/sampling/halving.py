"""The verdict of Optuna's successive halving, without a look at all trials each time.

All of it works on names private to Optuna. It is imported only after
:func:`dlsearch.core.versions.is_compared` has confirmed the version of Optuna; with another
version, Optuna's own pruners decide the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optuna.pruners import _filter_study
from optuna.pruners._successive_halving import (
    _completed_rung_key,
    _estimate_min_resource,
    _get_current_rung,
)
from optuna.study import StudyDirection

from dlsearch.sampling.rungs import Rung, RungValues

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner
    from optuna.trial import FrozenTrial


def is_stopped(
    pruner: SuccessiveHalvingPruner,
    study: Study,
    trial: FrozenTrial,
    known: RungValues,
    bracket: int = 0,
) -> bool:
    """Whether a trial, just reported on, is not among the best at its rung.

    Args:
        pruner: Holds the arguments of the successive halving.
        study: The study.
        trial: The trial.
        known: The values at the study's rungs.
        bracket: The trial's bracket.
    """
    step = trial.last_step
    if step is None:
        return False
    value = trial.intermediate_values[step]
    rung = _get_current_rung(trial)
    is_known = False
    while _reaches(pruner, study, step, rung):
        if math.isnan(value):
            return True
        if not is_known:
            known.update(study)
            is_known = True
        key = _completed_rung_key(rung)
        study._storage.set_trial_system_attr(trial._trial_id, key, value)
        if not _is_promoted(pruner, study, known, Rung(bracket, key), value):
            return True
        rung += 1
    return False


def _reaches(
    pruner: SuccessiveHalvingPruner,
    study: Study,
    step: int,
    rung: int,
) -> bool:
    """Whether a trial has come to a rung after `step` steps."""
    if pruner._min_resource is None:
        pruner._min_resource = _estimate_min_resource(study.get_trials(deepcopy=False))
    if pruner._min_resource is None:  # no trial is complete
        return False
    exponent = pruner._min_early_stopping_rate + rung
    return step >= pruner._min_resource * pruner._reduction_factor**exponent


def _is_promoted(
    pruner: SuccessiveHalvingPruner,
    study: Study,
    known: RungValues,
    rung: Rung,
    value: float,
) -> bool:
    """Whether a value is among the share of the values at its rung that go on."""
    competing = known.count(rung) + 1  # with its own
    if competing <= pruner._bootstrap_count:
        return False
    promoted = max(competing // pruner._reduction_factor, 1)
    maximize = study.direction == StudyDirection.MAXIMIZE
    return known.count_better(rung, value, maximize=maximize) < promoted


def has_brackets(
    pruner: HyperbandPruner,
    study: Study,
) -> bool:
    """Whether the number of brackets is known; until then nothing is pruned."""
    if not pruner._pruners:
        pruner._try_initialization(study)
    return bool(pruner._pruners)


def bracket_of(
    pruner: HyperbandPruner,
    study: Study,
    trial: FrozenTrial,
) -> int:
    """The bracket of a trial."""
    return pruner._get_bracket_id(study, trial)


def show_bracket(
    study: Study,
    trial: FrozenTrial,
) -> Study:
    """What a sampler sees of a study: with a Hyperband, the trials of the trial's bracket."""
    return _filter_study(study, trial)


def halving_of(
    pruner: HyperbandPruner,
    bracket: int,
) -> SuccessiveHalvingPruner:
    """The successive halving of one bracket."""
    return pruner._pruners[bracket]
