"""Which configurations are trained again after the search, on which seeds, and which of them wins.

Decisions only.

Everything here is a function of values that are known: of no clock, no worker, and no order in
which replicas ended. What runs the replicas and keeps their results is in
:mod:`dlsearch.confirmation.rounds`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dlsearch.confirmation.rounding import measure_resolution
from dlsearch.study.models import Finalist

if TYPE_CHECKING:
    from dlsearch.core.types import ParamValue

#: Chance, over all comparisons of a round, that racing drops a configuration that would have won.
ERROR_RATE = 0.05
#: Finalists of a round, and seeds of a finalist, are at most so many.
LIMIT = 998
#: Seeds that every finalist gets before any is compared.
LEAST_SEEDS = 2

#: The rule of rounds that name none: a spread is none only where it is exactly zero, and means are
#: equal only where their last bits are.
FIRST_RULE = 1
#: The rule of new rounds: what float32 arithmetic leaves open is no spread, and parts no means.
RULE = 2

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
    params: Mapping[str, ParamValue]
    value: float
    default: bool = False


def key(params: Mapping[str, ParamValue]) -> str:
    """What two equal parameter sets have in common."""
    return json.dumps(params, sort_keys=True)


def finalists(
    candidates: Sequence[Candidate],
    *,
    top: int,
    maximize: bool,
    defaults: Mapping[str, ParamValue] | None = None,
    with_default: bool = True,
) -> list[Finalist]:
    """The best `top` candidates with distinct parameters, and the default configuration.

    The best come first. The default configuration is always among them: as the trial that ran it,
    or as the config was composed. It takes no place of the `top`, unless it is one of them itself.

    Args:
        candidates: The completed trials.
        top: How many.
        maximize: Whether more is better.
        defaults: The composed config's value of every searched key.
        with_default: Whether the default configuration may win: not where it is known to violate a
            constraint.
    """
    known = None if defaults is None else key(defaults)
    ranked = []
    for candidate in _rank_distinct(candidates, maximize):
        finalist = Finalist(
            trial_number=candidate.number,
            default=candidate.default or key(candidate.params) == known,
            params=dict(candidate.params),
            search_value=candidate.value,
        )
        ranked.append(finalist)
    chosen = ranked[:top]
    if not with_default or any(finalist.default for finalist in chosen):
        return chosen
    for finalist in ranked:
        if finalist.default:
            return [*chosen, finalist]
    as_composed = Finalist(
        trial_number=None,
        default=True,
        params=dict(defaults or {}),
        search_value=None,
    )
    return [*chosen, as_composed]


def _rank_distinct(
    candidates: Sequence[Candidate],
    maximize: bool,
) -> list[Candidate]:
    """The candidates, best first; of equal parameters the first alone."""
    sign = _sign_of(maximize)

    def rank(candidate: Candidate) -> tuple[float, int]:
        return -sign * candidate.value, candidate.number

    found: dict[str, Candidate] = {}
    for each in sorted(candidates, key=rank):
        found.setdefault(key(each.params), each)
    return list(found.values())


def _sign_of(maximize: bool) -> float:
    """What a value is multiplied with, so that more is better."""
    return 1.0 if maximize else -1.0


class Part(NamedTuple):
    """One training of a round.

    Args:
        finalist: Whose it is, by place in the field.
        replica: Which of its replicas.
    """

    finalist: int
    replica: int


@dataclass(frozen=True)
class Race:
    """What a round still has to run, and who has won it.

    Args:
        dropped: Finalist → the number of seeds after which it was dropped.
        wanted: The trainings without a result that are to be run, in the order to start them in.
        winner: The finalist that has won; None while replicas are wanted, or when all of them
            failed.
        kept: The winner's best replica.
        decided: Whether nothing is wanted any more.
    """

    dropped: dict[int, int]
    wanted: list[Part]
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
    rule: int = RULE,
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

    Scores are means of float32, so that equal differences of counts differ in their last bits. What
    that leaves open is no spread: as long as the differences of two finalists are equal, nothing is
    concluded from them. Means that lie no further apart are tied.

    Args:
        field: The finalists.
        values: What is known of each.
        n_seeds: Replicas of each.
        maximize: Whether more is better.
        racing: Whether finalists are dropped.
        rule: :data:`RULE`, or :data:`FIRST_RULE` for a round that was opened under it.
    """
    contest = _Contest(
        field,
        values,
        n_seeds,
        maximize,
        rule,
    )
    looks = range(LEAST_SEEDS, n_seeds) if racing else range(0)
    dropped, tier = _drop_beaten(contest, looks)
    missing = _list_missing(contest, dropped, tier)
    if tier == n_seeds and not missing and not _any_clean(contest, dropped):
        # All that are left have failures: those that were dropped without one come back.
        dropped = {f: seeds for f, seeds in dropped.items() if not _is_clean(values[f])}
        missing = _list_missing(contest, dropped, tier)
    wanted = sorted(missing, key=lambda part: (part.replica, part.finalist))
    wanted += _list_ahead(contest, tier)
    if wanted:
        return Race(
            dropped,
            wanted,
            winner=None,
            kept=None,
            decided=False,
        )

    winner = _find_best(contest, dropped)
    kept = None if winner is None else best_replica(values[winner], maximize)
    return Race(
        dropped,
        [],
        winner,
        kept,
        decided=True,
    )


