"""A search over whole recipes whose trainings are counted in steps, with loggers and callbacks of Lightning's own."""

from __future__ import annotations

import json
import re

import pytest

STEPS = 12
RECIPE = """\
# @package _global_
defaults:
  - override /model: {model}
  - override /space: none
  - override /callbacks: none
  - override /sampler: grid
  - override /pruner: threshold

{own}
data: {{batch_size: 16, train_size: 64, val_size: 64}}
pruner: {{lower: 0.0, n_warmup_steps: 6}}
trainer:
  max_steps: {steps}
  check_val_every_n_epoch: null
  val_check_interval: 3
  accelerator: cpu
logger:
  csv: {{_target_: pytorch_lightning.loggers.CSVLogger}}
callbacks:
  losses: {{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss, patience: 50}}
  scores: {{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/accuracy, mode: max, patience: 50}}
study: {{n_trials: 4, confirm: {{top: 1, seeds: 2, racing: false}}}}
tracking: {{enabled: false, system_metrics_s: null}}
space: {{optimizer.lr: "choice(0.01, 0.02)"}}
"""
RECIPES = {
    "wide": RECIPE.format(model="linear", own="", steps=STEPS),
    "deep": RECIPE.format(model="mlp", own="model: {width: 8, depth: 2}", steps=STEPS),
}
COMMAND = ["--config-dir", "conf", "-m", "experiment=wide,deep", "hydra.launcher.workers=2"]


@pytest.fixture(scope="module")
def study(place):
    site = place("recipes")
    for name, text in RECIPES.items():
        path = site.folder / f"conf/experiment/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    said = site.run(*COMMAND, timeout=200)
    return site, said


def test_every_recipe_is_trained_on_every_rate(study):
    trials = study[0].json("trials", "wide_or_deep")
    found = {(each["params"]["experiment"], each["params"]["optimizer.lr"]) for each in trials}
    assert found == {(name, rate) for name in RECIPES for rate in (0.01, 0.02)}
    assert {each["state"] for each in trials} == {"complete"}


def test_reports_and_lengths_are_in_steps(study):
    site, _ = study
    reported = site.rows("SELECT DISTINCT step FROM trial_intermediate_values ORDER BY step")
    assert [step for (step,) in reported] == [2, 5, 8, 11]
    facts = json.loads((site.store / "studies/wide_or_deep/report/report.json").read_text())
    assert {each["epochs"] for each in facts["trials"]} == {STEPS}
    assert facts["study"]["model"]["progress_unit"] == "step"
    plan = site.run("plan", *(word for word in COMMAND if word != "-m"))
    assert re.search(rf"4 trials .*of {STEPS} steps", plan)


def test_the_winner_is_confirmed_scored_and_reported(study):
    site, said = study
    assert "test set, opened once for trial" in said
    page = (site.store / "studies/wide_or_deep/report/index.html").read_text()
    assert "experiment" in page


def test_each_trial_has_the_rows_of_its_own_logger(study):
    site, _ = study
    files = list(site.store.rglob("lightning_logs/version_0/metrics.csv"))
    assert len(files) >= 4
    assert all("val/accuracy" in file.read_text() for file in files)


def test_the_same_command_finds_nothing_to_do(study):
    site, _ = study
    said = site.run(*COMMAND, timeout=200)
    assert "nothing" in said or "4 trials" in said
    assert len(site.json("trials", "wide_or_deep")) == 4
