"""The finished trials of a study as arrays, for TPE."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from operator import is_not
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from dlsearch.core.types import Params
    from dlsearch.sampling.fast_tpe.kernels import Kernels

Distributions = dict[str, "BaseDistribution"]
Trials = Sequence["FrozenTrial"]
Array = np.ndarray
#: States of the trials that TPE learns from.
_LEARNED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)


class _Report(NamedTuple):
    """A value that a trial reported.

    Args:
        step: Its step; NaN where the trial reported nothing.
        value: The value.
    """

    step: float
    value: float


_NO_REPORT = _Report(math.nan, 0.0)


class View(NamedTuple):
    """A study's trials at one moment.

    Args:
        trials: All of them, or of a bracket, by number.
        at: The positions in the history's arrays of those that were complete or pruned, by number.
        unfinished: Those that were running or waiting.
    """

    trials: Trials
    at: Array
    unfinished: Trials


class History:
    """Complete and pruned trials of a study, by number, as arrays. Its user holds its lock.

    A finished trial never changes, so that each is converted once.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.lock = threading.RLock()
        self.numbers = np.empty(0, dtype=np.int64)
        #: Of the bad trials, by dimension.
        self.kernels: dict[Any, Kernels] = {}
        #: Of the objective; NaN where pruned.
        self._values = np.empty(0)
        #: Sums of the constraints that are violated; 0 where feasible.
        self._violations = np.empty(0)
        #: The last step that was reported, and its value; NaN where nothing was.
        self._last_steps = np.empty(0)
        self._last_values = np.empty(0)
        #: Which names a trial's parameters have, as an index; the index of each set of names.
        self._kinds = np.empty(0, dtype=np.int64)
        self._kind_indices: dict[frozenset[str], int] = {}
        #: Internal representations by parameter; NaN where a trial lacks it.
        self._columns: dict[str, Array] = {}
        #: The first trial's choices, by parameter; None where it is a number.
        self._choices: Params = {}
        #: Parameters whose choices are not always the same.
        self._changing: set[str] = set()
        #: The smallest internal representation, by parameter.
        self._least: dict[str, float] = {}
        self._known_numbers: set[int] = set()
        #: Finished trials by number, as they were seen, in whatever state they ended.
        self._finished: list[FrozenTrial | None] = []

    def __reduce__(self) -> tuple[type[History], tuple[()]]:
        """A copy in another process knows nothing, and reads the trials again."""
        return History, ()

    # -- taking trials over ------------------------------------------------------------------------
    def view_trials(self, trials: Trials) -> View:
        """Sort `trials`, by number, into finished and unfinished ones; new finished ones are added.

        Trials may be a part of those that are known: a bracket's under Hyperband, or those of an
        earlier moment.
        """
        if is_whole_study(trials):
            return self._view_study(trials)
        return self._view_part(trials)

    def _view_part(self, trials: Trials) -> View:
        learned = _learned_of(trials)
        self._add_trials(learned)
        at = np.searchsorted(self.numbers, _numbers_of(learned))
        return View(trials, at, _unfinished_of(trials))

    def _view_study(self, trials: Trials) -> View:
        changed = self._find_changed(trials)
        unfinished = _unfinished_of(changed)
        self._add_trials(_learned_of(changed))
        for trial in changed:
            if trial.state.is_finished():
                self._finished[trial.number] = trial

        at = np.arange(np.searchsorted(self.numbers, len(trials)))
        # Trials of an earlier moment: some of them have ended since.
        ended_since = self._known_numbers.intersection(_numbers_of(unfinished))
        if ended_since:
            has_ended = np.isin(self.numbers[at], list(ended_since))
            at = at[~has_ended]
        return View(trials, at, unfinished)

    def _find_changed(self, trials: Trials) -> list[FrozenTrial]:
        """The trials that are not known as finished.

        A finished trial is the same object as before, so that one comparison in C finds the others.
        """
        missing = len(trials) - len(self._finished)
        self._finished.extend([None] * missing)
        differs = np.fromiter(
            map(is_not, self._finished, trials),
            dtype=bool,
            count=len(trials),
        )
        changed = np.flatnonzero(differs)
        return [trials[number] for number in changed.tolist()]

    def _add_trials(self, ended: Trials) -> None:
        """Take over the trials that are not known yet."""
        new = [trial for trial in ended if trial.number not in self._known_numbers]
        if not new:
            return
        new_numbers = _numbers_of(new)
        numbers = np.append(self.numbers, new_numbers)
        # A trial may end after those that began later.
        order = np.argsort(numbers)
        self._add_parameters(new, order)
        self.numbers = numbers[order]

        values = [_value_of(trial) for trial in new]
        violations = [_violation_of(trial) for trial in new]
        reports = [_last_report_of(trial) for trial in new]
        last_steps = [report.step for report in reports]
        last_values = [report.value for report in reports]
        self._values = _append(self._values, values, order)
        self._violations = _append(self._violations, violations, order)
        self._last_steps = _append(self._last_steps, last_steps, order)
        self._last_values = _append(self._last_values, last_values, order)
        self._known_numbers.update(new_numbers)

    def _add_parameters(
        self,
        new: Trials,
        order: Array,
    ) -> None:
        """Take over the parameters of new trials.

        Args:
            new: The trials.
            order: Sorts the known trials, and after them the new ones, by number.
        """
        kinds = []
        names: set[str] = set()
        for trial in new:
            kind = frozenset(trial.distributions)
            index = self._kind_indices.setdefault(kind, len(self._kind_indices))
            kinds.append(index)
            names.update(kind)
            self._note_distributions(trial)
        self._kinds = _append(self._kinds, kinds, order)

        missing = np.full(len(self.numbers), np.nan)
        for name in names.union(self._columns):
            column = self._columns.get(name, missing)
            added = [_internal_value(trial, name) for trial in new]
            self._columns[name] = _append(column, added, order)

    def _note_distributions(self, trial: FrozenTrial) -> None:
        """Note the choices of a trial's parameters, and their smallest values."""
        for name, distribution in trial.distributions.items():
            choices = _choices_of(distribution)
            if self._choices.setdefault(name, choices) != choices:
                self._changing.add(name)
            least = self._least.get(name, math.inf)
            self._least[name] = min(_internal_value(trial, name), least)

    # -- questions ---------------------------------------------------------------------------------
    def fits_space(self, space: Distributions) -> bool:
        """Whether the trials' columns mean the same in `space`.

        They do not where the indices of choices differ, or a value has no logarithm.
        """
        for name, distribution in space.items():
            if name in self._changing:
                return False
            choices = _choices_of(distribution)
            if self._choices.get(name, choices) != choices:
                return False
            is_log = getattr(distribution, "log", False)
            least = self._least.get(name, math.inf)
            if is_log and least <= 0:
                return False
        return True

    def first_of_each_kind(self, at: Array) -> list[tuple[int, int]]:
        """Kinds of trials by their parameters' names, each with the number of its first trial.

        They are in the order of these numbers.
        """
        kinds, first = np.unique(self._kinds[at], return_index=True)
        numbers = self.numbers[at][first]
        order = np.argsort(first)
        kinds_in_order = kinds[order].tolist()
        numbers_in_order = numbers[order].tolist()
        return list(zip(kinds_in_order, numbers_in_order, strict=True))

    def internal_values(
        self,
        at: Array,
        names: Iterable[str],
    ) -> Array:
        """(trials, names): internal representations."""
        missing = np.full(len(self.numbers), np.nan)
        columns = [self._columns.get(name, missing)[at] for name in names]
        return np.stack(columns, axis=1)

    def best_trials(
        self,
        at: Array,
        count: int,
        *,
        minimize: bool,
    ) -> Array:
        """Which trials are the `count` best, as a mask.

        First complete ones by value, then pruned ones, the last step first and then by value, then
        those that violate constraints, by how much. Among equals the lower number is better.
        """
        sign = 1.0 if minimize else -1.0
        values = self._values[at]
        violations = self._violations[at]
        is_feasible = violations <= 0
        is_pruned = np.isnan(values)

        complete = np.flatnonzero(is_feasible & ~is_pruned)
        complete_order = np.argsort(sign * values[complete], kind="stable")

        pruned = np.flatnonzero(is_feasible & is_pruned)
        pruned_order = self._order_pruned(at[pruned], sign)

        infeasible = np.flatnonzero(~is_feasible)
        infeasible_order = np.argsort(violations[infeasible], kind="stable")

        ranked = np.concatenate(
            [
                complete[complete_order],
                pruned[pruned_order],
                infeasible[infeasible_order],
            ]
        )
        mask = np.zeros(len(at), dtype=bool)
        mask[ranked[:count]] = True
        return mask

    def _order_pruned(
        self,
        at: Array,
        sign: float,
    ) -> Array:
        """The order of pruned trials: the last step first, then by value; silent ones last."""
        steps = self._last_steps[at]
        values = sign * self._last_values[at]
        values[np.isnan(values)] = math.inf
        is_silent = np.isnan(steps)
        return np.lexsort(
            (
                np.where(is_silent, 0.0, values),
                np.where(is_silent, 1.0, -steps),
            )
        )


