"""A later round trains only what is new: who was confirmed before keeps the replicas of then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dlsearch.confirmation import racing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlsearch.confirmation.round_document import RoundDocument
    from dlsearch.study.models import Finalist


class Source(NamedTuple):
    """Where a finalist was trained, in part or whole.

    Args:
        round: In which round.
        finalist: Its place in that round's field.
    """

    round: int
    finalist: int


@dataclass(frozen=True)
class Carried:
    """What a round takes over of the rounds before it.

    Args:
        seeds: Those of the round before, on which the new finalists are trained as well.
        sources: By place in the new field: the rounds that trained that finalist.
    """

    seeds: list[int]
    sources: dict[int, list[Source]]


def find_carried(
    finalists: Sequence[Finalist],
    last: RoundDocument,
    last_number: int,
) -> Carried:
    """What the next round takes over of the last one.

    Args:
        finalists: Of the next round.
        last: The last round.
        last_number: Its number.
    """
    before = sources_of(last)
    known = {}
    for place, entry in enumerate(last["finalists"]):
        # Its folders are named by the trial: where another one has the parameters, it is new.
        about = (racing.key(entry["params"]), entry["trial_number"])
        known[about] = [*before.get(place, []), Source(last_number, place)]
    sources = {}
    for place, finalist in enumerate(finalists):
        of_finalist = known.get((racing.key(finalist.params), finalist.trial_number))
        if of_finalist is not None:
            sources[place] = of_finalist
    return Carried(list(last["seeds"]), sources)


def sources_of(document: RoundDocument) -> dict[int, list[Source]]:
    """The earlier rounds that trained a finalist of a round, by the finalist's place."""
    carried: Mapping[str, list[list[int]]] = document.get("carried") or {}
    found = {}
    for place, sources in carried.items():
        found[int(place)] = [Source(*source) for source in sources]
    return found
