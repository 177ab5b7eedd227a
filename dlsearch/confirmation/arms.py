"""Who is trained again after a comparison: of every arm the best that its search found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlsearch.study.models import Finalist

if TYPE_CHECKING:
    from dlsearch.confirmation.racing import Candidate
    from dlsearch.sampling.arms import Arms


def finalists_of_arms(
    candidates: Sequence[Candidate],
    arms: Arms,
    *,
    maximize: bool,
) -> list[Finalist]:
    """The best candidate of each arm, in the order of the arms; ties go to the lower number.

    An arm without a candidate has none. No configuration counts as the default one: each is what a
    search of the same budget came to.

    Args:
        candidates: The completed trials.
        arms: The comparison's.
        maximize: Whether more is better.
    """
    sign = -1.0 if maximize else 1.0

    def rank(candidate: Candidate) -> tuple[float, int]:
        return sign * candidate.value, candidate.number

    found = []
    for place in range(len(arms)):
        of_arm = [each for each in candidates if arms.place_of(each.number) == place]
        if not of_arm:
            continue
        best = min(of_arm, key=rank)
        found.append(
            Finalist(
                trial_number=best.number,
                default=False,
                params=dict(best.params),
                search_value=best.value,
            )
        )
    return found
