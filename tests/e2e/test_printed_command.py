"""The command that a report prints for the winner gives the winner: the same training as a trial's, bit for bit."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import pytest

from dlsearch.training.fingerprint import state_digest
from dlsearch.training.state import checkpoints
from tests.e2e.test_loading import EXPERIMENT

DROPOUT = [
    "model=mlp", "model.width=256", "data.train_size=1000", "data.val_size=300", "data.batch_size=64",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "space=none", "model.dropout=interval(0.1,0.5)",
    "optimizer.lr=tag(log,interval(0.0005,0.01))", "study.n_trials=2", "study.confirm.seeds=2", "study.confirm.top=1",
    "sampler=random", "tracking.enabled=false", "tracking.system_metrics_s=null",
]  # fmt: skip
OWN = ["experiment=late", "allow_targets=[tests.late]", "study.n_trials=1"]


TITLES = {
    "again": "The whole study again from its record, and compared:",
    "winner": "The winner alone:",
    "verify": "Its trial again from the record, compared bit by bit:",
    "predict": "The kept model on files of your own:",
}


def printed(site, name, title="winner"):
    """The words of a command, as the report's page prints it."""
    page = (site.store / f"studies/{name}/report/report.md").read_text()
    beginning = re.escape(TITLES[title])
    (command,) = re.findall(beginning + r"\n+```\w*\n(.*?)\n```", page, re.DOTALL)
    program, *words = shlex.split(command)
    assert program == "dlsearch"
    return words


def trained(site, words):
    """What a plain run comes to: its objective, to the last bit, and the digest of its weights."""
    before = set((site.store / "runs").glob("*"))
    site.run(*words)
    (folder,) = set((site.store / "runs").glob("*")) - before
    rows = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    text = json.dumps(rows)
    values = {float(value) for value in re.findall(r'"objective": ([0-9.e-]+)', text)}
    return values, state_digest(checkpoints.weights(folder / "ckpt/best.ckpt"))


def kept(site, name):
    """The same of the replica that a study kept, by its own record."""
    again = json.loads((site.store / f"studies/{name}/report/report.json").read_text())["again"][
        "finalization"
    ]
    winner = next(each for each in again["configurations"] if each["winner"])
    replica = next(
        each for each in winner["replicas"] if each["replica"] == again["kept"]["replica"]
    )
    return {replica["value"]}, replica["state_sha256"]


@pytest.fixture(scope="module")
def site(place):
    site = place("printed")
    (site.folder / "conf/experiment").mkdir(parents=True)
    (site.folder / "conf/experiment/late.yaml").write_text(EXPERIMENT)
    return site


@pytest.mark.storm
@pytest.mark.parametrize(("slots", "threads"), [(1, 2), (2, 1)])
def test_it_gives_the_kept_model(site, slots, threads):
    name = f"slots{slots}"
    site.run(
        "-m",
        *DROPOUT,
        f"study.name={name}",
        f"hydra.launcher.workers={slots}",
        f"worker.threads={threads}",
    )
    words = printed(site, name)
    assert f"worker.threads={threads}" in words
    assert trained(site, words) == kept(site, name)


@pytest.mark.storm
def test_it_gives_the_best_trial_of_a_study_without_a_confirmation(site):
    site.run(
        "-m",
        *DROPOUT,
        "study.name=trials",
        "study.finalize=false",
        "hydra.launcher.workers=2",
        "worker.threads=2",
    )
    record = json.loads((site.store / "studies/trials/report/report.json").read_text())
    best = record["replay"][record["winner"]]
    assert trained(site, printed(site, "trials")) == ({best["values"][0]}, best["state_sha256"])


def test_it_finds_a_module_of_the_users_own(site):
    said = site.run("--config-dir", "conf", "-m", *OWN, "study.name=own")
    assert "study own: 1 trial + up to " in said
    words = printed(site, "own")
    assert words[:2] == ["--config-dir", "conf"]
    assert trained(site, words) == kept(site, "own")


@pytest.mark.storm
def test_every_command_of_a_report_works_as_it_is_printed(site):
    """Of a study of the user's own module, in its folder: nothing is added to what is printed."""
    site.run("--config-dir", "conf", "-m", *OWN, "study.name=all")
    said = site.run(*printed(site, "all", "again"))
    assert "1 of 1 trials bit-equal" in said
    assert "equal" in site.run(*printed(site, "all", "verify"))
    assert trained(site, printed(site, "all", "winner")) == kept(site, "all")
    words = printed(site, "all", "predict")
    image = np.zeros((1, *kept_shape(site, "all")), dtype=np.float32)
    np.save(site.folder / "inputs.npy", image)
    said = site.run(*["inputs.npy" if word == "FILE" else word for word in words])
    assert "inputs.npy" in said


def kept_shape(site, name):
    """The shape of one input of a study."""
    record = json.loads((site.store / f"studies/{name}/report/report.json").read_text())
    return record["study"]["data"]["shape"]


@pytest.mark.storm
def test_a_resumed_study_trains_with_as_many_threads_on_any_number_of_slots(site):
    words = ["-m", *DROPOUT, "model.width=16", "study.name=resumed", "study.finalize=false"]
    site.run(*words, "hydra.launcher.workers=1", "worker.threads=2")
    longer = [word.replace("study.n_trials=2", "study.n_trials=3") for word in words]
    site.run(*longer, "hydra.launcher.workers=2")
    results = [
        json.loads(r)
        for (r,) in site.rows("SELECT result FROM dlsearch_attempt WHERE study = 'resumed'")
    ]
    assert [result["inputs"]["threads"] for result in results] == [2] * 3
    said = site.run(*longer, "worker.threads=1", code=2)
    assert "worker.threads: trials of study 'resumed' train with 2 threads" in said
    said = site.run("worker", "study=resumed", "worker.threads=1", code=2)
    assert "train with 2 threads" in said


@pytest.mark.storm
def test_every_pool_of_a_trials_process_has_the_slots_threads(site):
    pools = ["allow_targets=[tests.late]", "+callbacks.pools._target_=tests.late.Pools"]
    words = [*DROPOUT, *pools, "study.n_trials=1", "study.finalize=false"]
    site.run("-m", *words, "study.name=pools", "hydra.launcher.workers=1", "worker.threads=2")
    (trial,) = site.store.glob("studies/pools/t00000/pools.json")
    site.run(*[word for word in words if "interval" not in word], "worker.threads=2", "name=pools")
    (run,) = site.store.glob("runs/pools-*/pools.json")
    for path in (trial, run):
        found = json.loads(path.read_text())
        assert {pool["user_api"] for pool in found["pools"]} >= {"blas", "openmp"}
        assert [pool["num_threads"] for pool in found["pools"]] == [2] * len(found["pools"])
        assert (found["torch"], found["environment"]) == (2, "2")
