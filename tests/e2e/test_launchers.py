"""Other launchers and sweepers of Hydra's: the study is the same, the processes are theirs."""

from __future__ import annotations

import json
import os
import signal

import pytest
import yaml

from tests.e2e.running import TINY, exactly, until


@pytest.mark.storm
@pytest.mark.parametrize(("launcher", "jobs"), [
    (["hydra/launcher=basic"], 1),
    (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "study.workers=2", "worker.threads=1"], 2),
])  # fmt: skip
def test_workers_under_hydras_launchers(place, launcher, jobs):
    site = place("launcher", cold=jobs > 1)  # joblib's processes are new ones
    # Long enough that the second worker, which imports torch for itself, still finds work.
    epochs = 1 if jobs == 1 else 20
    said = site.run("-m", *TINY, *launcher, "study.n_trials=8", "study.name=s", f"trainer.max_epochs={epochs}",
                    "callbacks=none")  # fmt: skip
    exactly(site, 8)
    workers = {worker for (worker,) in site.rows("SELECT worker FROM dlsearch_attempt")}
    assert len(workers) == jobs
    assert "8 trials (8 complete)" in said


def three_studies(site, *words):
    """Each exits with 0, without a traceback and without a hang, and leaves the database whole."""
    words = ["-m", *TINY, *words, "study.n_trials=2"]
    for number in (1, 2, 3):
        said = site.run(*words, f"study.name=s{number}", timeout=200)
        assert "2 trials (2 complete)" in said
        assert "report: " in said
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        for database in sorted(path.name for path in site.store.glob("*.db")):
            assert site.rows("PRAGMA integrity_check", database=database) == [("ok",)], (
                f"{database} after {number}"
            )
    assert site.states() == {"COMPLETE": 6}


@pytest.mark.storm
def test_three_studies_in_one_store(place):
    three_studies(place("three"), "hydra/launcher=basic")


@pytest.mark.storm
@pytest.mark.timeout(700)  # six imports of torch
@pytest.mark.parametrize("launcher", ["local", "basic", "joblib", "submitit_local", "ray"])
def test_three_studies_in_one_store_from_cold(place, launcher):
    words = [f"hydra/launcher={launcher}", "tracking.enabled=true"]
    if launcher == "ray":  # else it joins a cluster that another test is about to end
        words.append("hydra.launcher.ray.init.address=local")
    three_studies(place("cold", cold=True), *words)


@pytest.mark.storm
def test_a_grid_of_trainings_under_hydras_own_sweeper(place):
    site = place("grid", cold=True)
    said = site.run(
        "-m", "hydra/sweeper=basic", "hydra.launcher.workers=2", "model=linear", "optimizer.lr=0.001,0.1",
        "data.train_size=64", "trainer.max_epochs=2", "trainer.accelerator=cpu", "tracking.enabled=false",
    )  # fmt: skip
    configs = [
        yaml.safe_load(path.read_text())
        for path in sorted((site.store / "runs").glob("*/config.yaml"))
    ]
    assert sorted(config["optimizer"]["lr"] for config in configs) == [0.001, 0.1]
    assert said.count("val/accuracy 0.") >= 2
    assert not (site.store / "dlsearch.db").exists()
    assert sorted(path.name for path in site.folder.iterdir()) == ["said.txt", "store"], (
        "no outputs/ or multirun/"
    )


@pytest.mark.storm
def test_a_plain_training_stops_on_ctrl_c_and_keeps_its_last_epoch(place):
    site = place("plain", cold=True)
    words = [
        "model=linear",
        "trainer.max_epochs=100000",
        "trainer.accelerator=cpu",
        "tracking.enabled=false",
    ]
    with site.running(*words, "callbacks=none") as process:
        until(lambda: list(site.store.glob("runs/*/ckpt/last.ckpt")))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130, site.log.read_text()
    said = site.log.read_text()
    assert "Traceback" not in said
    assert "run: store/runs/linear_digits-" in said
    (journal,) = site.store.glob("runs/*/journal.jsonl")
    last = [json.loads(line) for line in journal.read_text().splitlines()][-1]
    assert (last["row"], last["status"]) == ("status", "KILLED")