@dataclass(frozen=True)
class _Contest:
    """What a race is decided from.

    Args:
        field: The finalists.
        values: What is known of each.
        n_seeds: Replicas of each.
        maximize: Whether more is better.
        rule: Which rule decides on ties.
    """

    field: Sequence[Finalist]
    values: Sequence[Values]
    n_seeds: int
    maximize: bool
    rule: int

    @property
    def sign(self) -> float:
        """What a value is multiplied with, so that more is better."""
        return _sign_of(self.maximize)

    def resolution(self, rows: Iterable[Sequence[float]]) -> float:
        """What rounding leaves open of a difference of such values."""
        if self.rule == FIRST_RULE:
            return 0.0
        return measure_resolution(value for row in rows for value in row)

    def alive(self, dropped: Mapping[int, int]) -> list[int]:
        """The finalists that are not dropped."""
        return [f for f in range(len(self.field)) if f not in dropped]

    def has_values(
        self,
        finalists: Sequence[int],
        seeds: int,
    ) -> bool:
        """Whether the first `seeds` replicas of each of these finalists have ended."""
        for finalist in finalists:
            if any(replica not in self.values[finalist] for replica in range(seeds)):
                return False
        return True


def _drop_beaten(
    contest: _Contest,
    looks: range,
) -> tuple[dict[int, int], int]:
    """Compare the finalists after each number of seeds for which all values are known.

    Args:
        contest: The contest.
        looks: The numbers of seeds after which they are compared.

    Returns:
        Who was dropped after how many seeds; and how many replicas of the others are to be run.
    """
    dropped: dict[int, int] = {}
    for seeds in looks:
        alive = contest.alive(dropped)
        if not contest.has_values(alive, seeds):
            return dropped, seeds
        for finalist in _find_beaten(
            contest,
            alive,
            seeds,
            comparisons=len(looks),
        ):
            dropped[finalist] = seeds
    return dropped, contest.n_seeds


def _list_missing(
    contest: _Contest,
    dropped: Mapping[int, int],
    tier: int,
) -> list[Part]:
    """The replicas below `tier` without a result, of the finalists that are not dropped."""
    missing = []
    for finalist in contest.alive(dropped):
        known = contest.values[finalist]
        missing += [Part(finalist, replica) for replica in range(tier) if replica not in known]
    return missing


def _list_ahead(
    contest: _Contest,
    tier: int,
) -> list[Part]:
    """The default configuration's replicas from `tier` on.

    It gets all seeds whatever comes: its later ones fill slots that would wait.
    """
    for place, finalist in enumerate(contest.field):
        if not finalist.default:
            continue
        known = contest.values[place]
        later = range(tier, contest.n_seeds)
        return [Part(place, replica) for replica in later if replica not in known]
    return []


