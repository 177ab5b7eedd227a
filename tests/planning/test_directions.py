"""Which way an objective is better, and whole numbers that were typed as floats."""

from __future__ import annotations

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.planning.directions import direction_of, list_contradictions, settle_directions
from dlsearch.space.adapting import adapt_dimension
from dlsearch.space.dimension import Dimension, DimensionKind


@pytest.mark.parametrize(("direction", "names"), [
    ("minimize", "val/loss valLoss val_rmse error_rate perplexity val/MAE negative_log_likelihood nll_test wer"),
    ("maximize", "val_acc val/accuracy Recall@5 mAP50 val/R2Score MulticlassF1Score neg_mse top5 ROC-AUC val_map_50"),
    (None, "score acc_loss lossless val/metric mapping loose 1"),
])  # fmt: skip
def test_a_name_says_which_way_it_is_better(direction, names):
    assert {name: direction_of(name) for name in names.split()} == dict.fromkeys(
        names.split(), direction
    )


def test_what_is_given_is_taken_and_what_is_not_comes_of_the_names():
    names = ["val/loss", "val/score", "val_f1"]
    assert settle_directions(None, names) == ["minimize", "maximize", "maximize"]
    assert settle_directions("maximize", names) == ["maximize"] * 3
    assert settle_directions(["minimize"], ["x"]) == ["minimize"]
    for wrong in ("up", ["minimize"], 3, ["minimize", "maximize", 3]):
        with pytest.raises(ConfigError, match=r"study\.direction: expected maximize or minimize"):
            settle_directions(wrong, names)


def test_a_direction_that_contradicts_a_name_is_said():
    (line,) = list_contradictions(["maximize", "maximize", "minimize"], ["loss", "acc", "score"])
    assert "the study maximizes 'loss', which by its name is better the lower" in line


def of(*choices):
    return Dimension("model.width", DimensionKind.CATEGORICAL, choices=choices)


@pytest.mark.parametrize(("typed", "default", "choices"), [
    ((1e2, 2e2), 128, (100, 200)),
    ((1e2, None), 128, (100, None)),
    ((1.5, 2.0), 128, (1.5, 2)),
    ((1e2, 2e2), 1.0, (1e2, 2e2)),
    ((1.0, 0.0), True, (1.0, 0.0)),
    ((1e2, 2e2), "${data.width}", (1e2, 2e2)),
    ((float("inf"), 1.0), 128, (float("inf"), 1)),
    (("a", 2.0), 128, ("a", 2)),
])  # fmt: skip
def test_choices_have_the_type_of_an_integer_default(typed, default, choices):
    taken = adapt_dimension(of(*typed), default)[0]
    assert [*map(repr, taken.choices)] == [*map(repr, choices)]


def test_a_grid_of_whole_numbers_is_one_of_integers():
    grid = Dimension("w", DimensionKind.FLOAT, low=16.0, high=64.0, step=16.0)
    taken = adapt_dimension(grid, 32)[0]
    assert (taken.kind, taken.low, taken.step) == (DimensionKind.INT, 16, 16)
    assert taken.text == "range(16, 80, 16)"
    assert adapt_dimension(grid, 32.0)[0] is grid
    between = Dimension("w", DimensionKind.FLOAT, low=0.5, high=64.5, step=16.0)
    assert adapt_dimension(between, 32)[0] is between
    span = Dimension("w", DimensionKind.FLOAT, low=16.0, high=64.0)
    assert adapt_dimension(span, 32)[0].text == "range(16, 65)"
    assert adapt_dimension(grid, None)[0] is grid
