"""What the storage holds of a round of confirmation, and what a round of today would hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from dlsearch.confirmation import racing
from dlsearch.core.types import Params  # noqa: TC001  # a TypedDict's annotations are its keys

if TYPE_CHECKING:
    from dlsearch.study.models import Finalist


class FinalistEntry(TypedDict):
    """A finalist; the keys are the fields of :class:`dlsearch.study.models.Finalist`."""

    trial_number: int | None
    default: bool
    params: Params
    search_value: float | None


class Choice(TypedDict):
    """Who won a round.

    ``winner`` and ``kept`` are the finalist and its best replica, by place; null where all failed.
    ``dropped`` says after how many seeds a finalist was dropped, by its place as text.
    """

    winner: int | None
    kept: int | None
    dropped: dict[str, int]


class RoundDocument(TypedDict):
    """A round, as it was written when it was opened.

    ``choice`` is there once the winner is chosen, ``given_up`` where a scoring was given up: the
    last attempt at it that does not count. ``scored`` is true once the test set has been scored.
    ``rule`` is the rule of racing that decides, :data:`dlsearch.confirmation.racing.FIRST_RULE`
    where there is none.
    ``carried`` names, by place as text, the earlier rounds that trained a finalist, each with the
    finalist's place there: those replicas count, and only what is missing is trained.
    """

    top: int
    seeds: list[int]
    racing: bool
    refit: bool
    finalists: list[FinalistEntry]
    scored: bool
    refit_seed: int
    rule: NotRequired[int]
    choice: NotRequired[Choice]
    given_up: NotRequired[int]
    carried: NotRequired[dict[str, list[list[int]]]]


@dataclass(frozen=True)
class ConfirmSettings:
    """The section ``study.confirm`` of a config.

    Args:
        top: So many trials are trained again.
        seeds: On so many fresh seeds.
        racing: Whether those that can no longer win get no further seeds.
        refit: Whether the winner is trained once more, on train + validation.
    """

    top: int = 3
    seeds: int = 5
    racing: bool = True
    refit: bool = False

    @classmethod
    def from_study(cls, study: Mapping[str, Any]) -> ConfirmSettings:
        """The settings of a config's section ``study``; earlier versions have fewer keys."""
        given = study.get("confirm") or {}
        known = {each.name: given[each.name] for each in fields(cls) if each.name in given}
        return cls(**known)

    def count_most_trainings(self, n_arms: int | None = None) -> int:
        """How many trainings there are at most.

        Args:
            n_arms: Of a comparison, of which the best of every arm is confirmed; else the leaders
                and the default configuration are.
        """
        configurations = int(self.top) + 1 if n_arms is None else n_arms
        return configurations * int(self.seeds) + int(self.refit)

    def asks_more_than(self, other: ConfirmSettings) -> bool:
        """Whether more is confirmed: more finalists, more seeds, or the refit."""
        return (
            int(self.top) > int(other.top)
            or int(self.seeds) > int(other.seeds)
            or self.refit > other.refit
        )


@dataclass(frozen=True)
class WantedRound:
    """A round as it would be opened now.

    Args:
        settings: How it is run.
        finalists: Who is trained again.
        rule: The rule of racing.
    """

    settings: ConfirmSettings
    finalists: list[Finalist]
    rule: int = racing.RULE

    def to_document(
        self,
        seeds: list[int],
        refit_seed: int,
    ) -> RoundDocument:
        """What is written when it is opened.

        Args:
            seeds: One for each replica.
            refit_seed: Of the training on train + validation.
        """
        entries = [_entry_of(finalist) for finalist in self.finalists]
        return RoundDocument(
            top=self.settings.top,
            seeds=seeds,
            racing=self.settings.racing,
            refit=self.settings.refit,
            finalists=entries,
            scored=False,
            refit_seed=refit_seed,
            rule=self.rule,
        )

    def is_covered_by(self, document: RoundDocument) -> bool:
        """Whether a round has all that is wanted now.

        The finalists, as many seeds, the training on train + validation.
        """
        confirmed = {racing.key(entry["params"]) for entry in document["finalists"]}
        wanted = {racing.key(finalist.params) for finalist in self.finalists}
        if not wanted <= confirmed:
            return False
        has_seeds = len(document["seeds"]) >= int(self.settings.seeds)
        return has_seeds and document["refit"] >= self.settings.refit


def rule_of(document: RoundDocument) -> int:
    """The rule of racing that decides a round; rounds of earlier versions name none."""
    return document.get("rule", racing.FIRST_RULE)


def _entry_of(finalist: Finalist) -> FinalistEntry:
    return FinalistEntry(
        trial_number=finalist.trial_number,
        default=finalist.default,
        params=finalist.params,
        search_value=finalist.search_value,
    )
