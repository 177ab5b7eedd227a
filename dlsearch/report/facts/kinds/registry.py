"""The table of the kinds of evaluation, and the questions that are put to all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.facts.kinds.classification import Classification
from dlsearch.report.facts.kinds.regression import Regression

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import MainScore, Resolution
    from dlsearch.report.facts.kinds.base import EvaluationKind
    from dlsearch.report.study import LedgerRow, View

#: All kinds; the first that recognises the scores describes them. The last recognises all scores.
KINDS: tuple[EvaluationKind, ...] = (Classification(), Regression())


def recognise_kind(row: LedgerRow) -> EvaluationKind:
    """The kind of the scores of an opening of the test set."""
    for kind in KINDS:
        if kind.recognises(row):
            return kind
    return KINDS[-1]


def resolve_validation(view: View) -> Resolution | None:
    """What the size of the validation set can distinguish, by the first kind that knows."""
    for kind in KINDS:
        found = kind.resolve_validation(view)
        if found is not None:
            return found
    return None


def word_score(main: MainScore) -> str | None:
    """The quoted score in words, by the first kind that has words for it."""
    for kind in KINDS:
        text = kind.word_score(main)
        if text is not None:
            return text
    return None


def is_headline(metric: str) -> bool:
    """Whether a reader of some kind of evaluation looks for this metric first."""
    return any(kind.headline_metric == metric for kind in KINDS)
