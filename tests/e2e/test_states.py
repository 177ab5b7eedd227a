"""States that tell the truth, in Optuna, in MLflow and in the report alike; and what a study looks like in MLflow."""

from __future__ import annotations

import json

import pytest

from tests.e2e.running import TINY

DIVERGES, LEARNS_NOTHING, LEARNS = 1e30, 1e-12, 0.5


@pytest.fixture(scope="module")
def study(place):
    """Three trials that were asked for: one diverges, one is below the threshold, one learns; and the winner's test."""
    site = place("states")
    rates = f"[{{optimizer.lr: {DIVERGES}}}, {{optimizer.lr: {LEARNS_NOTHING}}}, {{optimizer.lr: {LEARNS}}}]"
    said = site.run(
        "-m", *TINY, "study.name=s", "study.n_trials=3", "hydra.launcher.workers=2", "study.default_first=false",
        "optimizer=sgd", "optimizer.lr=tag(log, interval(1e-12, 1e30))", "space.optimizer.weight_decay=null",
        f"study.enqueue={rates}", "trainer.max_epochs=4", "data.train_size=512", "pruner=threshold", "pruner.lower=0.4",
        "pruner.n_warmup_steps=1", "study.finalize=true", "tracking.enabled=true", "study.confirm.seeds=2",
        timeout=150,
    )  # fmt: skip
    assert "has reached MLflow yet" not in said
    return site


@pytest.fixture(scope="module")
def record(study):
    return json.loads((study.store / "studies/s/report/report.json").read_text())


