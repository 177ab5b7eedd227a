"""All that came of running a study again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.core.types import JsonObject
    from dlsearch.verification.proposals import ProposalCheck
    from dlsearch.verification.reproduce import Comparison, TrialComparison
    from dlsearch.verification.verdicts import VerdictCheck

#: What came of a trial that speaks against nothing.
_FINE = ("equal", "skipped")


@dataclass(frozen=True)
class Reproduction:
    """What came of running a study again.

    Args:
        study: Its name.
        comparison: What came out the same.
        proposals: Whether the sampler proposes the same again.
        verdicts: Whether the pruner says the same again.
        report: The page of the repetition.
    """

    study: str
    comparison: Comparison
    proposals: ProposalCheck
    verdicts: VerdictCheck
    report: Path

    @property
    def unequal_trials(self) -> list[TrialComparison]:
        """Trials that did not come out as recorded."""
        return [trial for trial in self.comparison.trials if trial.verdict not in _FINE]

    @property
    def is_equal(self) -> bool:
        """Whether all that could be done again came out as recorded."""
        confirmed = self.comparison.confirmed
        is_confirmation_equal = confirmed is None or confirmed.is_equal
        are_results_equal = not self.unequal_trials and self.comparison.winner.is_equal
        is_search_equal = not self.proposals.differs and not self.verdicts.differs
        return are_results_equal and is_confirmation_equal and is_search_equal

    def to_json(self) -> JsonObject:
        """As plain JSON; ``proposals`` are those that differ, null where none was drawn."""
        return {
            "study": self.study,
            **self.comparison.to_json(),
            "proposals": self.proposals.differences_to_json(),
            "drawn": asdict(self.proposals),
            "judged": asdict(self.verdicts),
            "report": str(self.report),
            "equal": self.is_equal,
        }
