"""What a kind of evaluation has to say about the scores of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import KindFacts, MainScore, Resolution
    from dlsearch.report.study import LedgerRow, View


class EvaluationKind(Protocol):
    """A kind of evaluation, such as classification."""

    @property
    def name(self) -> str:
        """The word for this kind."""

    @property
    def headline_metric(self) -> str | None:
        """The metric that a reader looks for first."""

    def recognises(self, row: LedgerRow) -> bool:
        """Whether the scores of this opening of the test set are of this kind."""

    def describe_scores(self, row: LedgerRow, view: View) -> KindFacts:
        """The facts of the scores that the report quotes."""

    def resolve_validation(self, view: View) -> Resolution | None:
        """What the size of the validation set can distinguish; None where that is not known."""

    def word_score(self, main: MainScore) -> str | None:
        """The quoted score in words, without a full stop; None where it is not of this kind."""


def empty_facts() -> KindFacts:
    """The facts of scores of which nothing more is known than their metrics."""
    return {
        "accuracy": None,
        "right": None,
        "wilson": None,
        "clopper_pearson": None,
        "classes": [],
        "confusion": [],
        "per_class": [],
        "confusions": [],
    }
