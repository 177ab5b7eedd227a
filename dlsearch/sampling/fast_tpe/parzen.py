"""The density of thousands of trials, as Optuna's TPE estimates it, from what is already known.

What a kernel needs is kept from proposal to proposal, in :class:`~.kernels.Kernels`. Everything
else is Optuna's arithmetic in Optuna's order, so that the densities are Optuna's to the last bit;
:func:`log_density` returns None where it cannot promise that.

Source: optuna/samplers/_tpe/parzen_estimator.py and probability_distributions.py, Optuna 5.0. This
works on private names, and is imported by modules alone that are imported after the version has
been checked.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import EPS, _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import _log_gauss_mass_unique

from dlsearch.sampling.fast_tpe.kernels import Kernels

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: With so many terms numpy adds up in another order than from left to right.
_PAIRWISE_TERMS = 8
#: Discrete values of which masses are kept, for one dimension; with one value more, none is kept.
_MAX_VALUES = 512
#: Dimensions, each with its bounds, of which anything is kept: bounds that change without end would
#: fill the memory.
_MAX_DIMENSIONS = 256
#: Optuna's magic clip: the least width is the range by the number of kernels, up to this number.
_MAX_CLIP = 100.0

Array = np.ndarray
#: Kernels by dimension, with its bounds.
KernelsByDimension = dict[Any, Kernels]


@dataclass
class _Sum:
    """A log density that is added up over dimensions.

    Args:
        density: (S, N) the sum over categorical and discrete dimensions.
        bells: (S, N) of each continuous dimension, which are added up at the end.
    """

    density: Array
    bells: list[Array]


def log_density(
    samples: Mapping[str, Array],
    rows: Array,
    numbers: Array,
    space: Mapping[str, BaseDistribution],
    parameters: Any,
    kernels: KernelsByDimension,
) -> Array | None:
    """Logs of the density at `samples`; None where Optuna has to be asked.

    Args:
        samples: (S,) of each dimension, internal representations.
        rows: (N, D) internal representations of the trials.
        numbers: (N,) of the trials.
        space: The dimensions, D of them.
        parameters: Of Optuna's Parzen estimator.
        kernels: What was known before; it is brought up to date.
    """
    if not len(rows):
        return None
    weights = _kernel_weights(len(rows), parameters)
    size = len(next(iter(samples.values())))
    total = _Sum(np.zeros((size, len(weights))), [])
    if len(kernels) > _MAX_DIMENSIONS:
        kernels.clear()

    for column, (name, distribution) in enumerate(space.items()):
        values = np.array(samples[name])
        seen = np.ascontiguousarray(rows[:, column])
        if isinstance(distribution, CategoricalDistribution):
            choices = len(distribution.choices)
            total.density += _log_categorical(values, seen, choices, parameters.prior_weight)
            continue
        dimension = _NumericDimension(name, distribution)
        known = kernels.setdefault(dimension.key, Kernels())
        is_added = dimension.add_density(total, values, seen, numbers, parameters, known)
        if not is_added:
            return None

    density = total.density
    if total.bells:
        density += _add_up(total.bells)
    density += np.log(weights[np.newaxis])
    return _log_sum_exp(density)


def _kernel_weights(
    count: int,
    parameters: Any,
) -> Array:
    """(N + 1,) the weights of `count` kernels and of the prior, which is the last."""
    weights = _ParzenEstimator._call_weights_func(parameters.weights, count)
    weights = np.append(weights, [parameters.prior_weight])
    weights /= weights.sum()
    return np.asarray(weights)


def _log_sum_exp(density: Array) -> Array:
    """(S,) logs of the sums over kernels; `density` is overwritten."""
    largest = density.max(axis=1)
    largest[np.isneginf(largest)] = 0
    density -= largest[:, np.newaxis]
    with np.errstate(divide="ignore"):
        sums = np.exp(density, out=density).sum(axis=1)
        return np.asarray(np.log(sums) + largest)


def _add_up(bells: list[Array]) -> Array:
    """The sum over dimensions, added up in numpy's order."""
    if len(bells) < _PAIRWISE_TERMS:
        return functools.reduce(np.add, bells)
    stacked = np.ascontiguousarray(np.stack(bells, axis=-1))
    return np.asarray(stacked.sum(axis=-1))


# -- categorical dimensions ------------------------------------------------------------------------
def _log_categorical(
    values: Array,
    seen: Array,
    choices: int,
    prior: float,
) -> Array:
    """(S, N + 1) logs of the probabilities.

    A trial's kernel depends on its choice alone, so that one row a choice is computed. The last row
    is the prior's.
    """
    kernels = len(seen) + 1
    table = np.full((choices + 1, choices), prior / kernels)
    diagonal = np.arange(choices)
    table[diagonal, diagonal] += 1
    sums = table.sum(axis=1, keepdims=True)
    table /= np.where(sums == 0, 1, sums)
    logs = np.log(table)
    rows_of_kernels = np.append(seen.astype(int), choices)
    return logs.T[values.astype(np.int64)][:, rows_of_kernels]


