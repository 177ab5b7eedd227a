"""Evaluation by kind: what a task's test says beside its metrics, and what happens to a word that is no kind."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dlsearch.core.errors import ConfigError
from dlsearch.training.evaluation.base import LoggedMetrics
from dlsearch.training.evaluation.classification import (
    MAX_ERRORS,
    ClassificationEvaluation,
    join_predictions,
)
from dlsearch.training.evaluation.kinds import Kind, kind_of
from dlsearch.training.evaluation.regression import RegressionEvaluation
from dlsearch.training.evaluation.table import EVALUATIONS, evaluation_of


def task(**attributes):
    return SimpleNamespace(**attributes)


def test_a_module_that_names_no_kind_is_custom_and_reported_by_its_metrics():
    found = evaluation_of(task())
    assert kind_of(task()) is Kind.CUSTOM
    found.add_batch(torch.tensor(1.0))
    assert type(found) is LoggedMetrics
    assert found.facts() == {}


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_is_evaluated(kind):
    assert type(evaluation_of(task(kind=str(kind)))) is EVALUATIONS.get(kind, LoggedMetrics)


def test_a_word_that_is_no_kind_is_refused_with_those_that_are():
    with pytest.raises(
        ConfigError, match=r"kind: expected one of classification, .*'clasification'"
    ):
        kind_of(task(kind="clasification"))


def test_a_classification_counts_over_batches_and_keeps_the_surest_errors():
    scores = torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 3.0], [2.0, 0.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 0, 1, 1])
    found = ClassificationEvaluation()
    for part in (slice(0, 2), slice(2, 5)):
        found.add_batch({"scores": scores[part], "labels": labels[part]})
    facts = found.facts()
    assert (facts["n"], facts["confusion"]) == (5, [[1, 1], [1, 2]])
    assert [error["index"] for error in facts["errors"]] == [2, 3]
    assert facts["errors"][0] == {
        "index": 2,
        "label": 0,
        "prediction": 1,
        "confidence": pytest.approx(torch.sigmoid(torch.tensor(3.0)).item()),
    }


def test_scores_that_are_no_logits_have_margins():
    scores = torch.tensor([[4.0, 1.0], [0.0, 3.0]])
    found = ClassificationEvaluation()
    found.add_batch({"scores": scores, "labels": torch.tensor([1, 0]), "are_logits": False})
    worst, other = found.facts()["errors"]
    assert worst == {"index": 0, "label": 1, "prediction": 0, "margin": 3.0}
    assert other["margin"] == 3.0
    assert "confidence" not in other


def test_a_classification_keeps_so_many_errors_and_shows_them_where_the_data_can():
    many = 2 * MAX_ERRORS
    found = ClassificationEvaluation()
    found.add_batch(
        {
            "scores": torch.eye(2)[torch.ones(many, dtype=torch.long)],
            "labels": torch.zeros(many).long(),
        }
    )
    facts = found.facts()
    assert len(facts["errors"]) == MAX_ERRORS
    assert "image" not in facts["errors"][0]
    assert found.facts(SimpleNamespace()) == facts
    data = SimpleNamespace(test_example=lambda index: np.zeros((2, 2, 1), np.uint8))
    facts = found.facts(data)
    assert facts["errors"][0]["image"] == {"shape": [2, 2, 1], "data": "AAAAAA=="}


@pytest.mark.parametrize(
    "outputs",
    [
        None,
        torch.tensor(0.5),
        {"loss": 1.0},
        {"scores": torch.zeros(3), "labels": torch.zeros(3).long()},
    ],
)
def test_a_classification_whose_test_step_returns_something_else_is_reported_by_its_metrics(
    outputs,
):
    found = ClassificationEvaluation()
    found.add_batch(outputs)
    assert found.facts() == {}


def test_a_regression_counts_its_examples():
    found = RegressionEvaluation()
    found.add_batch(None)
    assert found.facts() == {}
    for size in (3, 2):
        found.add_batch({"outputs": torch.zeros(size, 1), "targets": torch.zeros(size, 1)})
    assert found.facts() == {"n": 5}


def test_predictions_are_joined_where_they_are_scores_of_classes():
    batch = (torch.zeros(2, 3), torch.tensor([0, 2]))
    scores, labels = join_predictions([batch, batch])
    assert (tuple(scores.shape), labels.tolist()) == ((4, 3), [0, 2, 0, 2])
    assert join_predictions([(torch.zeros(2, 1), torch.zeros(2, 1))]) is None
