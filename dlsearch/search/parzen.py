"""The density of thousands of trials, as Optuna's TPE estimates it, without computing anew what has not changed.

From one proposal to the next a trial's kernel stays what it was, but for the few whose neighbours changed: the mass
that its bell has within the bounds is kept (:class:`Kernels`), and so is, where values are discrete, the mass that
falls on each of them. Everything else is Optuna's arithmetic in Optuna's order, so that the densities are its own to
the last bit; :func:`log_density` returns None where it cannot promise that.

Source: optuna/samplers/_tpe/parzen_estimator.py and probability_distributions.py, Optuna 5.0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import EPS, _ParzenEstimator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution

#: From here on numpy adds up in another order than from left to right.
_PAIRWISE = 8
#: Pairs of centre and width of which masses are kept; some more than a space of a thousand values has.
_PAIRS = 8192


class Kernels:
    """What is known of the kernels of one dimension, by the numbers of their trials."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._sigma = np.empty(0)  # by number, as is the mass; NaN where none is known
        self._mass = np.empty(0)
        self._pair = np.empty(0, dtype=np.int64)
        self._pairs: dict[tuple[float, float], int] = {}
        self._rows: dict[float, np.ndarray] = {}  # by discrete value: log of the mass on it, by pair

    def masses(
        self, numbers: np.ndarray, mu: np.ndarray, sigma: np.ndarray, low: float, high: float, *, discrete: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N,) logs of the masses within the bounds, and (N,) indices of pairs for :meth:`on`.

        Args:
            numbers: (N - 1,) of the trials; the last kernel is the prior's.
            mu: (N,) centres.
            sigma: (N,) widths.
            low: The lower bound.
            high: The upper bound.
            discrete: Whether indices of pairs are wanted.
        """
        if len(numbers) and (size := int(numbers.max()) + 1) > len(self._sigma):
            room = max(size, 2 * len(self._sigma), 256) - len(self._sigma)
            self._sigma = np.append(self._sigma, np.full(room, np.nan))
            self._mass = np.append(self._mass, np.full(room, np.nan))
            self._pair = np.append(self._pair, np.zeros(room, dtype=np.int64))
        if len(self._pairs) > _PAIRS:
            self._pairs, self._rows = {}, {}
            self._sigma[:] = np.nan
        known = np.append(self._sigma[numbers] == sigma[:-1], False)
        new = np.flatnonzero(~known)
        mass, pair = np.append(self._mass[numbers], 0.0), np.append(self._pair[numbers], 0)
        mass[new] = _truncnorm._log_gauss_mass((low - mu[new]) / sigma[new], (high - mu[new]) / sigma[new])
        if discrete:
            both = zip(mu[new].tolist(), sigma[new].tolist(), strict=True)
            pair[new] = [self._pairs.setdefault(each, len(self._pairs)) for each in both]
        mine = numbers[new[:-1]]
        self._sigma[mine], self._mass[mine], self._pair[mine] = sigma[new[:-1]], mass[new[:-1]], pair[new[:-1]]
        return mass, pair

    def on(self, value: float, left: float, right: float) -> np.ndarray:
        """(pairs,) logs of the masses that fall on a discrete value, from `left` to `right`."""
        row = self._rows.get(value, np.empty(0))
        if len(row) < len(self._pairs):
            mu, sigma = np.array(list(self._pairs)[len(row) :]).T
            row = np.append(row, _truncnorm._log_gauss_mass((left - mu) / sigma, (right - mu) / sigma))
            self._rows[value] = row
        return row


def log_density(
    samples: Mapping[str, np.ndarray],
    rows: np.ndarray,
    numbers: np.ndarray,
    space: Mapping[str, BaseDistribution],
    parameters: Any,
    kernels: dict[Any, Kernels],
) -> np.ndarray | None:
    """Logs of the density at `samples`; None where Optuna has to be asked.

    Args:
        samples: (S,) of each dimension, internal representations.
        rows: (N, D) internal representations of the trials.
        numbers: (N,) of the trials.
        space: The dimensions, D of them.
        parameters: Of Optuna's Parzen estimator.
        kernels: What was known before; it is brought up to date.
    """
    continuous = [name for name, dist in space.items() if _step(dist) is None]
    if not len(rows) or len(continuous) >= _PAIRWISE:
        return None
    weights = _ParzenEstimator._call_weights_func(parameters.weights, len(rows))
    weights = np.append(weights, [parameters.prior_weight])
    weights /= weights.sum()
    size = len(next(iter(samples.values())))
    density = np.zeros((size, len(weights)))
    bells: np.ndarray | None = None
    for at, (name, dist) in enumerate(space.items()):
        x, seen = np.array(samples[name]), np.ascontiguousarray(rows[:, at])
        if isinstance(dist, CategoricalDistribution):
            density += _categorical(x, seen, len(dist.choices), parameters.prior_weight)
            continue
        step, is_log = dist.step, dist.log  # type: ignore[attr-defined]
        half = 0.0 if step is None else step / 2
        low, high = dist.low - half, dist.high + half  # type: ignore[attr-defined]
        low, high = (math.log(low), math.log(high)) if is_log else (low, high)
        mu, sigma = _bells(seen, dist, parameters)
        mine = kernels.setdefault((name, dist.low, dist.high, step, is_log), Kernels())  # type: ignore[attr-defined]
        mass, pair = mine.masses(numbers, mu, sigma, low, high, discrete=step is not None)
        if step is not None:
            values, inverse = np.unique(x, return_inverse=True)
            left, right = values - step / 2, values + step / 2
            left, right = (np.log(left), np.log(right)) if is_log else (left, right)
            found = [mine.on(*each)[pair] for each in zip(values.tolist(), left, right, strict=True)]
            density += np.array(found)[inverse]
            density -= mass
            continue
        x = np.log(x) if is_log else x
        if not ((x >= low) & (x <= high)).all():
            return None  # outside of the bounds by a rounding
        bell = x[:, np.newaxis] - mu
        bell /= sigma
        bell *= bell
        bell *= -0.5
        bell -= _truncnorm._norm_pdf_logC
        bell -= mass
        bell -= np.log(sigma)
        bells = bell if bells is None else np.add(bells, bell, out=bells)
    if bells is not None:
        density += bells
    density += np.log(weights[np.newaxis])
    most = density.max(axis=1)
    most[np.isneginf(most)] = 0
    density -= most[:, np.newaxis]
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(density, out=density).sum(axis=1)) + most)


def _step(dist: BaseDistribution) -> float | None:
    return 0.0 if isinstance(dist, CategoricalDistribution) else dist.step  # type: ignore[attr-defined]


def _categorical(x: np.ndarray, seen: np.ndarray, choices: int, prior: float) -> np.ndarray:
    """(S, N + 1) logs of the probabilities; a trial's kernel depends on its choice alone, the last is the prior's."""
    table = np.full((choices + 1, choices), prior / (len(seen) + 1))
    table[np.arange(choices), np.arange(choices)] += 1
    sums = table.sum(axis=1, keepdims=True)
    table /= np.where(sums == 0, 1, sums)
    logs = np.log(table)
    return logs.T[x.astype(np.int64)][:, np.append(seen.astype(int), choices)]


def _bells(seen: np.ndarray, dist: Any, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
    """(N + 1,) centres, and widths: the way to the further neighbour, within limits; the last is the prior's."""
    low, high = dist.low, dist.high
    if dist.step is not None:
        low, high = low - dist.step / 2, high + dist.step / 2
    if dist.log:
        seen, low, high = np.log(seen), np.log(low), np.log(high)
    order = np.argsort(seen)
    fence = np.empty(len(seen) + 2)
    fence[0], fence[1:-1], fence[-1] = low, seen[order], high
    widths = np.maximum(fence[1:-1] - fence[:-2], fence[2:] - fence[1:-1])
    if not parameters.consider_endpoints and len(fence) >= 4:
        widths[0], widths[-1] = fence[2] - fence[1], fence[-2] - fence[-3]
    sigma = np.empty(len(seen))
    sigma[order] = widths
    least = (high - low) / min(100.0, 1.0 + len(seen) + 1) if parameters.consider_magic_clip else EPS
    sigma = np.clip(sigma, least, high - low)
    return np.append(seen, [0.5 * (low + high)]), np.append(sigma, [high - low])
