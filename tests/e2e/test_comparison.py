"""A comparison as a user meets it: one command, a search for each option, one claim over them."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from dlsearch.sampling.seeds import replica_seed, trial_seed
from tests.e2e.running import FAST, ROOT, TINY, exactly
from tests.e2e.storm import STOP, TERM, Storm, plan

KEY = "task.label_smoothing"
COMMAND = [
    "-m", *TINY, "study.name=s", f"study.compare={KEY}", f"{KEY}=choice(0.0, 0.1)", "study.n_trials=2",
    "sampler=random", "study.finalize=true", "study.confirm.seeds=2", "hydra.launcher.workers=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def compared(place):
    site = place("compared")
    return site, site.run(*COMMAND)


def rows_of(site):
    """Of each trial what it was and came to, as the report has it."""
    return json.loads((site.store / "studies/s/report/report.json").read_text())["trials"]


def check_arms(site, each):
    """Every arm has so many trials, in turn, with the arm's value and the seeds of its numbers."""
    exactly(site, 2 * each)
    record = site.json("status", "s")
    assert record["n_trials"] == 2 * each
    rows = rows_of(site)
    assert [row["params"][KEY] for row in rows] == [0.0, 0.1] * each
    assert [row["seed"] for row in rows] == [trial_seed(0, row["number"] // 2) for row in rows]


def test_each_option_is_searched_and_confirmed_alike(compared):
    site, said = compared
    assert f"compares {KEY}: 0.0, 0.1; trials of each: 2, in all: 4" in said
    check_arms(site, 2)
    report = json.loads((site.store / "studies/s/report/report.json").read_text())
    finalists = report["confirmation"]["finalists"]
    assert {row["params"][KEY] for row in finalists} == {0.0, 0.1}
    for row in finalists:
        assert [each["seed"] for each in row["replicas"]] == [
            replica_seed(0, 1, i) for i in range(2)
        ]
    assert [check for check in report["checks"] if not check["ok"]] == []
    assert report["arms"]["asked"] == 2
    assert report["claim"]["headline"].startswith(KEY)
    assert report["claim"]["headline"] in said
    assert len(site.rows("SELECT 1 FROM dlsearch_test_evaluation")) == 1


def test_it_goes_on_as_what_it_is_alone(compared):
    site, _ = compared
    before = site.rows("SELECT number, state FROM trials")
    plain = [word for word in COMMAND if not word.startswith("study.compare")]
    other = [*plain, "study.compare=model", "model=linear,mlp"]
    other.remove("model=linear")
    for words in (plain, other):
        refused = site.run(*words, "study.allow_drift=true", "study.n_trials=9", code=2)
        assert refused.count("\n") == 1, refused
        assert refused.startswith("dlsearch: study.compare: study 's' compares")
    assert site.rows("SELECT number, state FROM trials") == before
    said = site.run(*COMMAND, "study.n_trials=3")
    assert "resumed, 4 of 6 trials are there" in said
    check_arms(site, 3)


@pytest.mark.storm
@pytest.mark.timeout(400)
def test_every_arm_has_its_budget_whoever_is_killed(place, warm):
    """Trials, workers and drivers are killed and stopped, and a worker joins: each arm is whole."""
    site = place("storm")
    each, lease_s = 6, 5.0
    words = [f"worker.lease_s={lease_s}", f"paths.store={site.store}", "tracking.enabled=false"]
    study = [
        *TINY, "study.name=s", f"study.n_trials={each}", "study.max_attempts=20", "trainer.max_epochs=8",
        "data.train_size=1024", "data.batch_size=8", "callbacks=none", f"study.compare={KEY}",
        f"{KEY}=choice(0.0, 0.1)", "sampler=tpe",
    ]  # fmt: skip
    kinds = ["trial"] * 3 + ["worker"] * 2 + ["driver"] * 2 + [TERM] * 2 + [STOP]
    storm = Storm(
        site.folder,
        [site.python, "-m", "tests.e2e.warm", f"{warm.path}#{warm.key}"],
        ["-m", *study, *words, "hydra.launcher.workers=2"],
        [["worker", "study=s", "worker.slots=1", "worker.threads=1", *words]],
        url=f"sqlite:///{site.store / 'dlsearch.db'}", study="s", seed=1,
        events=plan(random.Random(1), 2 * each, kinds), lease_s=lease_s,
        env={**FAST, "PYTHONPATH": f"{ROOT}:{ROOT / 'dlsearch/_hydra'}"}, roots=[warm._process.pid],
    )  # fmt: skip
    seen = storm.run(300)
    assert Counter(blow.kind for blow in seen.blows) == Counter(kinds)
    site.run("report", "s")
    check_arms(site, each)
    again = site.folder / "again"
    said = site.run("reproduce", "s", "--store", str(again), timeout=300)
    assert "differ" not in said or "0 differ" in said, said


def test_an_arm_s_first_proposals_are_those_of_the_others(compared):
    """They are drawn with the same seeds: what the sampler happens to try first favours no arm."""
    site, _ = compared
    rows = rows_of(site)
    drawn = {}
    for row in rows[2:4]:
        drawn[row["params"][KEY]] = row["params"]["optimizer.lr"]
    assert drawn[0.0] == drawn[0.1]
