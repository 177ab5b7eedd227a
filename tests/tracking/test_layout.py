from __future__ import annotations

import re

import pytest

from dlsearch.tracking import layout


@pytest.mark.parametrize(
    ("state", "status"),
    [
        *[
            ("complete", "FINISHED"),
            ("COMPLETE", "FINISHED"),
            ("pruned", "KILLED"),
            ("FAIL", "FAILED"),
        ],
        *[("failed", "FAILED"), ("lost", "FAILED"), ("interrupted", "KILLED")],
        *[("WAITING", "SCHEDULED"), ("running", "RUNNING")],
    ],
)
def test_every_state_has_a_status(state: str, status: str) -> None:
    assert layout.status_of(state) == status


@pytest.mark.parametrize(
    "name",
    [
        "hp/optimizer.lr",
        "a@b",
        "val/loss(1)",
        "//x/",
        "a/../b",
        "",
        "..",
        "ä/é",
        "lr-group{0}",
        "x" * 400,
        "a\nb",
        "/",
    ],
)
def test_keys_are_what_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import (
        _validate_metric_name,
        _validate_param_name,
        _validate_tag_name,
    )

    key = layout.key(name)
    assert 0 < len(key) <= 250
    assert re.fullmatch(r"[/\w.\- :]+", key)
    for accepts in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        accepts(key)


def test_keys_that_are_fine_stay() -> None:
    assert layout.key("cfg/optimizer.weight-decay 2: x") == "cfg/optimizer.weight-decay 2: x"


def test_long_keys_stay_apart() -> None:
    assert layout.key("x" * 300 + "a") != layout.key("x" * 300 + "b")


def test_values_in_the_words_of_a_config() -> None:
    values = [True, None, 1e-4, 3, "a", [1, 2], {"a": 1}, float("nan")]
    assert [layout.text(value) for value in values] == [
        "true",
        "null",
        "0.0001",
        "3",
        "a",
        "[1, 2]",
        '{"a": 1}',
        "nan",
    ]


def test_a_cut_is_visible() -> None:
    short = layout.shorten("y" * 7000, 6000, "long/a.txt")
    assert len(short) == 6000
    assert "7000 characters" in short
    assert short.endswith("whole in long/a.txt]")
    assert layout.shorten("y" * 6000, 6000, "") == "y" * 6000


def test_names_of_runs_and_folders() -> None:
    assert layout.experiment_name("p", "mnist") == "dlsearch/p/mnist"
    assert layout.run_name("n", 42) == "n/t00042"
    assert layout.run_name("n", 42, 2) == "n/t00042.a2"
    assert layout.replica_name(1, 3, 0) == "r1-t00003-s0"
    assert layout.replica_name(2, None, 4) == "r2-default-s4"
    assert layout.replica_run_name("n", "r1-t00003-s0") == "n/confirm/r1-t00003-s0"
    assert layout.replica_run_name("n", "r1-t00003-s0", 2) == "n/confirm/r1-t00003-s0.a2"
    assert layout.trial_folder("n", 42) == "studies/n/t00042"
    assert layout.confirm_folder("n") == "studies/n/confirm"
    assert layout.confirm_folder("n", "r1-refit") == "studies/n/confirm/r1-refit"


def test_flatten_leaves_out_what_is_searched() -> None:
    config = {"seed": 0, "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "empty": {}}
    assert layout.flatten_params(config, {"optimizer.lr"}) == {
        "cfg/seed": 0,
        "cfg/optimizer.betas": [0.9, 0.99],
        "cfg/empty": {},
    }


def test_study_tags() -> None:
    document = {
        "name": "n",
        "uuid": "u",
        "directions": ["maximize", "minimize"],
        "objectives": ["val/accuracy", "model/n_params"],
        "sampler": {"_target_": "optuna.samplers.TPESampler", "x": 1},
        "pruner": None,
        "seed": 0,
        "sha": {"config": "c", "env": None},
    }
    tags = layout.study_tags(document)
    assert tags["dlsearch.study.direction"] == "maximize,minimize"
    assert tags["dlsearch.study.sampler"] == "TPESampler"
    assert tags["dlsearch.study.pruner"] == "none"
    assert tags["dlsearch.study.seed"] == "0"
    assert tags["dlsearch.sha.config"] == "c"
    assert "dlsearch.sha.env" not in tags
