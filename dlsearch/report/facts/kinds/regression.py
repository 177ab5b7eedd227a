"""Regression: scores are means of errors, whose spread over examples the record does not hold.

Its metrics are given as they are, with intervals over the seeds alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.facts.kinds.base import empty_facts

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import KindFacts, MainScore
    from dlsearch.report.study import LedgerRow, View


class Regression:
    """Scores that are no shares of right answers."""

    name = "regression"
    headline_metric: str | None = None

    def recognises(self, row: LedgerRow) -> bool:
        """Every row: all metrics can be given as they are."""
        return True

    def describe_scores(self, row: LedgerRow, view: View) -> KindFacts:
        """No facts beside the metrics."""
        return empty_facts()

    def resolve_validation(self, view: View) -> None:
        """Not known: it takes the spread of the errors over the examples."""

    def word_score(self, main: MainScore) -> None:
        """No words: which of the metrics counts is not in the record."""
