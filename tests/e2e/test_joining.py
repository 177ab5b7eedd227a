"""``dlsearch worker``: it waits for a study, refuses one that is another here, and leaves when nothing is left."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing

import pytest

from tests.e2e.running import TINY, exactly, until

pytestmark = pytest.mark.storm


def test_a_worker_waits_for_its_study_and_stays_until_it_is_done(place):
    site, other = place("waiting"), place("early")
    url = f"study.storage='sqlite:///{site.store / 'dlsearch.db'}'"
    with other.running("worker", "study=s", "worker.wait=2m", "worker.slots=1", url) as worker:
        until(lambda: "waiting up to 120 s: there is no sqlite:" in other.log.read_text())
        site.run(
            "-m",
            *TINY,
            "study.n_trials=6",
            "study.name=s",
            "hydra.launcher.workers=1",
            "trainer.max_epochs=3",
        )
        assert worker.wait(60) == 0, other.log.read_text()
    assert "study s: nothing is left to do" in other.log.read_text()
    exactly(site, 6)


def test_a_worker_that_waits_in_vain_or_is_told_to_stop_says_so_in_one_line(place):
    site = place("in-vain")
    said = site.run("worker", "study=s", "worker.wait=1s", code=2)
    assert said.splitlines()[-1].startswith("dlsearch: study: there is no sqlite:///")
    assert not (site.store / "dlsearch.db").exists()
    with site.running("worker", "study=s", "worker.wait=1h") as worker:
        until(lambda: "waiting up to 3600 s" in site.log.read_text())
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 130
    assert site.run("worker", "study=s", "worker.wait=soon", code=2).startswith(
        "dlsearch: worker.wait: expected a dur"
    )


@pytest.fixture(scope="module")
def extended(place):
    """A study with trials left to run."""
    site = place("joined")
    site.run("-m", *TINY, "study.n_trials=2", "study.name=s", "hydra.launcher.workers=1")
    with closing(sqlite3.connect(site.store / "dlsearch.db")) as connection, connection:
        connection.execute("UPDATE dlsearch_study SET n_trials = 4, finished = 0")
    return site


def test_a_worker_whose_data_are_others_is_refused_before_it_claims(extended):
    def rewrite(change):
        with closing(sqlite3.connect(extended.store / "dlsearch.db")) as connection, connection:
            document = json.loads(
                connection.execute("SELECT document FROM dlsearch_study").fetchone()[0]
            )
            change(document["data"]["digests"])
            connection.execute("UPDATE dlsearch_study SET document = ?", [json.dumps(document)])

    kept = {}
    rewrite(lambda digests: kept.update(digests) or digests.update(val="0" * 64))
    said = extended.run("worker", "study=s", "worker.slots=1", code=2)
    assert "dlsearch: paths.data: the val data here are others" in said
    assert extended.states() == {"COMPLETE": 2}
    rewrite(lambda digests: digests.update(kept))
    assert "nothing is left to do" in extended.run("worker", "study=s", "worker.slots=1")
    exactly(extended, 4)


def test_a_worker_of_a_study_that_is_done_leaves_at_once(extended):
    said = extended.run("worker", "study=s", "tracking.enabled=false", timeout=90)
    assert "nothing is left to do" in said
