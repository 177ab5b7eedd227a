"""How the test of a task is shown: by its kind, from a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dlsearch.report.facts.facts import facts
from dlsearch.report.figures.canvas import figure_settings, new_figure
from dlsearch.report.figures.kinds import (
    CLASSIFICATION,
    EVALUATION_KINDS,
    EvaluationKind,
    draw_evaluation,
    kind_of_evaluation,
)
from dlsearch.report.figures.plate import Plate
from dlsearch.report.load import view
from dlsearch.report.markup import TEMPLATES
from dlsearch.report.render import environment

if TYPE_CHECKING:
    from collections.abc import Iterator


def facts_of(record: dict[str, Any]) -> Any:
    return facts(view(record))


def draw_residuals(report: Any) -> Plate:
    return Plate("residuals", "Residuals", "A caption.", "An alt text.", new_figure(100, 100))


def draw_nothing(report: Any) -> None:
    """A figure that the report holds nothing for."""


REGRESSION = EvaluationKind(
    name="regression",
    matches=lambda evaluation: not evaluation["confusion"],
    figures=(draw_residuals, draw_nothing),
)


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    with figure_settings():
        yield


def test_a_classifier_gets_its_confusion_matrix(record: dict[str, Any]) -> None:
    report = facts_of(record)
    assert kind_of_evaluation(report) is CLASSIFICATION
    assert [plate.key for plate in draw_evaluation(report)] == ["confusion"]


def test_scores_alone_and_no_test_get_no_figure(record: dict[str, Any]) -> None:
    del record["test"][0]["confusion"]
    assert draw_evaluation(facts_of(record)) == []
    record["test"] = []
    assert draw_evaluation(facts_of(record)) == []


def test_a_new_kind_is_one_more_row_of_the_table(record: dict[str, Any]) -> None:
    kinds = (*EVALUATION_KINDS, REGRESSION)
    assert kind_of_evaluation(facts_of(record), kinds) is CLASSIFICATION
    del record["test"][0]["confusion"]
    report = facts_of(record)
    assert kind_of_evaluation(report, kinds) is REGRESSION
    (plate,) = draw_evaluation(report, kinds)
    assert plate.key == "residuals"
    assert plate.of_evaluation


@pytest.mark.parametrize("kind", [*EVALUATION_KINDS, REGRESSION], ids=lambda kind: kind.name)
def test_the_part_of_the_page_of_each_kind_is_there(kind: EvaluationKind) -> None:
    assert (TEMPLATES / kind.template).is_file()
    assert environment(markdown=False).get_template(kind.template)
