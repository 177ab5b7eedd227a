"""Which way an objective is better, and whole numbers that were typed as floats."""

from __future__ import annotations

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.planning.directions import direction_of, list_contradictions, settle_directions


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