def is_whole_study(trials: Trials) -> bool:
    """Whether these are all trials of a study, so that each is at the position of its number."""
    if not trials:
        return False
    last = trials[-1]
    return last.number == len(trials) - 1


def _numbers_of(trials: Trials) -> list[int]:
    return [trial.number for trial in trials]


def _learned_of(trials: Trials) -> list[FrozenTrial]:
    """The trials that TPE learns from."""
    return [trial for trial in trials if trial.state in _LEARNED_STATES]


def _unfinished_of(trials: Trials) -> list[FrozenTrial]:
    return [trial for trial in trials if not trial.state.is_finished()]


def _append(
    array: Array,
    added: Sequence[float],
    order: Array,
) -> Array:
    """An array with more values, in another order."""
    return np.append(array, added)[order]


def _value_of(trial: FrozenTrial) -> float:
    """The trial's objective; NaN where it was pruned."""
    if trial.state is TrialState.PRUNED:
        return math.nan
    return trial.values[0]


def _last_report_of(trial: FrozenTrial) -> _Report:
    """The trial's last report."""
    values = trial.intermediate_values
    if not values:
        return _NO_REPORT
    last_step = max(values)
    return _Report(last_step, values[last_step])


def _violation_of(trial: FrozenTrial) -> float:
    """By how much the trial violates its constraints, all of them together."""
    return sum(value for value in trial.constraints.values() if value > 0)


def _choices_of(distribution: BaseDistribution) -> Any:
    """The choices with their types: 1, 1.0 and True are different choices."""
    if not isinstance(distribution, CategoricalDistribution):
        return None
    return [(type(choice), choice) for choice in distribution.choices]


def _internal_value(
    trial: FrozenTrial,
    name: str,
) -> float:
    """Optuna's internal representation of a parameter; NaN where the trial lacks it."""
    distribution = trial.distributions.get(name)
    if distribution is None:
        return math.nan
    return distribution.to_internal_repr(trial.params[name])
