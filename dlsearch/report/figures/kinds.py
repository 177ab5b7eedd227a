"""Kinds of evaluation: how the test of a task is recognised, drawn and laid out.

A new kind of task is a module that draws its figures, and one line of :data:`EVALUATION_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from dlsearch.report.facts.contents import MainScore, Report
from dlsearch.report.figures.classification import draw_confusion_matrix
from dlsearch.report.figures.plate import Plate

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Draws one figure; None where the report holds nothing for it.
FigureOfReport: TypeAlias = Callable[[Report], Plate | None]


@dataclass(frozen=True)
class EvaluationKind:
    """What a test measured, and how the page shows it.

    Attributes:
        name: The task, such as ``classification``.
        matches: Whether an evaluation is of this kind.
        figures: Its figures, in the order of the page.
        template: The part of the page that shows it; by default the figures one below the other.
    """

    name: str
    matches: Callable[[MainScore], bool]
    figures: tuple[FigureOfReport, ...]
    template: str = "evaluation.html.j2"


def _has_confusion_matrix(evaluation: MainScore) -> bool:
    return bool(evaluation["confusion"])


CLASSIFICATION = EvaluationKind(
    name="classification",
    matches=_has_confusion_matrix,
    figures=(draw_confusion_matrix,),
    template="classification.html.j2",
)

#: The first one that matches an evaluation is its kind. One that none matches has scores alone,
#: as regression does, and no figure.
EVALUATION_KINDS: tuple[EvaluationKind, ...] = (CLASSIFICATION,)


def kind_of_evaluation(
    report: Report,
    kinds: Sequence[EvaluationKind] = EVALUATION_KINDS,
) -> EvaluationKind | None:
    """The kind that the report's test is of; None where there is none or none matches."""
    main = report["test"]["main"]
    if main is None:
        return None
    return next((kind for kind in kinds if kind.matches(main)), None)


def draw_evaluation(
    report: Report,
    kinds: Sequence[EvaluationKind] = EVALUATION_KINDS,
) -> list[Plate]:
    """The figures of the kind that the report's test is of."""
    kind = kind_of_evaluation(report, kinds)
    if kind is None:
        return []
    plates = [draw(report) for draw in kind.figures]
    return [replace(plate, of_evaluation=True) for plate in plates if plate is not None]