# -- numeric dimensions ----------------------------------------------------------------------------
class _NumericDimension:
    """A float or int dimension: its bounds, and the density of its kernels.

    Args:
        name: The parameter's name.
        distribution: Optuna's float or int distribution.
    """

    def __init__(
        self,
        name: str,
        distribution: Any,
    ) -> None:
        self._distribution = distribution
        self._step = distribution.step
        self._is_log = distribution.log
        #: What the kernels depend on.
        self.key = (
            name,
            distribution.low,
            distribution.high,
            self._step,
            self._is_log,
        )

    def add_density(
        self,
        total: _Sum,
        values: Array,
        seen: Array,
        numbers: Array,
        parameters: Any,
        kernels: Kernels,
    ) -> bool:
        """Add this dimension's density to `total`; False where a value lies outside of the bounds.

        Args:
            total: The sum over dimensions.
            values: (S,) internal representations, at which the density is wanted.
            seen: (N,) internal representations of the trials.
            numbers: (N,) of the trials.
            parameters: Of Optuna's Parzen estimator.
            kernels: What is known of the kernels.
        """
        low, high = self._find_bounds()
        centres, widths = _make_kernels(seen, self._distribution, parameters)
        keeps_values = self._has_few_values()
        masses, pair_indices = kernels.masses_within_bounds(
            numbers,
            centres,
            widths,
            low,
            high,
            discrete=keeps_values,
        )
        if self._step is None:
            return self._add_bells(total, values, centres, widths, masses)

        distinct, inverse = np.unique(values, return_inverse=True)
        left, right = self._find_borders(distinct)
        if keeps_values:
            on_values = kernels.masses_on_values(
                distinct,
                left,
                right,
                centres,
                widths,
                pair_indices,
            )
        else:
            on_values = _masses_between(left, right, centres, widths)
        total.density += on_values[inverse]
        total.density -= masses
        return True

    def _add_bells(
        self,
        total: _Sum,
        values: Array,
        centres: Array,
        widths: Array,
        masses: Array,
    ) -> bool:
        """Add a continuous dimension's density to `total`."""
        low, high = self._find_bounds()
        positions = np.log(values) if self._is_log else values
        is_inside = (positions >= low) & (positions <= high)
        if not is_inside.all():
            return False  # outside of the bounds by a rounding
        bell = positions[:, np.newaxis] - centres
        bell /= widths
        bell *= bell
        bell *= -0.5
        bell -= _truncnorm._norm_pdf_logC
        bell -= masses
        bell -= np.log(widths)
        total.bells.append(bell)
        return True

    def _find_bounds(self) -> tuple[float, float]:
        """The bounds of the bells: half a step beyond those of a discrete dimension."""
        half_step = 0.0 if self._step is None else self._step / 2
        low = self._distribution.low - half_step
        high = self._distribution.high + half_step
        if self._is_log:
            return math.log(low), math.log(high)
        return low, high

    def _find_borders(self, values: Array) -> tuple[Array, Array]:
        """(V,) where the shares of discrete values begin and end."""
        left = values - self._step / 2
        right = values + self._step / 2
        if self._is_log:
            return np.log(left), np.log(right)
        return left, right

    def _has_few_values(self) -> bool:
        """Whether the masses on its discrete values are kept."""
        if self._step is None:
            return False
        steps = (self._distribution.high - self._distribution.low) / self._step
        return bool(steps < _MAX_VALUES)


def _masses_between(
    left: Array,
    right: Array,
    centres: Array,
    widths: Array,
) -> Array:
    """(V, N) logs of the masses from `left` to `right`, of which nothing is kept."""
    pairs, inverse = np.unique(centres + 1j * widths, return_inverse=True)
    pair_centres = pairs.real
    pair_widths = pairs.imag
    lower = (left[:, np.newaxis] - pair_centres) / pair_widths
    upper = (right[:, np.newaxis] - pair_centres) / pair_widths
    masses = _log_gauss_mass_unique(lower, upper)
    return np.asarray(masses[:, inverse])


def _make_kernels(
    seen: Array,
    distribution: Any,
    parameters: Any,
) -> tuple[Array, Array]:
    """(N + 1,) centres and widths of the kernels; the last is the prior's.

    A width is the way to the further neighbour, within limits.
    """
    low = distribution.low
    high = distribution.high
    if distribution.step is not None:
        low = low - distribution.step / 2
        high = high + distribution.step / 2
    if distribution.log:
        seen = np.log(seen)
        low = np.log(low)
        high = np.log(high)
    widths = _distances_to_neighbours(seen, low, high, parameters)
    least = EPS
    if parameters.consider_magic_clip:
        kernels = 1.0 + len(seen) + 1
        least = (high - low) / min(_MAX_CLIP, kernels)
    widths = np.clip(widths, least, high - low)
    centres = np.append(seen, [0.5 * (low + high)])
    return centres, np.append(widths, [high - low])


def _distances_to_neighbours(
    seen: Array,
    low: float,
    high: float,
    parameters: Any,
) -> Array:
    """(N,) the distance of each value to the further of its neighbours; the bounds are two."""
    order = np.argsort(seen)
    fence = np.empty(len(seen) + 2)
    fence[0] = low
    fence[1:-1] = seen[order]
    fence[-1] = high
    distances = np.diff(fence)
    in_order = np.maximum(distances[:-1], distances[1:])
    if not parameters.consider_endpoints and len(fence) >= 4:
        in_order[0] = fence[2] - fence[1]
        in_order[-1] = fence[-2] - fence[-3]
    widths = np.empty(len(seen))
    widths[order] = in_order
    return widths
