"""What the trials of a study scored at the rungs of successive halving, kept sorted.

A verdict compares one value with those of all trials that have reached the rung. Reading and
sorting these anew for each verdict takes time in the square of the number of trials.
"""

from __future__ import annotations

import bisect
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

#: How the system attribute begins under which Optuna notes what a trial scored at a rung.
RUNG_PREFIX = "completed_rung_"


class Rung(NamedTuple):
    """A rung of one bracket.

    Args:
        bracket: The bracket; 0 where there is only one.
        key: The system attribute that holds a trial's value at the rung.
    """

    bracket: int
    key: str


class RungValues:
    """The values at each rung, of which those of a trial that has ended are read once.

    It relies on three promises of Optuna: the trials of a study are in the order of their numbers,
    a finished trial never changes, and a trial's value at a rung is written once.

    Args:
        study: The study. It is held weakly.
        bracket_of: Gives the bracket of a trial of the study.
    """

    def __init__(
        self,
        study: Study,
        bracket_of: Callable[[Study, FrozenTrial], int],
    ) -> None:
        """Nothing is read yet."""
        self._study = weakref.ref(study)
        self._bracket_of = bracket_of
        self._values: defaultdict[Rung, list[float]] = defaultdict(list)
        self._seen = 0
        #: Of the trials that have not ended, by position: the attributes that have been read.
        self._open: dict[int, set[str]] = {}
        self._lock = threading.Lock()

    def belong_to(self, study: Study) -> bool:
        """Whether these are the values of `study`."""
        return self._study() is study

    def update(self, study: Study) -> None:
        """Read what has changed in `study`, to which these values belong."""
        trials = study.get_trials(deepcopy=False)
        with self._lock:
            for position in range(self._seen, len(trials)):
                self._open[position] = set()
            self._seen = max(self._seen, len(trials))
            for position in list(self._open):
                trial = trials[position]
                self._read_trial(study, trial, self._open[position])
                if trial.state.is_finished():
                    del self._open[position]

    def _read_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        read: set[str],
    ) -> None:
        """Take over the values of a trial; `read` are the attributes that need not be read."""
        for key, value in trial.system_attrs.items():
            if not key.startswith(RUNG_PREFIX) or key in read:
                continue
            rung = Rung(self._bracket_of(study, trial), key)
            bisect.insort(self._values[rung], value)
            read.add(key)

    def count(self, rung: Rung) -> int:
        """How many values are known at a rung."""
        with self._lock:
            return len(self._values[rung])

    def count_better(
        self,
        rung: Rung,
        value: float,
        *,
        maximize: bool,
    ) -> int:
        """How many of the values at a rung are better than `value`."""
        with self._lock:
            values = self._values[rung]
            if maximize:
                return len(values) - bisect.bisect_right(values, value)
            return bisect.bisect_left(values, value)
