"""The statistics of the search: best so far, distribution, expected best, busy and idle slots.

Pure functions of numbers; each names its source. Nothing here draws or formats.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlsearch.report.study import Trial

#: Classes of Optuna's samplers whose trials do not depend on earlier results.
INDEPENDENT = ("random", "qmc", "grid", "bruteforce")
#: Those of them that go through all points.
EXHAUSTIVE = ("grid", "bruteforce")


class Span(NamedTuple):
    """A stretch of time: its start and its end, in seconds since 1970."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


class ExpectedBest(NamedTuple):
    """The best of `n` trials: its mean and its quartiles."""

    n: int
    mean: float
    lower_quartile: float
    upper_quartile: float


def best_so_far(trials: Sequence[Trial], maximize: bool) -> list[tuple[int, float]]:
    """The steps of the best score by trial number.

    Returns:
        ``(number, best up to and with it)`` for each trial that improves on all before it.
    """
    steps: list[tuple[int, float]] = []
    best: float | None = None
    for trial in trials:
        if not trial.scored:
            continue
        value = trial.values[0]
        if best is None or _is_better(value, best, maximize):
            best = value
            steps.append((trial.number, value))
    return steps


def _is_better(value: float, other: float, maximize: bool) -> bool:
    if maximize:
        return value > other
    return value < other


def empirical(values: Iterable[float]) -> list[tuple[float, float]]:
    """The empirical distribution function: ``(x, share of values <= x)`` at each distinct value."""
    ordered = sorted(values)
    n = len(ordered)
    share_up_to: dict[float, float] = {}
    for rank, value in enumerate(ordered, start=1):
        share_up_to[value] = rank / n  # of equal values the last one counts
    return sorted(share_up_to.items())


def expected_best(values: Sequence[float], maximize: bool) -> list[ExpectedBest]:
    """Expected best of ``n`` trials, n = 1 … N, drawn without replacement from the N that were run.

    The idea of Dodge et al. (2019), with the unbiased estimator of Tang et al. (2020):
    E[max of n] = Σᵢ V₍ᵢ₎ C(i−1, n−1) / C(N, n), over the order statistics V₍₁₎ ≤ … ≤ V₍N₎.
    """
    import numpy as np

    sign = 1 if maximize else -1
    signed = np.asarray(values, dtype=float) * sign
    ordered = np.sort(signed)
    rows: list[ExpectedBest] = []
    for n in range(1, len(ordered) + 1):
        mass = _mass_of_maximum(n, len(ordered))
        mean = float(mass @ ordered)
        cumulative = np.cumsum(mass)
        quartiles = [
            sign * _quantile(ordered, cumulative, 0.25),
            sign * _quantile(ordered, cumulative, 0.75),
        ]
        row = ExpectedBest(
            n=n,
            mean=sign * mean,
            lower_quartile=min(quartiles),
            upper_quartile=max(quartiles),
        )
        rows.append(row)
    return rows


def _mass_of_maximum(n: int, total: int) -> NDArray[Any]:
    """The probability of each order statistic to be the largest of `n`: C(i−1, n−1) / C(N, n).

    It is computed by logarithms, since binomial coefficients overflow.
    """
    import numpy as np

    ranks = np.arange(1, total + 1)
    can_be_largest = ranks >= n
    log_ways = _log_binomial(ranks[can_be_largest] - 1, n - 1)
    log_samples = _log_binomial(total, n)
    log_mass = np.full(total, -np.inf)
    log_mass[can_be_largest] = log_ways - log_samples
    mass = np.exp(log_mass)
    return mass / mass.sum()


def _log_binomial(n: Any, k: int) -> Any:
    """The logarithm of C(n, k), by those of factorials; of each element where `n` is an array."""
    from scipy.special import gammaln

    log_orders = gammaln(n + 1)
    log_repeats = gammaln(k + 1)
    log_rest = gammaln(n - k + 1)
    return log_orders - log_repeats - log_rest


def _quantile(ordered: NDArray[Any], cumulative: NDArray[Any], level: float) -> float:
    """The first of the ordered values at which the cumulative mass reaches the level."""
    import numpy as np

    first = int(np.searchsorted(cumulative, level))
    last = len(ordered) - 1
    index = min(first, last)
    return float(ordered[index])


def is_exhaustive(sampler: Mapping[str, Any] | None) -> bool:
    """Whether the sampler goes through all points of the space."""
    return _is_one_of(sampler, EXHAUSTIVE)


def _is_one_of(sampler: Mapping[str, Any] | None, words: Sequence[str]) -> bool:
    """Whether the name of a sampler's class, or of what makes it, has one of these words."""
    settings = sampler or {}
    target = settings.get("_target_") or settings.get("name") or ""
    class_name = str(target).rsplit(".", 1)[-1]
    lower = class_name.lower()
    return any(word in lower for word in words)


def independent(sampler: Mapping[str, Any] | None, trials: int | None = None) -> bool:
    """Whether the trials were proposed without looking at earlier results.

    Args:
        sampler: Its config; one that adapts draws its first ``n_startup_trials`` at random.
        trials: How many there were; None for more than those.
    """
    settings = sampler or {}
    startup = settings.get("n_startup_trials")
    if trials is not None and isinstance(startup, int) and trials <= startup:
        return True
    return _is_one_of(settings, INDEPENDENT)


def choice(value: Any) -> str | int | float | bool | None:
    """The scalar that a categorical value is known by; lists and mappings become their text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def busy(intervals: Sequence[tuple[float, float]]) -> list[tuple[float, int]]:
    """How many of the intervals are open: ``(time, count from then on)`` at each change."""
    changes: dict[float, int] = {}
    for start, end in intervals:
        changes[start] = changes.get(start, 0) + 1
        changes[end] = changes.get(end, 0) - 1
    level = 0
    steps: list[tuple[float, int]] = []
    for at in sorted(changes):
        change = changes[at]
        level += change
        if change or not steps:
            steps.append((at, level))
    return steps


def idle(intervals: Sequence[tuple[float, float]], share: float = 0.1) -> list[Span]:
    """Gaps in which nothing ran, longer than `share` of the time in which something did."""
    steps = busy(intervals)
    if not steps:
        return []
    gaps = _list_gaps(steps)
    first, _ = steps[0]
    last, _ = steps[-1]
    idle_seconds = sum(gap.seconds for gap in gaps)
    active_seconds = (last - first) - idle_seconds
    shortest = share * active_seconds
    return [gap for gap in gaps if gap.seconds > shortest]


def _list_gaps(steps: Sequence[tuple[float, int]]) -> list[Span]:
    """The stretches between two changes in which no interval is open."""
    gaps: list[Span] = []
    for (start, level), (end, _) in itertools.pairwise(steps):
        if level == 0:
            gaps.append(Span(start, end))
    return gaps
