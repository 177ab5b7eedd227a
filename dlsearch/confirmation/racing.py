"""Which configurations are trained again after the search, on which seeds, and which of them wins.

Decisions only.

Everything here is a function of values that are known: of no clock, no worker, and no order in
which replicas ended. What runs the replicas and keeps their results is in
:mod:`dlsearch.confirmation.rounds`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlsearch.study.models import Finalist

#: Chance, over all comparisons of a round, that racing drops a configuration that would have won.
ERROR_RATE = 0.05
#: Finalists of a round, and seeds of a finalist, are at most so many.
LIMIT = 998
#: Seeds that every finalist gets before any is compared.
LEAST_SEEDS = 2

#: Values of one finalist's replicas: None where it failed or was lost for good, absent where it is
#: not known yet.
Values = Mapping[int, float | None]


@dataclass(frozen=True)
class Candidate:
    """A completed trial.

    Args:
        number: Its number.
        params: Searched values.
        value: The objective.
        default: Whether it is the default configuration.
    """

    number: int
    params: Mapping[str, Any]
    value: float
    default: bool = False


def key(params: Mapping[str, Any]) -> str:
    """What two equal parameter sets have in common."""
    return json.dumps(params, sort_keys=True)


def finalists(
    candidates: Sequence[Candidate],
    *,
    top: int,
    maximize: bool,
    defaults: Mapping[str, Any] | None = None,
    with_default: bool = True,
) -> list[Finalist]:
    """The best `top` candidates with distinct parameters, best first, and the default configuration.

    The default configuration is always among them: as the trial that ran it, or as the config was
    composed. It takes no place of the `top`, unless it is one of them itself.

    Args:
        candidates: The completed trials.
        top: How many.
        maximize: Whether more is better.
        defaults: The composed config's value of every searched key.
        with_default: Whether the default configuration may win: not where it is known to violate a
            constraint.
    """
    sign = 1.0 if maximize else -1.0
    found: list[Finalist] = []
    seen: set[str] = set()
    default: Finalist | None = None
    known = None if defaults is None else key(defaults)
    for each in sorted(candidates, key=lambda c: (-sign * c.value, c.number)):
        if key(each.params) in seen:
            continue
        seen.add(key(each.params))
        is_default = each.default or key(each.params) == known
        finalist = Finalist(each.number, is_default, dict(each.params), each.value)
        if is_default and default is None:
            default = finalist
        if len(found) < top:
            found.append(finalist)
    if with_default and not any(each.default for each in found):
        found.append(default or Finalist(None, True, dict(defaults or {}), None))
    return found


@dataclass(frozen=True)
class Race:
    """What a round still has to run, and who has won it.

    Args:
        dropped: Finalist → the number of seeds after which it was dropped.
        wanted: (finalist, replica) pairs without a result that are to be run, in the order to start
            them in.
        winner: The finalist that has won; None while replicas are wanted, or when all of them
            failed.
        kept: The winner's best replica.
        decided: Whether nothing is wanted any more.
    """

    dropped: dict[int, int]
    wanted: list[tuple[int, int]]
    winner: int | None
    kept: int | None
    decided: bool


def race(
    field: Sequence[Finalist],
    values: Sequence[Values],
    n_seeds: int,
    *,
    maximize: bool,
    racing: bool,
) -> Race:
    """Decide what a round still has to run, and its winner where that is nothing.

    With `racing`, the finalists are compared after each seed from the second on. One that can no
    longer win is dropped: it gets no more seeds, and is out of the contest. It can no longer win
    when one of its replicas has failed while another finalist has no failure, or when
    :func:`chance` gives it less than its share of :data:`ERROR_RATE`. The default configuration, to
    which the winner is compared, and the leader are never dropped. Should every finalist that is
    left fail later, those that were dropped without a failure are taken back.

    The winner is, among those that have all `n_seeds` values, the one with the best mean; ties go
    to the better search score, then to the lower trial number. Only where no finalist is without
    failures, the winner is among those with the fewest.

    Args:
        field: The finalists.
        values: What is known of each.
        n_seeds: Replicas of each.
        maximize: Whether more is better.
        racing: Whether finalists are dropped.
    """
    every = range(len(field))
    dropped: dict[int, int] = {}
    tier = n_seeds  # replicas below it are run
    looks = range(LEAST_SEEDS, n_seeds) if racing else range(0)
    for seeds in looks:
        alive = [f for f in every if f not in dropped]
        if any(i not in values[f] for f in alive for i in range(seeds)):
            tier = seeds
            break
        for f in _beaten(field, values, alive, seeds, n_seeds, maximize, comparisons=len(looks)):
            dropped[f] = seeds
    alive = [f for f in every if f not in dropped]
    missing = [(f, i) for f in alive for i in range(tier) if i not in values[f]]
    if tier == n_seeds and not missing and not any(_clean(values[f]) for f in alive):
        dropped = {f: seeds for f, seeds in dropped.items() if not _clean(values[f])}
        alive = [f for f in every if f not in dropped]
        missing = [(f, i) for f in alive for i in range(tier) if i not in values[f]]
    wanted = sorted(missing, key=lambda pair: (pair[1], pair[0]))
    # the default gets all seeds whatever comes: its later ones fill slots that would wait
    if tier < n_seeds:
        own = next((f for f in every if field[f].default), None)
        wanted += [
            (own, i) for i in range(tier, n_seeds) if own is not None and i not in values[own]
        ]
    if wanted:
        return Race(dropped, wanted, None, None, False)
    winner = _best(field, values, alive, maximize)
    return Race(
        dropped,
        [],
        winner,
        None if winner is None else best_replica(values[winner], maximize),
        True,
    )


def best_replica(values: Values, maximize: bool) -> int:
    """The replica with the best value, the first of equals."""
    sign = 1.0 if maximize else -1.0
    return min(
        (i for i, v in values.items() if v is not None),
        key=lambda i: (-sign * (values[i] or 0.0), i),
    )


def mean(values: Values) -> float | None:
    """Of the replicas that have a value; None where none has."""
    known = [v for _, v in sorted(values.items()) if v is not None]
    return math.fsum(known) / len(known) if known else None


def chance(
    lead: float,
    spread: float,
    degrees: int,
    seeds: int,
    n_seeds: int,
) -> float:
    """The chance that a finalist which is behind after `seeds` of `n_seeds` ends ahead.

    The differences on seeds to come are taken to be normal like those seen, with unknown mean and
    variance (a flat prior on the mean and the logarithm of the deviation), so that the mean of the
    others follows Student's t (Gelman et al., Bayesian Data Analysis, 3rd edition, section 3.2).
    The finalist ends ahead when that mean is below ``-lead * seeds / (n_seeds - seeds)``.

    Args:
        lead: Mean paired difference of the leader to the finalist; positive when the leader is
            ahead.
        spread: Standard deviation of a paired difference, estimated with `degrees` degrees of
            freedom.
        degrees: Of freedom, at least 1.
        seeds: Seeds seen, fewer than `n_seeds`.
        n_seeds: All seeds of the round.
    """
    from scipy.special import stdtr

    if spread == 0.0:  # nothing is known about chance: nothing is concluded
        return 1.0
    t = lead / spread * math.sqrt(seeds * n_seeds / (n_seeds - seeds))
    return float(stdtr(degrees, -t))


def _beaten(
    field: Sequence[Finalist],
    values: Sequence[Values],
    alive: Sequence[int],
    seeds: int,
    n_seeds: int,
    maximize: bool,
    comparisons: int,
) -> list[int]:
    """Those of `alive` that can no longer win, by their first `seeds` values."""
    sign = 1.0 if maximize else -1.0
    first = {f: [values[f][i] for i in range(seeds)] for f in alive}
    clean = {
        f: [sign * v for v in row if v is not None] for f, row in first.items() if None not in row
    }
    if not clean:
        return []
    beaten = [f for f in alive if f not in clean and not field[f].default]
    leader = min(clean, key=lambda f: (-math.fsum(clean[f]), *_rank(field[f], sign)))
    contenders = [f for f in clean if f != leader and not field[f].default]
    residual, degrees = _residual([clean[f] for f in clean if not field[f].default or f == leader])
    total = comparisons * max(1, sum(not each.default for each in field) - 1)
    for f in contenders:
        differences = [a - b for a, b in zip(clean[leader], clean[f], strict=True)]
        lead = math.fsum(differences) / seeds
        own = math.sqrt(math.fsum((d - lead) ** 2 for d in differences) / (seeds - 1))
        spread = max(own, math.sqrt(2.0) * residual)
        if chance(lead, spread, degrees, seeds, n_seeds) < ERROR_RATE / total:
            beaten.append(f)
    return sorted(beaten)


def _residual(rows: list[list[float]]) -> tuple[float, int]:
    """Standard deviation that configuration and seed, both additive, leave in equally long rows.

    Its degrees.
    """
    count = len(rows)
    seeds = len(rows[0])
    degrees = (count - 1) * (seeds - 1)
    if degrees == 0:
        return 0.0, seeds - 1
    by_row = [math.fsum(row) / seeds for row in rows]
    by_seed = [math.fsum(column) / count for column in zip(*rows, strict=True)]
    whole = math.fsum(by_row) / count
    squares = math.fsum(
        (rows[r][s] - by_row[r] - by_seed[s] + whole) ** 2
        for r in range(count)
        for s in range(seeds)
    )
    return math.sqrt(squares / degrees), degrees


def _clean(values: Values) -> bool:
    return None not in values.values()


def _rank(finalist: Finalist, sign: float) -> tuple[float, float]:
    """Ties: the better search score, then the lower number."""
    score = finalist.search_value
    number = finalist.trial_number
    return (math.inf if score is None else -sign * score, math.inf if number is None else number)


def _best(
    field: Sequence[Finalist],
    values: Sequence[Values],
    alive: Sequence[int],
    maximize: bool,
) -> int | None:
    sign = 1.0 if maximize else -1.0
    scored = [(f, sum(v is None for v in values[f].values()), mean(values[f])) for f in alive]
    order = [
        (failures, -sign * m, *_rank(field[f], sign), f)
        for f, failures, m in scored
        if m is not None
    ]
    return min(order)[-1] if order else None


__all__ = ["Candidate", "Finalist", "Race", "best_replica", "chance", "finalists", "mean", "race"]
