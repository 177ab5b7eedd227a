"""What is scored is what was trained: nets that are made late are made again, weights that do not fit open nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

EXPERIMENT = """\
# @package _global_
defaults:
  - override /model: null
  - override /task: null
  - override /space: none
  - override /callbacks: none

task: {_target_: tests.late.Early, hidden: 32, lr: 0.01}
data: {train_size: 1000, val_size: 300, batch_size: 32}
study: {objective: val_acc, n_trials: 1, confirm: {seeds: 2, top: 1}}
trainer: {max_epochs: 3, accelerator: cpu}
tracking: {enabled: false, system_metrics_s: null}
space:
  task.lr: tag(log, interval(0.005, 0.01))
"""
ADMITTED = "allow_targets=[tests.late]"
SCORES = "SELECT document FROM dlsearch_test_evaluation"


@pytest.fixture(scope="module")
def site(place):
    site = place("loading")
    (site.folder / "conf/experiment").mkdir(parents=True)
    (site.folder / "conf/experiment/late.yaml").write_text(EXPERIMENT)
    pixels, _ = load_digits(return_X_y=True)
    for number in range(3):
        image = np.round(pixels[number] * (255 / 16)).astype(np.uint8).reshape(8, 8)
        (site.folder / "digits").mkdir(exist_ok=True)
        Image.fromarray(image).save(site.folder / "digits" / f"{number}.png")
    return site


def words(module, *more):
    chosen = [f"study.name={module.lower()}", f"task._target_=tests.late.{module}"]
    return ["--config-dir", "conf", "-m", "experiment=late", ADMITTED, *chosen, *more]


def documents(site, name):
    """The documents of the ledger's rows about a study."""
    rows = site.rows(f"{SCORES} WHERE study = ?", name)
    return [document for (document,) in rows]


@pytest.fixture(scope="module")
def finished(site):
    """A study whose module makes its net in ``setup``."""
    site.run(*words("InSetup", "study.n_trials=2"))
    return site


def test_the_net_that_was_trained_is_scored(finished):
    (document,) = documents(finished, "insetup")
    found = json.loads(document)
    assert found["metrics"]["test_acc"] > 0.75, "an untrained net has 0.1"
    assert len(found["replicas"]) == 2


@pytest.mark.storm
@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("Missing", "net.1.bias"),
        ("Unexpected", "head.weight"),
        ("Changed", "when they were trained"),
    ],
)
def test_weights_that_are_not_those_of_the_training_open_nothing(site, module, reason):
    name = module.lower()
    said = site.run(*words(module), code=1)
    (line,) = [line for line in said.splitlines() if "was not scored" in line]
    assert reason in line
    assert "Traceback" not in said
    assert documents(site, name) == [], "the test set was opened"
    told = " ".join(site.run("status", name).split())
    assert "was not scored on the test set" in told
    record = json.loads((site.store / f"studies/{name}/report/report.json").read_text())
    assert record["confirmation"]["scoring_error"] in line
    assert any("has no test score" in sentence for sentence in record["limits"])
    assert record["study"]["state"] == "partial"


@pytest.mark.storm
def test_other_verbs_use_the_trained_net(finished):
    predicted = finished.json("predict", "insetup", "digits", ADMITTED)
    assert [int(row["class"]) for row in predicted["predictions"]] == [0, 1, 2]
    found = finished.json("look", "insetup", ADMITTED)
    assert found["gradients"]["kept"] is not None
    found = finished.json("ensemble", "insetup", "--top", "2", ADMITTED)
    assert found["test"]["single"]["accuracy"] > 0.75


@pytest.mark.storm
def test_other_verbs_refuse_a_net_that_they_cannot_make(site):
    site.run(*words("FromData"))
    (document,) = documents(site, "fromdata")
    assert json.loads(document)["metrics"]["test_acc"] > 0.75
    for verb in (
        ["predict", "fromdata", "digits"],
        ["export", "fromdata", "--out", "x"],
        ["look", "fromdata"],
    ):
        assert "allow_targets=[tests]" in site.run(*verb, code=2)
        said = site.run(*verb, ADMITTED, code=2)
        assert "Traceback" not in said
        assert "does not fit the network" in said
