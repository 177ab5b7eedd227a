"""A task that is neither classification nor regression goes the whole way, without a line in the trunk for it.

It has no data module, two optimizers that it steps by hand, batches that are dictionaries, and
counts its progress in steps: see :mod:`tests.e2e.third_kind`.
"""

from __future__ import annotations

import json
import re

import pytest

#: A step of each optimizer is one: 32 batches an epoch are 64 steps, and validation comes every 20
#: batches, across epochs.
STEPS = 240
REPORTS = (39, 79, 119, 159, 199, 239)

EXPERIMENT = f"""\
# @package _global_
defaults:
  - override /model: null
  - override /data: null
  - override /optimizer: null
  - override /scheduler: null
  - override /task: null
  - override /callbacks: none
  - override /space: none
  - override /sampler: grid
  - override /pruner: threshold

task: {{_target_: tests.e2e.third_kind.Game, lr: 0.02, hidden: 8}}
space: {{task.lr: "choice(0.02, 0.01, 1e-7)"}}
pruner: {{upper: 2.4, n_warmup_steps: 60}}
study:
  objective: val/gap
  direction: minimize
  n_trials: 3
  default_first: false
  confirm: {{top: 1, seeds: 2, racing: false}}
trainer:
  max_epochs: null
  max_steps: {STEPS}
  check_val_every_n_epoch: null
  val_check_interval: 20
  accelerator: cpu
tracking: {{enabled: false, system_metrics_s: null}}
"""

COMMAND = [
    "--config-dir", "conf", "-m", "experiment=game", "allow_targets=[tests.e2e.third_kind]", "study.name=game",
    "hydra.launcher.workers=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(place):
    site = place("third-kind")
    experiment = site.folder / "conf/experiment/game.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(EXPERIMENT)
    said = site.run(*COMMAND, timeout=200)
    return site, said


@pytest.fixture(scope="module")
def trials(study):
    return {trial["params"]["task.lr"]: trial for trial in study[0].json("trials", "game")}


@pytest.fixture(scope="module")
def facts(study):
    return json.loads((study[0].store / "studies/game/report/report.json").read_text())


def test_it_is_searched_and_its_progress_is_counted_in_steps(study, trials):
    assert trials[0.02]["state"] == "complete"
    reported = study[0].rows(
        "SELECT DISTINCT step FROM trial_intermediate_values ORDER BY step",
    )
    assert tuple(step for (step,) in reported) == REPORTS
    assert trials[0.02]["value"] < 1


def test_a_trial_that_learns_nothing_is_pruned_by_steps(trials):
    assert (trials[1e-7]["state"], trials[1e-7]["value"]) == ("pruned", None)


def test_its_winner_is_confirmed_and_scored_on_its_own_test_loader(study):
    site, said = study
    (test,) = site.json("status", "game")["test"]
    assert set(test["metrics"]) == {"test/gap"}
    assert 0 < test["metrics"]["test/gap"] < 1
    assert "test set, opened once for trial" in said


def test_it_is_reported(study, facts):
    folder = study[0].store / "studies/game/report"
    page = (folder / "index.html").read_text()
    assert "test/gap" in page
    assert "Confusion matrix" not in page
    assert facts["study"]["model"] == {
        "kind": "generation",
        "n_params": 50,
        "progress_unit": "step",
    }
    assert facts["test"]["main"]["confusion"] == []
    lengths = {trial["params"]["task.lr"]: trial["epochs"] for trial in facts["trials"]}
    assert lengths[0.02] == STEPS
    assert lengths[1e-7] == 80, "the first report after the pruner's 60 steps of warm-up"


def test_its_plan_counts_in_steps(study):
    said = study[0].run("plan", *(word for word in COMMAND if word != "-m"))
    assert re.search(rf"3 trials .*of {STEPS} steps", said)
