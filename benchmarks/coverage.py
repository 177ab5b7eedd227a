"""How often each interval that a report or a comparison prints holds the value that it is of.

    python benchmarks/coverage.py [--draws 2000] [--out FILE]

For each number of values and each distribution, samples are drawn whose mean is known, and the share
of the intervals that hold it is counted. An interval that is quoted must cover within two points of
its name; the bootstrap that stands beside Student's below 50 values need not, and does not. Means
over seeds are drawn from three distributions: normal; accuracy-like, a share of 10,000 examples
right whose chance varies with the seed; and skewed (a gamma distribution of shape 4, skewness 1).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlsearch.report.compare.statistics import newcombe_interval
from dlsearch.report.facts import intervals

NOMINAL = 0.95
#: How far the coverage of a quoted interval may lie from its name.
MARGIN = 0.02
#: Standard errors of the simulation that are allowed for on top.
DEVIATIONS = 2.0
EXAMPLES = 10_000
PARTS = ("means", "differences", "proportions")
COUNTS = (2, 3, 5, 10, 20, 50)
SHAPE = 4.0

Interval = tuple[float, float]
Draw = Callable[[np.random.Generator, int], np.ndarray]


class Distribution(NamedTuple):
    """What scores over seeds are drawn from."""

    name: str
    mean: float
    draw: Draw


class Row(NamedTuple):
    """The coverage of one interval; `quoted` says whether a report quotes it there."""

    interval: str
    n: str
    distribution: str
    coverage: float
    draws: int
    quoted: bool

    @property
    def is_within(self) -> bool:
        """Whether it lies within two points of its name, as far as so many draws can tell."""
        error = float(np.sqrt(NOMINAL * (1 - NOMINAL) / self.draws))
        return abs(self.coverage - NOMINAL) <= MARGIN + DEVIATIONS * error


def draw_normal(rng: np.random.Generator, n: int) -> np.ndarray:
    """Losses, say."""
    return rng.normal(1.0, 0.1, n)


def draw_accuracies(rng: np.random.Generator, n: int) -> np.ndarray:
    """Shares of 10,000 examples, as a metric in single precision gives them."""
    chances = rng.normal(0.97, 0.002, n)
    counts = rng.binomial(EXAMPLES, chances)
    return (counts / EXAMPLES).astype(np.float32).astype(float)


def draw_skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """With a long tail to one side."""
    return rng.gamma(SHAPE, 0.01, n)


DISTRIBUTIONS = (
    Distribution("normal", 1.0, draw_normal),
    Distribution("accuracy-like", 0.97, draw_accuracies),
    Distribution("skewed", 0.01 * SHAPE, draw_skewed),
)


def holds(interval: Interval, value: float) -> bool:
    """Whether the value lies in it."""
    low, high = interval
    return low <= value <= high


def measure_means(distribution: Distribution, n: int, draws: int) -> list[Row]:
    """Student's interval of a mean over `n` seeds, and the bootstrap's beside it."""
    rng = np.random.default_rng(n)
    found: dict[str, list[bool]] = {"Student's t": [], "BCa bootstrap": []}
    quoted: set[str] = set()
    for _ in range(draws):
        estimate = intervals.estimate_mean(distribution.draw(rng, n).tolist())
        if estimate["student"] is not None:
            found["Student's t"].append(holds(estimate["student"], distribution.mean))
        if estimate["interval"] is not None:
            found["BCa bootstrap"].append(holds(estimate["interval"], distribution.mean))
        chosen = intervals.quote_interval(estimate)
        if chosen is not None:
            quoted.add(chosen.method)
    return [
        Row(name, str(n), distribution.name, float(np.mean(hits)), len(hits), name in quoted)
        for name, hits in found.items()
        if hits
    ]


def measure_differences(distribution: Distribution, n: int, draws: int) -> list[Row]:
    """Welch's interval of the difference of two means, of which the second varies twice as much."""
    rng = np.random.default_rng(n)
    welch: list[bool] = []
    bootstrap: list[bool] = []
    for _ in range(draws):
        first = distribution.draw(rng, n)
        second = 2 * distribution.draw(rng, n)
        estimate = intervals.estimate_difference(first.tolist(), second.tolist())
        difference = -distribution.mean
        if estimate["student"] is not None:
            welch.append(holds(estimate["student"], difference))
        if estimate["interval"] is not None:
            bootstrap.append(holds(estimate["interval"], difference))
    is_bootstrap_quoted = n >= intervals.ENOUGH_FOR_BOOTSTRAP
    rows = [("Welch's t", welch, not is_bootstrap_quoted)]
    rows.append(("BCa bootstrap of two means", bootstrap, is_bootstrap_quoted))
    return [
        Row(name, f"{n} + {n}", distribution.name, float(np.mean(hits)), len(hits), quoted)
        for name, hits, quoted in rows
        if hits
    ]


def measure_proportions(p: float, n: int, draws: int) -> list[Row]:
    """Intervals of a test accuracy on `n` examples, and of the difference of two."""
    rng = np.random.default_rng(n)
    q = p - 0.01
    names = ("Wilson", "Clopper and Pearson", "Newcombe", "equal scores not told apart")
    found: dict[str, list[bool]] = {name: [] for name in names}
    for right, other in rng.binomial(n, [p, q], (draws, 2)).tolist():
        found["Wilson"].append(holds(intervals.wilson(right, n), p))
        found["Clopper and Pearson"].append(holds(intervals.clopper_pearson(right, n), p))
        found["Newcombe"].append(holds(newcombe_interval(right, n, other, n), p - q))
    for right, other in rng.binomial(n, p, (draws, 2)).tolist():
        width = intervals.resolution(max(right, other) / n, n)
        found["equal scores not told apart"].append(abs(right - other) / n < width)
    return [
        Row(name, f"{n:,} examples", f"accuracy {p}", float(np.mean(hits)), draws, True)
        for name, hits in found.items()
    ]


def measure_all(parts: Sequence[str], draws: int) -> Iterator[Row]:
    """All rows of these parts of the table."""
    if "means" in parts:
        for n in COUNTS:
            for distribution in DISTRIBUTIONS:
                yield from measure_means(distribution, n, draws)
    if "differences" in parts:
        for n in COUNTS[1:]:
            for distribution in DISTRIBUTIONS:
                yield from measure_differences(distribution, n, draws)
    if "proportions" in parts:
        for n in (1_000, 10_000):
            for p in (0.75, 0.92, 0.98):
                yield from measure_proportions(p, n, draws)


def cells_of(row: Row) -> list[str]:
    """A row of the table."""
    if not row.quoted:
        verdict = "beside it"
    elif row.is_within:
        verdict = "yes"
    else:
        verdict = "**no**"
    share = f"{100 * row.coverage:.1f} %"
    return [row.interval, row.n, row.distribution, share, verdict]


def main() -> int:
    """Print the table; 1 where a quoted interval covers too little or too much."""
    from machine import caption, publish, table

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", default=",".join(PARTS), help="some of these parts")
    parser.add_argument("--out", type=Path, help="append the table to this file")
    options = parser.parse_args()
    rows = list(measure_all(options.only.split(","), options.draws))
    outside = sum(row.quoted and not row.is_within for row in rows)
    headings = ["95 % interval", "n", "values", "covers", "within 2 points"]
    n = f"{options.draws} draws a row, {outside} quoted intervals outside"
    text = table(headings, [cells_of(row) for row in rows])
    publish(f"{text}\n\n{caption(n, ['dlsearch', 'numpy', 'scipy'])}", options.out)
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
