"""Targets by the paths that they had before they were moved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlsearch.config.build import build, is_admitted, locate
from dlsearch.config.moved import MOVED, current_name, with_current_names, with_former_names

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "experiments").glob("*/report.json"))


@pytest.mark.parametrize("former", MOVED)
def test_a_module_has_moved_to_one_that_exists(former):
    module = ROOT.joinpath(*MOVED[former].split(".")).with_suffix(".py")
    assert module.is_file()
    assert not ROOT.joinpath(*former.split(".")).with_suffix(".py").exists()


def test_no_two_modules_have_moved_to_one():
    assert len(set(MOVED.values())) == len(MOVED)


def test_a_target_is_built_by_its_former_name():
    net = build(
        {"_target_": "dlsearch.models.linear.LinearModel", "in_shape": [1, 2, 2], "num_classes": 3},
        "model",
    )
    assert type(net).__module__ == "dlsearch.systems.basic.models.linear"
    assert locate("dlsearch.tasks.schedules.Cosine", "scheduler").__name__ == "Cosine"


def test_what_was_out_of_reach_stays_out_of_reach():
    assert not is_admitted("dlsearch.search.worker.Worker")
    assert not is_admitted("dlsearch.models.__init__.x")
    assert current_name("dlsearch.models.lenet.__class__.x") == "dlsearch.models.lenet.__class__.x"


def test_names_are_translated_in_targets_alone():
    node = {
        "_target_": "dlsearch.models.mlp.MLP",
        "text": "dlsearch.models.mlp.MLP",
        "inner": [{"_target_": "torch.nn.ReLU"}],
    }
    now = with_current_names(node)
    assert now == {**node, "_target_": "dlsearch.systems.basic.models.mlp.MLP"}
    assert with_former_names(now) == node


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_every_target_of_a_committed_record_has_a_place(path):
    def check(node):
        if isinstance(node, dict):
            if isinstance(node.get("_target_"), str) and node["_target_"].startswith("dlsearch."):
                locate(node["_target_"], "record")
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for value in node:
                check(value)

    config = json.loads(path.read_text())["study"]["config"]
    check(
        {
            group: config.get(group)
            for group in ("model", "task", "data", "optimizer", "scheduler", "sampler", "pruner")
        }
    )