@pytest.fixture(scope="module")
def runs(study):
    """All runs by name."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{study.store / 'mlflow.db'}")
    experiments = [e for e in client.search_experiments() if e.name != "Default"]
    assert [e.name for e in experiments] == ["dlsearch/default/digits"]
    found = client.search_runs([e.experiment_id for e in experiments], max_results=1000)
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def test_the_three_states_in_optuna(study):
    rows = study.json("trials", "s")
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("failed", "nan"),
        ("pruned", None),
        ("complete", None),
    ]
    assert [row["params"]["optimizer.lr"] for row in rows] == [DIVERGES, LEARNS_NOTHING, LEARNS]
    assert study.states() == {"FAIL": 1, "PRUNED": 1, "COMPLETE": 1}
    assert rows[0]["value"] is None


def test_the_three_states_in_mlflow(runs):
    found = {}
    for number in range(3):
        run = runs[f"s/t{number:05d}"]
        tags = run.data.tags
        found[number] = (
            run.info.status,
            tags["dlsearch.trial.state"],
            tags.get("dlsearch.trial.fail_reason"),
        )
    assert found == {
        0: ("FAILED", "failed", "nan"),
        1: ("KILLED", "pruned", None),
        2: ("FINISHED", "complete", None),
    }


def test_the_three_states_in_the_report(record):
    accounting = record["accounting"]
    counts = {"complete": 1, "pruned": 1, "failed": 1, "running": 0, "waiting": 0}
    assert accounting["counts"] == counts
    assert accounting["failed_by_reason"] == {"nan": 1}
    assert [(trial["state"], trial["reason"]) for trial in record["trials"]] == [
        ("failed", "nan"), ("pruned", None), ("complete", None),
    ]  # fmt: skip
    assert record["winner"] == 2
    assert [check for check in record["checks"] if not check["ok"]] == []


def test_trials_lie_below_the_study_and_are_what_it_searched(runs, study):
    parent = runs["study:s"]
    assert "mlflow.parentRunId" not in parent.data.tags
    assert parent.data.tags["dlsearch.kind"] == "study"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["cfg/trainer.max_epochs"] == "4"
    assert {name: parent.data.metrics[f"n/{name}"] for name in ("complete", "pruned", "failed")} == {
        "complete": 1, "pruned": 1, "failed": 1,
    }  # fmt: skip
    best = study.json("status", "s")["best"]
    assert parent.data.metrics["best/objective"] == pytest.approx(best["value"])
    rows = study.json("trials", "s")
    for number in range(3):
        run = runs[f"s/t{number:05d}"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["dlsearch.kind"] == "trial"
        assert run.data.tags["dlsearch.trial.number"] == str(number)
        assert list(run.data.params) == ["hp/optimizer.lr"]
        assert float(run.data.params["hp/optimizer.lr"]) == rows[number]["params"]["optimizer.lr"]
        assert rows[number]["run_id"] == run.info.run_id
        assert not any(name.startswith("test/") for name in run.data.metrics)
    assert runs["s/t00002"].data.metrics["objective"] == rows[2]["value"]
    assert runs["s/t00002"].data.metrics["best/val/accuracy"] == rows[2]["value"]


def test_replicas_lie_below_the_confirmation(runs, study):
    confirm = runs["confirm:s"]
    assert "mlflow.parentRunId" not in confirm.data.tags
    assert confirm.info.status == "FINISHED"
    children = {
        n: r
        for n, r in runs.items()
        if r.data.tags.get("mlflow.parentRunId") == confirm.info.run_id
    }
    assert set(children) == {
        f"s/confirm/r1-{who}-s{i}" for who in ("t00002", "default") for i in range(2)
    }
    for name, run in children.items():
        assert run.info.status == "FINISHED"
        tags = run.data.tags
        assert tags["dlsearch.kind"] == "replicate"
        assert tags["dlsearch.confirm.default"] == str("default" in name).lower()
        assert tags["dlsearch.confirm.replica"] == name[-1]
        assert tags.get("dlsearch.trial.number") == (None if "default" in name else "2")
    seeds = {n: run.data.tags["dlsearch.confirm.seed"] for n, run in children.items()}
    for i in range(2):
        assert seeds[f"s/confirm/r1-t00002-s{i}"] == seeds[f"s/confirm/r1-default-s{i}"], "paired"
    assert len(set(seeds.values())) == 2
    assert float(children["s/confirm/r1-t00002-s0"].data.params["hp/optimizer.lr"]) == LEARNS
    winner = study.json("status", "s")["winner"]
    assert (winner["number"], winner["confirmed"]) == (2, True)
    assert confirm.data.tags["dlsearch.winner"] == "2"
    assert confirm.data.metrics["objective"] == pytest.approx(winner["value"])
    scores = [children[f"s/confirm/r1-t00002-s{i}"].data.metrics["objective"] for i in range(2)]
    assert winner["value"] == pytest.approx(sum(scores) / 2)


def test_the_winner_alone_has_seen_the_test_set(runs, study):
    seen = {n for n, r in runs.items() if any(m.startswith("test/") for m in r.data.metrics)}
    replicas = {f"s/confirm/r1-t00002-s{i}" for i in range(2)}
    assert seen == {"confirm:s", *replicas}
    ((text,),) = study.rows("SELECT document FROM dlsearch_test_evaluation")
    document = json.loads(text)
    assert [r["replica"] for r in document["replicas"]] == [0, 1]
    for each in document["replicas"]:
        run = runs[f"s/confirm/r1-t00002-s{each['replica']}"]
        for name, value in each["metrics"].items():
            assert run.data.metrics[name] == pytest.approx(value)
        assert run.data.tags["dlsearch.test_evaluated"] == "true"
    (kept,) = [
        runs[name] for name in replicas if runs[name].data.tags["dlsearch.confirm.kept"] == "true"
    ]
    assert document["metrics"]["test/accuracy"] == pytest.approx(kept.data.metrics["test/accuracy"])
    assert sum(map(sum, document["confusion"])) == document["n"]
    contexts = {
        t.value
        for i in kept.inputs.dataset_inputs
        for t in i.tags
        if t.key == "mlflow.data.context"
    }
    assert contexts == {"train", "validation", "test"}
    assert runs["s/t00002"].data.tags["dlsearch.test_evaluated"] == "false"
    assert runs["s/confirm/r1-default-s0"].data.tags["dlsearch.test_evaluated"] == "false"


def test_one_checkpoint_is_kept(runs, study):
    confirmation = study.store / "studies/s/confirm"
    (kept,) = [n for n, r in runs.items() if r.data.tags.get("dlsearch.confirm.kept") == "true"]
    assert [p.parent.parent.name for p in confirmation.glob("*/ckpt/best.ckpt")] == [
        kept.rsplit("/", 1)[-1]
    ]


@pytest.mark.filterwarnings("ignore")  # mlflow.pyfunc's own
def test_the_winners_model_is_logged_and_predicts(runs, study):
    import mlflow
    import numpy as np

    mlflow.set_tracking_uri(f"sqlite:///{study.store / 'mlflow.db'}")
    (child,) = [r for r in runs.values() if r.data.tags.get("dlsearch.confirm.kept") == "true"]
    assert "dlsearch.model.error" not in child.data.tags, child.data.tags
    model = mlflow.pyfunc.load_model(f"models:/{child.data.tags['dlsearch.model.id']}")
    scores = model.predict(np.zeros((3, 1, 8, 8), dtype=np.float32))
    assert np.asarray(scores).shape == (3, 10)


def test_files_of_the_study_and_its_trials(runs, study):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{study.store / 'mlflow.db'}")

    def files(run, folder=None):
        names = []
        for entry in client.list_artifacts(run.info.run_id, folder):
            names += files(run, entry.path) if entry.is_dir else [entry.path]
        return names

    assert {
        "study/config.yaml",
        "study/overrides.txt",
        "report/index.html",
        "report/report.json",
    } <= set(files(runs["study:s"]))
    assert {"config.yaml", "logs/worker.a1.log"} <= set(files(runs["s/t00000"]))
    contexts = {
        tag.value
        for inputs in runs["s/t00002"].inputs.dataset_inputs
        for tag in inputs.tags
        if tag.key == "mlflow.data.context"
    }
    assert contexts == {"train", "validation"}


@pytest.mark.storm
def test_a_trial_whose_code_exits_has_failed_and_is_not_tried_again(place):
    site = place("leaves")
    leaves = "+callbacks.leaves"
    site.run(
        "-m", *TINY, "study.name=s", "study.n_trials=2", "hydra.launcher.workers=1", "trainer.max_epochs=3",
        "allow_targets=[tests.e2e.dying]", f"{leaves}._target_=tests.e2e.dying.Leaves", f"{leaves}.code=0",
        f"{leaves}.mark={site.folder / 'left'}",
    )  # fmt: skip
    first, second = site.rows("SELECT state, reason, error FROM dlsearch_attempt ORDER BY id")
    assert first[:2] == ("failed", "exception")
    assert first[2].startswith("SystemExit: 0 (tests/e2e/dying.py:")
    assert second == ("complete", None, None)
    assert site.json("trials", "s")[0]["reason"] == "exception"
