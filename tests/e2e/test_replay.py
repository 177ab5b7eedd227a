"""A study of four workers is replayed from its report, on one worker and on four."""

from __future__ import annotations

import json

import pytest

from tests.e2e.running import TINY

pytestmark = [pytest.mark.storm, pytest.mark.timeout(400)]

N_TRIALS = 14
STUDY = [
    "-m", *TINY, "study.name=s", f"study.n_trials={N_TRIALS}", "hydra.launcher.workers=4",
    "worker.threads=1", "sampler=tpe", "sampler.n_startup_trials=4", "pruner=sha",
    "data.train_size=512", "trainer.max_epochs=4", "study.finalize=true", "study.confirm.top=1",
    "study.confirm.seeds=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(place):
    site = place("replay")
    site.run(*STUDY, timeout=200)
    return site


@pytest.fixture(scope="module")
def report(study):
    return json.loads((study.store / "studies/s/report/report.json").read_text())


def test_the_study_was_one_of_four_workers_with_a_sampler_that_adapts(report):
    rows = report["replay"]
    assert (
        len({attempt["slot"] for trial in report["trials"] for attempt in trial["attempts"]}) == 4
    )
    assert any(len(row["seen"].get("running", "").split(",")) > 1 for row in rows)
    assert sum(row["state"] == "pruned" for row in rows) > 0
    assert all(row["verdict"]["stop"] for row in rows if row["state"] == "pruned")


@pytest.mark.parametrize("jobs", [1, 4])
def test_it_is_replayed_trial_for_trial(study, report, jobs):
    path = str(study.store / "studies/s/report/report.json")
    words = ["reproduce", path, "--store", str(study.folder / f"again-{jobs}"), "--jobs", str(jobs)]
    found = study.json(*words)
    assert found["equal"] is True
    assert {trial["verdict"] for trial in found["trials"]} == {"equal"}
    assert found["winner"]["equal"]
    assert found["confirmed"]["equal"]
    assert found["proposals"] == []
    assert (found["drawn"]["drawn"], found["drawn"]["given"]) == (N_TRIALS - 1, 1)
    assert (found["judged"]["differs"], found["judged"]["why_not"]) == ([], None)
    pruned = sum(row["state"] == "pruned" for row in report["replay"])
    assert found["judged"]["stops"] == pruned
    assert found["judged"]["judged"] > pruned


def test_a_changed_parameter_is_found(study, report):
    row = report["replay"][8]
    drawn = row["params"]["optimizer.lr"]
    row["params"]["optimizer.lr"] = 0.9 * drawn
    path = study.folder / "changed.json"
    path.write_text(json.dumps(report))
    said = study.run("reproduce", str(path), "--store", str(study.folder / "changed"), code=1)
    assert f"of {N_TRIALS - 1} drawn again alike" in said
    assert f"    trial 8: recorded {row['params']}, drawn " in said
    assert f"'optimizer.lr': {drawn}" in said