def _any_clean(
    contest: _Contest,
    dropped: Mapping[int, int],
) -> bool:
    """Whether a finalist that is not dropped has no failure."""
    return any(_is_clean(contest.values[finalist]) for finalist in contest.alive(dropped))


def best_replica(
    values: Values,
    maximize: bool,
) -> int:
    """The replica with the best value, the first of equals."""
    sign = _sign_of(maximize)
    known = {replica: value for replica, value in values.items() if value is not None}
    return min(known, key=lambda replica: (-sign * known[replica], replica))


def mean(values: Values) -> float | None:
    """Of the replicas that have a value; None where none has."""
    known = [value for value in values.values() if value is not None]
    if not known:
        return None
    return _mean_of(known)


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


def weigh_dropped(
    field: Sequence[Finalist],
    values: Sequence[Values],
    n_seeds: int,
    *,
    maximize: bool,
    rule: int,
) -> dict[int, tuple[int, float]]:
    """What racing saw of each finalist when it dropped it, but for those that had failed.

    Args:
        field: The finalists of a round that is over.
        values: What is known of each.
        n_seeds: Replicas of each.
        maximize: Whether more is better.
        rule: By which the round was decided.

    Returns:
        Finalist → after how many seeds, and its :func:`chance` then.
    """
    contest = _Contest(
        field,
        values,
        n_seeds,
        maximize,
        rule,
    )
    looks = range(LEAST_SEEDS, n_seeds)
    dropped, _ = _drop_beaten(contest, looks)
    found: dict[int, tuple[int, float]] = {}
    for finalist, seeds in dropped.items():
        alive = [f for f in range(len(field)) if dropped.get(f, n_seeds) >= seeds]
        chances = _look_at(contest, alive, seeds).chances
        if finalist in chances:
            found[finalist] = seeds, chances[finalist]
    return found


class _Look(NamedTuple):
    """What a comparison finds.

    Args:
        failed: Finalists with a failure, where another has none.
        chances: Of ending ahead, for each other one but the leader and the default configuration.
    """

    failed: list[int]
    chances: dict[int, float]


def _find_beaten(
    contest: _Contest,
    alive: Sequence[int],
    seeds: int,
    comparisons: int,
) -> list[int]:
    """Those of `alive` that can no longer win, by their first `seeds` values.

    Args:
        contest: The contest.
        alive: The finalists that are not dropped.
        seeds: How many values of each are compared.
        comparisons: How often finalists are compared in a round.
    """
    look = _look_at(contest, alive, seeds)
    n_searched = sum(not finalist.default for finalist in contest.field)
    n_rivals = max(1, n_searched - 1)
    threshold = ERROR_RATE / (comparisons * n_rivals)
    beaten = [finalist for finalist, found in look.chances.items() if found < threshold]
    return sorted([*look.failed, *beaten])


def _look_at(
    contest: _Contest,
    alive: Sequence[int],
    seeds: int,
) -> _Look:
    """Compare the finalists of `alive` by their first `seeds` values."""
    field = contest.field
    clean = _collect_clean(contest, alive, seeds)
    if not clean:
        return _Look([], {})

    resolution = contest.resolution(clean.values())
    means = {finalist: _mean_of(values) for finalist, values in clean.items()}
    leader = _find_leader(contest, means, resolution)
    rivals = [f for f in alive if f != leader and not field[f].default]
    contenders = [f for f in rivals if f in clean]
    rows = [clean[f] for f in (leader, *contenders)]
    residual = _estimate_residual(rows)
    chances: dict[int, float] = {}
    for finalist in contenders:
        lead, spread = _compare_pairs(clean[leader], clean[finalist], residual)
        if spread <= resolution:  # the differences are equal: nothing is known about chance
            chances[finalist] = 1.0
            continue
        chances[finalist] = chance(
            lead,
            spread,
            residual.degrees,
            seeds,
            contest.n_seeds,
        )
    return _Look([f for f in rivals if f not in clean], chances)


