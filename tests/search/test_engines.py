"""Workers that other machines run: what they are given, what their ends mean, and how they are recalled."""

from __future__ import annotations

import pytest
from hydra.core.utils import JobReturn, JobStatus

from dlsearch.search import engines
from dlsearch.search.serve import worker_overrides
from tests.search.studies import complete, holder, opened


def ended(code):
    """A job's return: an exit code, or what it raised."""
    if isinstance(code, int):
        return JobReturn(status=JobStatus.COMPLETED, _return_value=code)
    return JobReturn(overrides=[], status=JobStatus.FAILED, _return_value=code)


@pytest.mark.parametrize(("codes", "done", "expected"), [
    ([0], False, False),
    ([130, 0], False, False),  # one was preempted, another found nothing left
    ([RuntimeError("its node died"), 0], False, False),
    ([130, 130], False, True),
    ([130], True, False),
    ([2, 130], False, True),
])  # fmt: skip
def test_a_study_was_interrupted_where_no_worker_came_to_its_end(codes, done, expected):
    assert engines.interrupted([ended(code) for code in codes], lambda: done) is expected


def test_workers_that_could_not_serve_are_no_end_of_a_study():
    with pytest.raises(RuntimeError, match=r"no worker served the study to its end: exit codes 1, 2;"):
        engines.interrupted([ended(2), ended(RuntimeError("no such module"))], lambda: False)
    with pytest.raises(ValueError, match="as it was"):
        engines.interrupted([ended(ValueError("as it was"))], lambda: False)
    assert engines.interrupted([ended(2)], lambda: True) is False


def test_workers_are_recalled_by_session(tmp_path):
    study = opened(tmp_path)
    claim = study.claim(holder())
    assert not engines.recalled(study, "a")
    study.finish(claim, complete(0.5))
    engines.recall(study, "a")
    assert engines.recalled(study, "a")
    assert not engines.recalled(study, "b")
    study.storage.close()


CONFIG = {
    "worker": {"threads": None, "lease_s": 30.0, "slots": "auto", "slots_per_gpu": None, "own_paths": False},
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


def test_a_job_gets_its_place_and_budgets():
    given = worker_overrides("s", CONFIG, "auto", session="x")
    assert given == [
        "worker.join='s'", "worker.session='x'", "worker.slots='auto'", "worker.lease_s=30.0",
        "study.storage='postgresql+psycopg://u:secret@h/d'", "study.timeout='2h'", "study.target=0.9",
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
