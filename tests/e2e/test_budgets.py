"""Budgets, given parameter sets, duplicates, and what may change when a study is taken up again."""

from __future__ import annotations

import json

import pytest

from tests.e2e.running import TINY, exactly

GRID = [
    "optimizer.lr=choice(0.01, 0.1)",
    "space.optimizer.weight_decay=null",
    "data.batch_size=choice(16, 32)",
]


@pytest.mark.storm
def test_a_trial_beyond_its_deadline_has_failed_by_timeout(place):
    site = place("deadline")
    site.run("-m", *TINY, "study.n_trials=2", "study.trial_timeout=2s", "trainer.max_epochs=100000",
             "callbacks=none", "hydra.launcher.workers=2", "study.name=s", timeout=60, code=1)  # fmt: skip
    rows = site.json("trials", "s")
    assert [(row["state"], row["reason"]) for row in rows] == [("failed", "timeout")] * 2
    assert all(2 <= row["seconds"] < 20 for row in rows)
    assert all("deadline of 2 s after" in row["error"] for row in rows)
    assert site.states() == {"FAIL": 2}


@pytest.mark.storm
def test_memory_that_runs_out_is_tried_again_with_half_the_batch(place):
    site = place("cramped")
    site.run("-m", *TINY, "study.n_trials=1", "study.name=s", "hydra.launcher.workers=1",
             "allow_targets=[tests.e2e.dying]", "+callbacks.cramped._target_=tests.e2e.dying.Cramped",
             "+callbacks.cramped.room_mib=1024", "+callbacks.cramped.sample_mib=48", timeout=60)  # fmt: skip
    ends = site.rows("SELECT state, reason, error, result FROM dlsearch_attempt ORDER BY id")
    assert [end[:2] for end in ends] == [("interrupted", "oom"), ("complete", None)]
    assert "can't allocate memory" in ends[0][2], "what torch's own allocator says of 32 samples"
    assert json.loads(ends[1][3])["micro_batches"] == 2


@pytest.mark.storm
def test_the_studys_timeout_and_target_stop_new_trials(place):
    site = place("budget")
    command = ["-m", *TINY, "study.n_trials=500", "hydra.launcher.workers=2", "study.name=s"]
    site.run(*command, "study.timeout=2s")
    first = site.finished()
    assert 1 <= len(first) < 60
    assert set(site.states()) == {"COMPLETE"}, "running trials were finished"
    said = site.run(*command, f"study.target={max(first.values())}")
    assert site.finished() == first, "the target was reached before"
    assert f"resumed, {len(first)} of 500" in said
    site.run(*command, f"study.n_trials={len(first) + 2}")
    exactly(site, len(first) + 2)


@pytest.fixture(scope="module")
def small(place):
    """Four points, of which two are given; eight trials."""
    site = place("small")
    sets = "[{optimizer.lr: 0.1, data.batch_size: 16}, {data.batch_size: 32, optimizer.lr: 0.01}]"
    command = ["-m", *TINY, *GRID, "study.n_trials=8", "hydra.launcher.workers=2", "study.name=s"]
    command.remove("space.data.batch_size=null")
    command.remove("data.batch_size=32")
    return site, command, site.run(*command, f"study.enqueue={sets}")


def test_given_sets_run_first_and_as_given(small):
    site, _, _ = small
    rows = site.json("trials", "s")
    assert [row["params"] for row in rows[:2]] == [
        {"optimizer.lr": 0.1, "data.batch_size": 16}, {"optimizer.lr": 0.01, "data.batch_size": 32},
    ]  # fmt: skip
    config = (site.store / "studies/s/t00000/config.yaml").read_text()
    assert "batch_size: 16" in config
    assert "lr: 0.1" in config


def test_duplicates_count_and_do_not_run(small):
    site, _, said = small
    exactly(site, 8)
    assert "note: the space has 4 points" in said
    rows = site.json("trials", "s")
    copies = [row for row in rows if row["duplicate_of"] is not None]
    assert len(copies) >= 4
    assert len(site.attempts()) == 8 - len(copies)
    for row in copies:
        original = rows[row["duplicate_of"]]
        assert (row["params"], row["value"], row["attempt"]) == (
            original["params"],
            original["value"],
            0,
        )


def test_another_config_is_refused_unless_drift_is_allowed_and_a_larger_total_goes_on(small):
    site, command, _ = small
    before = site.rows("SELECT document FROM dlsearch_study")
    said = site.run(*command, "task.label_smoothing=0.1", code=2)
    assert "study.name: study 's' exists with another task.label_smoothing" in said
    assert "study.allow_drift=true" in said
    assert said.count("\n") == 1
    other = [word.replace("choice(0.01, 0.1)", "choice(0.01, 0.2)") for word in command]
    said = site.run(*other, code=2)
    assert "another space" in said
    assert site.rows("SELECT document FROM dlsearch_study") == before

    said = site.run(
        *command, "task.label_smoothing=0.1", "study.allow_drift=true", "study.n_trials=10"
    )
    assert "resumed, 8 of 10 trials are there" in said
    exactly(site, 10)
    ((document,),) = site.rows("SELECT document FROM dlsearch_study")
    assert json.loads(document)["sessions"][-1]["drift"] == ["task.label_smoothing"]
    assert site.json("status", "s")["state"] == "complete"


def test_a_worker_that_joins_finds_the_study_s_budgets_and_leaves(place):
    site = place("joined")
    site.run(
        "-m",
        *TINY,
        "study.n_trials=9",
        "hydra.launcher.workers=1",
        "study.name=s",
        "study.target=0.01",
    )
    first = site.finished()
    assert 1 <= len(first) < 9
    said = site.run("worker", "study=s", "worker.slots=1", "tracking.enabled=false")
    assert "nothing is left to do" in said
    assert site.finished() == first, "it was told of no target, and claimed the other trials"
