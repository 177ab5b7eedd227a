"""Workers that other machines run: what they are given, and how they are recalled."""

from __future__ import annotations

from dlsearch.app.worker_overrides import worker_overrides
from dlsearch.launch import remote
from tests.study.studies import complete, holder, opened


def test_workers_are_recalled_by_session(tmp_path):
    study = opened(tmp_path)
    claim = study.claim(holder())
    assert not remote.is_recalled(study, "a")
    study.finish(claim, complete(0.5))
    remote.recall(study, "a")
    assert remote.is_recalled(study, "a")
    assert not remote.is_recalled(study, "b")
    study.storage.close()


CONFIG = {
    "worker": {
        "threads": None,
        "lease_s": 30.0,
        "slots": "auto",
        "slots_per_gpu": None,
        "own_paths": False,
    },
    "study": {
        "storage_on_network_fs": None,
        "storage_patience": "5m",
        "storage": "postgresql+psycopg://u:secret@h/d",
        "timeout": "2h",
        "trial_timeout": None,
        "target": 0.9,
    },
    "paths": {"store": "/s", "data": "/d", "cache": "/s/cache", "weights": "/s/weights"},
    "tracking": {"enabled": True, "uri": "http://h:5000", "project": "p"},
}


def test_a_job_gets_its_place_and_finds_budgets_in_the_study():
    given = worker_overrides("s", CONFIG, "auto", session="x")
    assert given == [
        "worker.join='s'", "worker.session='x'", "worker.slots='auto'", "worker.lease_s=30.0",
        "study.storage='postgresql+psycopg://u:secret@h/d'",
        "tracking.enabled=True", "tracking.uri='http://h:5000'",
        "paths.store='/s'", "paths.data='/d'", "paths.cache='/s/cache'", "paths.weights='/s/weights'",
        "study.storage_patience='5m'",
    ]  # fmt: skip


def test_a_url_from_the_environment_is_not_written_into_a_job():
    typed = ["study.storage=${oc.env:STORAGE}", "study.n_trials=7"]
    given = worker_overrides("s", CONFIG, 1, typed=typed)
    assert "study.storage=${oc.env:STORAGE}" in given
    assert "secret" not in " ".join(given)


def test_a_machine_of_its_own_has_paths_of_its_own():
    own = {**CONFIG, "worker": {**CONFIG["worker"], "own_paths": True}}
    assert not [word for word in worker_overrides("s", own, 1) if word.startswith("paths.")]
