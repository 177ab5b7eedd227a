"""The confirmation as a user meets it: interrupted, killed, gone on with; each replica once, the test set once."""

from __future__ import annotations

import json
import os
import re
import signal

import psutil
import pytest

from tests.e2e.running import TINY, new_child, until

COMMAND = [
    "-m", *TINY, "study.name=s", "study.n_trials=3", "hydra.launcher.workers=2", "study.finalize=true",
    "study.confirm.top=3", "study.confirm.seeds=4", "study.confirm.racing=false", "worker.lease_s=2",
    "trainer.max_epochs=30", "callbacks=none",
]  # fmt: skip


def ended(site):
    """Replicas that are done."""
    return site.rows(
        "SELECT number FROM dlsearch_attempt WHERE kind='confirm' AND state='complete'"
    )


@pytest.fixture(scope="module")
def story(place, warm):
    """One confirmation: Ctrl-C in it, a killed replica, a killed worker, a killed driver, and its end."""
    site = place("confirmed")
    found = {}
    with site.running(*COMMAND) as process:
        until(lambda: len(ended(site)) >= 2)
        os.killpg(process.pid, signal.SIGINT)
        found["code"] = process.wait(60)
    found["said"], found["after"], found["kept"] = (
        site.log.read_text(),
        site.json("status", "s"),
        set(ended(site)),
    )

    with site.running(*COMMAND) as process:
        until(lambda: len(ended(site)) > len(found["kept"]))
        new_child(warm._process.pid).kill()
        until(
            lambda: site.rows(
                "SELECT 1 FROM dlsearch_attempt WHERE kind='confirm' AND state='lost'"
            ),
            timeout=90,
        )
        until(lambda: len(ended(site)) >= len(found["kept"]) + 3)
        new_child(warm._process.pid)
        ((worker,),) = until(
            lambda: site.rows("SELECT DISTINCT pid FROM dlsearch_attempt WHERE state='running'")
        )
        os.kill(worker, signal.SIGKILL)
        until(lambda: len(ended(site)) >= len(found["kept"]) + 5)
        everyone = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(10)
        psutil.wait_procs(everyone, timeout=60)
    found["resumed"] = site.run(*COMMAND)
    return site, found


@pytest.mark.storm
def test_ctrl_c_in_the_confirmation_is_resumed(story):
    _, found = story
    assert found["code"] == 130, found["said"]
    assert "the same command goes on" in found["said"]
    assert found["after"]["state"] == "partial"
    assert found["after"]["confirmation"]["state"] == "running"
    assert found["after"]["running"] == []


@pytest.mark.storm
def test_each_replica_counts_once_whoever_was_killed(story):
    site, found = story
    rows = ended(site)
    assert len(rows) == len(set(rows)) == 12
    assert found["kept"] <= set(rows)
    assert not site.rows("SELECT 1 FROM dlsearch_attempt WHERE state='running'")
    record = json.loads((site.store / "studies/s/report/report.json").read_text())
    assert record["study"]["state"] == "complete"
    status = site.json("status", "s")
    assert [(c["done"], c["failed"]) for c in status["confirmation"]["configurations"]] == [
        (4, 0)
    ] * 3
    assert status["state"] == status["confirmation"]["state"] == "complete"


@pytest.mark.storm
def test_the_test_set_was_opened_once(story):
    site, found = story
    ((document,),) = site.rows("SELECT document FROM dlsearch_test_evaluation")
    assert [r["replica"] for r in json.loads(document)["replicas"]] == [0, 1, 2, 3]
    assert "test set, opened once for" in found["resumed"]
    assert "winner: " in found["resumed"]
    said = site.run(*COMMAND)
    assert "resumed, 3 of 3" in said
    assert len(site.rows("SELECT 1 FROM dlsearch_test_evaluation")) == 1, (
        "the same command opens nothing"
    )


@pytest.mark.storm
def test_an_extended_search_is_confirmed_again_and_the_training_on_both_splits_is_kept(place):
    site = place("extended")
    command = [*COMMAND, "study.confirm.top=1", "study.confirm.seeds=2", "trainer.max_epochs=2"]
    site.run(*command, "study.n_trials=2")
    said = site.run(*command, "study.confirm.refit=true")
    status = site.json("status", "s")
    assert status["confirmation"]["round"] == 2
    assert status["openings"] == 2
    assert "test set, opened twice for" in said
    warned = "note: the test set will be opened again; it has been opened once in this store so far"
    assert warned in said
    assert said.index(warned) < said.index("trial   2 ")
    confirmed = re.findall(r"confirm (trial +\d+|default)", said)
    assert set(confirmed) <= {"trial   2"}, "who was confirmed before is not trained again"
    assert "test set: opened twice" in site.run("status", "s")
    ((document,),) = site.rows(
        "SELECT document FROM dlsearch_test_evaluation ORDER BY id DESC LIMIT 1"
    )
    found = json.loads(document)
    assert found["round"] == 2
    assert [r["replica"] for r in found["replicas"]] == [0, 1]
    assert 0 <= found["refit"]["metrics"]["test/accuracy"] <= 1
    kept = {
        p.parent.parent.name for p in (site.store / "studies/s/confirm").glob("r2-*/ckpt/best.ckpt")
    }
    assert kept == {"r2-refit"}
    site.run("export", "s", "--out", "exported")
    again = site.run(*command, "study.confirm.refit=true", "study.confirm.seeds=3")
    assert set(re.findall(r"confirm (?:trial +\d+|default +)  seed (\d)", again)) == {"3"}
    site.run("export", "s", "--out", "exported again")
