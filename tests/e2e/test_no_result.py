"""A study of which no trial completes has failed: the exit code, the last lines, ``status``, MLflow and the report."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.e2e.running import TINY, until

DIVERGES = [
    "study.name=s", "study.default_first=false", "optimizer=sgd", "space.optimizer.weight_decay=null", "sampler=random",
    "optimizer.lr=choice(1e30, 0.5)", "study.enqueue=[{optimizer.lr: 1e30}]", "tracking.enabled=true",
    "data.batch_size=8",  # the third batch has no finite loss any more
]  # fmt: skip
FIRST = "no trial completed; the first failure was trial 0: nan after epoch 1"


def parent_status(site):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{site.store / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    return {run.info.run_name: run.info.status for run in runs}["study:s"]


def report(site):
    return json.loads((site.store / "studies/s/report/report.json").read_text())


@pytest.fixture(scope="module")
def failed(place):
    """A study whose only trial diverges."""
    site = place("failed")
    return site, site.run("-m", *TINY, *DIVERGES, "study.n_trials=1", code=1)


def test_it_says_so_with_the_first_cause_and_fails(failed):
    site, said = failed
    assert said.count(FIRST) == 1
    shown = site.run("status", "s")
    assert shown.count(FIRST) == 1
    status = site.json("status", "s")
    assert status["state"] == "failed"
    assert status["failure"] == {
        "trial": 0,
        "reason": "nan",
        "error": "nan after epoch 1: the training loss",
    }
    assert [row["state"] for row in site.json("studies")] == ["failed"]
    assert " failed " in site.run("studies").splitlines()[-1]


def test_mlflow_and_the_report_say_the_same(failed):
    site, _ = failed
    assert parent_status(site) == "FAILED"
    assert report(site)["study"]["state"] == "failed"
    claim = report(site)["claim"]
    assert claim["headline"] == "No trial was completed: the study has no result."
    assert (
        "The study is over without a result: 1 trial asked, 0 completed" in claim["sentences"][-1]
    )
    shown = site.run("ensemble", "s", code=2)
    assert "no trial of 's' completed" in shown


@pytest.mark.storm
def test_a_resumed_study_that_completes_a_trial_is_complete(failed):
    site, _ = failed
    said = site.run("-m", *TINY, *DIVERGES, "study.n_trials=6")
    assert "no trial completed" not in said
    assert site.json("status", "s")["state"] == "complete"
    assert site.json("status", "s")["failure"] is None
    assert site.states()["COMPLETE"] > 0
    assert parent_status(site) == "FINISHED"


@pytest.mark.storm
def test_one_whose_trials_were_all_pruned_has_no_result_either(place):
    site = place("pruned")
    said = site.run(
        "-m", *TINY, "study.name=s", "study.n_trials=2", "pruner=threshold", "pruner.lower=2.0",
        "trainer.max_epochs=2", code=1,
    )  # fmt: skip
    assert "no trial completed: 2 trials pruned; pruner=none runs them to their end" in said
    assert site.json("status", "s")["state"] == "failed"
    assert site.states() == {"PRUNED": 2}


@pytest.mark.storm
def test_an_interruption_is_no_failure(place):
    site = place("interrupted")
    words = [
        "-m",
        *TINY,
        "study.name=s",
        "study.n_trials=2",
        "trainer.max_epochs=2000",
        "data.train_size=512",
    ]
    with site.running(*words) as process:
        until(lambda: site.rows("SELECT 1 FROM dlsearch_attempt WHERE progress IS NOT NULL"))
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, site.log.read_text()
    assert site.json("status", "s")["state"] == "partial"
    assert "no trial completed" not in site.log.read_text()
