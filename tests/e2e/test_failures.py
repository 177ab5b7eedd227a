"""A study whose trials fail in the user's code says so everywhere, stops, and goes on after a mend."""

from __future__ import annotations

import json

import pytest

EXPERIMENT = """
# @package _global_
defaults:
  - override /model: null
  - override /task: null
  - override /data: null
  - override /space: none
  - override /callbacks: none

task: {_target_: tests.e2e.failing.Failing, lr: 0.1}
data: {_target_: tests.e2e.failing.Samples}
study: {objective: val/recall@1, direction: maximize, n_trials: 5, rehearsal: false, confirm: {seeds: 1, top: 1}}
trainer: {max_epochs: 4, accelerator: cpu}
tracking: {system_metrics_s: null}
space:
  task.lr: interval(0.01, 0.5)
"""
WORDS = [
    "--config-dir", "conf", "-m", "experiment=failing", "study.name=s", "allow_targets=[tests.e2e.failing]",
    "hydra.launcher.workers=1",
]  # fmt: skip
CAUSE = r"does not fit (tests/e2e/failing.py:47)"


def mlflow_runs(site):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{site.store / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


@pytest.fixture(scope="module")
def stopped(place):
    site = place("failing")
    (site.folder / "conf/experiment").mkdir(parents=True)
    (site.folder / "conf/experiment/failing.yaml").write_text(EXPERIMENT)
    return site, site.run(*WORDS, code=1)


def test_three_failures_alike_stop_the_study_and_are_told_everywhere(stopped):
    site, said = stopped
    lines = said.splitlines()
    assert sum("failed    (exception)" in line and CAUSE in line for line in lines) == 3
    stop = "stopped: the first 3 trials failed alike: ValueError: lr"
    for text in (said, site.run("status", "s")):
        assert text.count(stop) == 1
        assert f"{CAUSE}; mend it, and the same command goes on with 2 more" in text
    status = site.json("status", "s")
    assert (status["state"], status["stopped"]["failed"]) == ("failed", 3)
    assert [group["trials"] for group in status["failures"]] == [[0, 1, 2]]
    assert site.run("trials", "s").count(CAUSE) == 3
    report = json.loads((site.store / "studies/s/report/report.json").read_text())
    failures = report["accounting"]["failures"]
    assert [CAUSE in row["error"] for row in failures] == [True] * 3
    runs = mlflow_runs(site)
    assert CAUSE in runs["s/t00000"].data.tags["dlsearch.trial.fail_cause"]
    assert runs["study:s"].info.status == "FAILED"


def test_after_a_mend_the_same_command_goes_on_and_the_metrics_are_what_was_logged(stopped):
    site, _ = stopped
    (site.folder / "mended").touch()
    said = site.run(*WORDS)
    assert "3 trials failed: ValueError: lr" in said
    rows = site.json("trials", "s")
    assert [row["state"] for row in rows] == ["failed"] * 3 + ["complete"] * 2
    record = json.loads((site.store / "studies/s/report/report.json").read_text())
    trained = record["trials"][3]
    assert [epoch for epoch, _ in trained["intermediate"]] == [1, 3]
    metrics = mlflow_runs(site)["s/t00003"].data.metrics
    recalls = [name for name in metrics if name.startswith("val/recall")]
    assert len(recalls) == 2
    assert metrics["val/loss_rare"] != metrics["val/loss_rare"], "NaN"
