"""The kernels of one dimension, of which what has not changed is not computed again.

Each finished trial has a kernel, a bell around its value. From one proposal to the next the kernel
stays what it was, except for the few whose neighbours changed. So the mass that a bell has within
the bounds is kept, and so is, where values are discrete, the mass that falls on each of them.

This works on private names of Optuna 5.0, and is imported by modules alone that are imported after
the version has been checked.
"""

from __future__ import annotations

import numpy as np
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.probability_distributions import _log_gauss_mass_unique

#: Pairs of centre and width of which masses are kept, for one dimension; with one pair more, all
#: are forgotten.
_MAX_PAIRS = 4096
#: Trials for which there is space in the beginning.
_FIRST_TRIALS = 256

Array = np.ndarray


class Kernels:
    """What is known of the kernels of one dimension, by the numbers of their trials.

    Centre, width and mass are NaN where a trial's kernel is not known.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._centres = np.empty(0)
        self._widths = np.empty(0)
        self._masses = np.empty(0)
        self._pair_indices = np.empty(0, dtype=np.int64)
        #: Indices of pairs of centre and width, and of discrete values.
        self._pairs: dict[tuple[float, float], int] = {}
        self._values: dict[float, int] = {}
        #: By index of value and of pair: log of the mass on it; NaN where it is not known.
        self._masses_on_values = np.empty((0, 0))

    def masses_within_bounds(
        self,
        numbers: Array,
        centres: Array,
        widths: Array,
        low: float,
        high: float,
        *,
        discrete: bool,
    ) -> tuple[Array, Array]:
        """(N,) logs of masses, and (N,) indices of pairs for :meth:`masses_on_values`.

        Args:
            numbers: (N - 1,) of the trials; the last kernel is the prior's.
            centres: (N,) of the kernels.
            widths: (N,) of the kernels.
            low: The lower bound.
            high: The upper bound.
            discrete: Whether indices of pairs are wanted.
        """
        if len(numbers):
            self._make_space_for_trials(int(numbers.max()) + 1)
        if len(self._pairs) > _MAX_PAIRS:
            self._forget_pairs()

        # The centre of a trial that runs is what was proposed; it may end with another, where
        # bounds have changed.
        is_same_width = self._widths[numbers] == widths[:-1]
        is_same_centre = self._centres[numbers] == centres[:-1]
        is_known = np.append(is_same_width & is_same_centre, False)
        new = np.flatnonzero(~is_known)

        new_centres = centres[new]
        new_widths = widths[new]
        masses = np.append(self._masses[numbers], 0.0)
        masses[new] = _truncnorm._log_gauss_mass(
            (low - new_centres) / new_widths,
            (high - new_centres) / new_widths,
        )
        pair_indices = np.append(self._pair_indices[numbers], 0)
        if discrete:
            pair_indices[new] = self._index_pairs(new_centres, new_widths)

        # The prior's kernel is always new, and the last: it is not kept.
        new_trials = new[:-1]
        new_numbers = numbers[new_trials]
        self._centres[new_numbers] = centres[new_trials]
        self._widths[new_numbers] = widths[new_trials]
        self._masses[new_numbers] = masses[new_trials]
        self._pair_indices[new_numbers] = pair_indices[new_trials]
        return masses, pair_indices

    def masses_on_values(
        self,
        values: Array,
        left: Array,
        right: Array,
        centres: Array,
        widths: Array,
        pair_indices: Array,
    ) -> Array:
        """(V, N) logs of the masses that fall on discrete values, each from `left` to `right`.

        Args:
            values: (V,) distinct ones.
            left: (V,) their lower borders.
            right: (V,) their upper borders.
            centres: (N,) of the kernels.
            widths: (N,) of the kernels.
            pair_indices: (N,) from :meth:`masses_within_bounds`.
        """
        rows = np.array([self._index_value(value) for value in values.tolist()])
        self._make_space_for_values()

        pairs, first, inverse = np.unique(
            pair_indices,
            return_index=True,
            return_inverse=True,
        )
        masses = self._masses_on_values[np.ix_(rows, pairs)]
        row, column = np.nonzero(np.isnan(masses))
        if len(row):
            centre = centres[first][column]
            width = widths[first][column]
            found = _log_gauss_mass_unique(
                (left[row] - centre) / width,
                (right[row] - centre) / width,
            )
            masses[row, column] = found
            self._masses_on_values[rows[row], pairs[column]] = found
        return masses[:, inverse]

    def _index_pairs(
        self,
        centres: Array,
        widths: Array,
    ) -> list[int]:
        """The indices of pairs of centre and width; a new pair gets the next one."""
        pairs = zip(centres.tolist(), widths.tolist(), strict=True)
        return [self._pairs.setdefault(pair, len(self._pairs)) for pair in pairs]

    def _index_value(self, value: float) -> int:
        """The index of a discrete value; a new value gets the next one."""
        return self._values.setdefault(value, len(self._values))

    def _forget_pairs(self) -> None:
        """Forget all pairs, and so every kernel: an unknown width makes a kernel new."""
        self._pairs = {}
        self._masses_on_values[:] = np.nan
        self._widths[:] = np.nan

    def _make_space_for_trials(self, count: int) -> None:
        """Extend the arrays by number to `count` trials at least."""
        size = len(self._widths)
        if count <= size:
            return
        added = max(count, 2 * size, _FIRST_TRIALS) - size
        unknown = np.full(added, np.nan)
        self._centres = np.append(self._centres, unknown)
        self._widths = np.append(self._widths, unknown)
        self._masses = np.append(self._masses, unknown)
        no_pairs = np.zeros(added, dtype=np.int64)
        self._pair_indices = np.append(self._pair_indices, no_pairs)

    def _make_space_for_values(self) -> None:
        """Extend the table to all values and pairs that have an index."""
        rows, columns = self._masses_on_values.shape
        new_rows = _grown_size(rows, len(self._values))
        new_columns = _grown_size(columns, len(self._pairs))
        if new_rows == rows and new_columns == columns:
            return
        grown = np.full((new_rows, new_columns), np.nan)
        grown[:rows, :columns] = self._masses_on_values
        self._masses_on_values = grown


def _grown_size(
    size: int,
    wanted: int,
) -> int:
    """`size` where that suffices; else at least twice as much, so that growing stays rare."""
    if size >= wanted:
        return size
    return max(wanted, 2 * size)
