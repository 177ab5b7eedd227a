"""A round of confirmation in memory: which part is next, by the same decisions as in a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from dlsearch.confirmation import racing
from dlsearch.confirmation.racing import Candidate, Race
from dlsearch.confirmation.round_document import ConfirmSettings
from dlsearch.sampling.seeds import refit_seed, replica_seed
from dlsearch.study.states import AttemptKind, AttemptState, Direction

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from dlsearch.space.space import Space
    from dlsearch.study.documents import StudyDocument
    from dlsearch.study.models import Finalist, Result


_ROUND = 1
_STRIDE = 1000  # a part's number is made of round, finalist and replica, as in a database


@dataclass(frozen=True)
class PartEnd:
    """An attempt at a part of the confirmation: its state, and what it came to."""

    state: AttemptState
    result: Result | None


#: The attempts at a part, oldest first, by its kind and number.
Results: TypeAlias = Callable[[AttemptKind, int], list[PartEnd]]


@dataclass(frozen=True)
class Part:
    """A part of the confirmation that is to be run; the fields are those of its claim."""

    kind: AttemptKind
    number: int
    finalist: Finalist
    replica: int | None
    seed: int
    epochs: int | None = None


@dataclass(frozen=True)
class InMemoryRound:
    """A round.

    Args:
        finalists: The configurations that are trained again.
        seeds: One for each replica.
        maximize: Whether more is better.
        racing: Whether finalists are dropped early.
        refit_seed: Of the training on train + validation; None without one.
        max_attempts: How often a part is tried after deaths.
    """

    finalists: list[Finalist]
    seeds: list[int]
    maximize: bool
    racing: bool
    refit_seed: int | None
    max_attempts: int

    def next_part(self, results: Results, *, is_scored: bool) -> Part | None:
        """The next part that nobody holds; None where there is none now.

        Args:
            results: What is known of each part.
            is_scored: Whether the test set has been scored.
        """
        race = self.race(results)
        for finalist, replica in race.wanted:
            number = self._number_of(finalist, replica)
            attempts = results(AttemptKind.CONFIRM, number)
            if any(each.state is AttemptState.RUNNING for each in attempts):
                continue
            return Part(
                kind=AttemptKind.CONFIRM,
                number=number,
                finalist=self.finalists[finalist],
                replica=replica,
                seed=self.seeds[replica],
            )
        if race.winner is None or race.kept is None:
            return None
        winner = self.finalists[race.winner]
        refit_end = self._end_of(results(AttemptKind.REFIT, _ROUND))
        if self.refit_seed is not None and refit_end is None:
            return Part(
                kind=AttemptKind.REFIT,
                number=_ROUND,
                finalist=winner,
                replica=None,
                seed=self.refit_seed,
                epochs=self._refit_epochs(race.winner, results),
            )
        test_end = self._end_of(results(AttemptKind.TEST, _ROUND))
        if is_scored or test_end is not None:
            return None
        return Part(
            kind=AttemptKind.TEST,
            number=_ROUND,
            finalist=winner,
            replica=None,
            seed=self.seeds[race.kept],
        )

    def race(self, results: Results) -> Race:
        """What is left to run, or who won."""
        count = len(self.finalists)
        values = [self._values_of(finalist, results) for finalist in range(count)]
        return racing.race(
            self.finalists,
            values,
            len(self.seeds),
            maximize=self.maximize,
            racing=self.racing,
        )

    def _values_of(self, finalist: int, results: Results) -> dict[int, float | None]:
        """The values of a finalist's replicas: None where one failed."""
        found: dict[int, float | None] = {}
        for replica in range(len(self.seeds)):
            attempts = results(AttemptKind.CONFIRM, self._number_of(finalist, replica))
            end = self._end_of(attempts)
            if end is AttemptState.COMPLETE:
                result = _last_result(attempts)
                values = None if result is None else result.values
                found[replica] = None if values is None else values[0]
            elif end is not None:
                found[replica] = None
        return found

    def _refit_epochs(self, winner: int, results: Results) -> int:
        """Mean length to the best epoch of the winner's replicas, rounded; at least 1."""
        lengths = []
        for replica in range(len(self.seeds)):
            attempts = results(AttemptKind.CONFIRM, self._number_of(winner, replica))
            result = _last_result(attempts)
            if result is not None and result.state is AttemptState.COMPLETE:
                lengths.append((result.best_epoch or 0) + 1)
        return max(1, round(sum(lengths) / len(lengths)))

    def _end_of(self, attempts: list[PartEnd]) -> AttemptState | None:
        """How a part ended; None where it may yet come to something."""
        states = [each.state for each in attempts]
        for state in (AttemptState.COMPLETE, AttemptState.FAILED):
            if state in states:
                return state
        losses = states.count(AttemptState.LOST)
        return AttemptState.LOST if losses >= self.max_attempts else None

    @staticmethod
    def _number_of(finalist: int, replica: int) -> int:
        return (_ROUND * _STRIDE + finalist) * _STRIDE + replica


def _last_result(attempts: list[PartEnd]) -> Result | None:
    for each in reversed(attempts):
        if each.result is not None:
            return each.result
    return None


def open_round(
    document: StudyDocument,
    space: Space,
    trials: Sequence[FrozenTrial],
) -> InMemoryRound | None:
    """The round that confirms a search; None without a completed trial.

    Args:
        document: The study's document.
        space: Its space.
        trials: Its complete trials.
    """
    if not trials:
        return None
    study = document.study_settings
    settings = ConfirmSettings.from_study(study)
    maximize = document.directions[0] == Direction.MAXIMIZE
    candidates: list[Candidate] = []
    for trial in trials:
        params = space.values_of(trial)
        is_default = bool(trial.user_attrs.get("default"))
        candidates.append(
            Candidate(
                trial.number,
                params,
                trial.values[0],
                is_default,
            )
        )
    finalists = racing.finalists(
        candidates, top=int(settings.top), maximize=maximize, defaults=document.defaults
    )
    seed = document.seed
    count = int(settings.seeds)
    return InMemoryRound(
        finalists=finalists,
        seeds=[replica_seed(seed, _ROUND, replica) for replica in range(count)],
        maximize=maximize,
        racing=bool(settings.racing),
        refit_seed=refit_seed(seed, _ROUND) if settings.refit else None,
        max_attempts=int(study["max_attempts"]),
    )