def _collect_clean(
    contest: _Contest,
    alive: Sequence[int],
    seeds: int,
) -> dict[int, list[float]]:
    """The first values of those of `alive` that have no failure among them; more is better."""
    found: dict[int, list[float]] = {}
    for finalist in alive:
        values = contest.values[finalist]
        first = [values[replica] for replica in range(seeds)]
        known = [contest.sign * value for value in first if value is not None]
        if len(known) == seeds:
            found[finalist] = known
    return found


class _Residual(NamedTuple):
    """What configuration and seed leave unexplained.

    Args:
        deviation: Its standard deviation.
        degrees: Of freedom.
    """

    deviation: float
    degrees: int


def _compare_pairs(
    leader: Sequence[float],
    other: Sequence[float],
    residual: _Residual,
) -> tuple[float, float]:
    """Mean paired difference of the leader to another, and the standard deviation of one."""
    seeds = len(leader)
    differences = []
    for value, other_value in zip(leader, other, strict=True):
        differences.append(value - other_value)
    lead = _mean_of(differences)
    squares = [(difference - lead) ** 2 for difference in differences]
    variance = math.fsum(squares) / (seeds - 1)
    expected = math.sqrt(2.0) * residual.deviation
    return lead, max(math.sqrt(variance), expected)


def _estimate_residual(rows: Sequence[Sequence[float]]) -> _Residual:
    """What configuration and seed, both additive, leave in equally long rows."""
    count = len(rows)
    seeds = len(rows[0])
    degrees = (count - 1) * (seeds - 1)
    if degrees == 0:
        return _Residual(0.0, seeds - 1)
    columns = zip(*rows, strict=True)
    row_means = [_mean_of(row) for row in rows]
    seed_means = [_mean_of(column) for column in columns]
    whole = _mean_of(row_means)
    squares = []
    for row, row_mean in zip(rows, row_means, strict=True):
        for value, seed_mean in zip(row, seed_means, strict=True):
            left = value - row_mean - seed_mean + whole
            squares.append(left**2)
    variance = math.fsum(squares) / degrees
    return _Residual(math.sqrt(variance), degrees)


def _mean_of(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _is_clean(values: Values) -> bool:
    """Whether no replica has failed."""
    return None not in values.values()


def _rank(
    finalist: Finalist,
    sign: float,
) -> tuple[float, float]:
    """Ties: the better search score, then the lower number."""
    score = math.inf
    if finalist.search_value is not None:
        score = -sign * finalist.search_value
    number = math.inf
    if finalist.trial_number is not None:
        number = finalist.trial_number
    return score, number


def _find_leader(
    contest: _Contest,
    means: Mapping[int, float],
    resolution: float,
) -> int:
    """The finalist with the best mean; of those that are tied with it, the first by rank.

    Args:
        contest: The contest.
        means: Of each finalist; more is better.
        resolution: Means that differ by no more are tied.
    """
    best = max(means.values())
    tied = [finalist for finalist, average in means.items() if best - average <= resolution]
    return min(tied, key=lambda finalist: (_rank(contest.field[finalist], contest.sign), finalist))


def _find_best(
    contest: _Contest,
    dropped: Mapping[int, int],
) -> int | None:
    """The winner among those that are not dropped; None where none has a value."""
    rows: dict[int, list[float]] = {}
    failures: dict[int, int] = {}
    for finalist in contest.alive(dropped):
        values = contest.values[finalist].values()
        known = [contest.sign * value for value in values if value is not None]
        if known:
            rows[finalist] = known
            failures[finalist] = len(values) - len(known)
    if not rows:
        return None
    fewest = min(failures.values())
    means = {f: _mean_of(row) for f, row in rows.items() if failures[f] == fewest}
    return _find_leader(contest, means, contest.resolution(rows.values()))


__all__ = [
    "FIRST_RULE",
    "RULE",
    "Candidate",
    "Finalist",
    "Part",
    "Race",
    "best_replica",
    "chance",
    "finalists",
    "mean",
    "race",
    "weigh_dropped",
]
