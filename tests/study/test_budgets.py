"""The budgets of a study are the study's: whoever serves it or asks whether it is over finds them in its storage."""

from __future__ import annotations

import time

import pytest

from dlsearch.app import run_workers
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study
from tests.storage.test_availability import opened as opened_at
from tests.study.studies import complete, draft, holder, opened


@pytest.fixture(params=["sqlite", "postgresql"])
def opening(request, tmp_path):
    """Opens, or resumes, the study of a test."""
    studies = []
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").database(
            f"budgets-{request.node.originalname[:40]}"
        )

    def open_(n_trials=4, **budgets):
        given = {"finalize": False, **budgets}
        study = (
            opened(tmp_path, draft(n_trials, study=given))
            if url is None
            else opened_at(url, "s", study=given)
        )
        studies.append(study)
        return study

    yield open_
    for study in studies:
        study.storage.close()


@pytest.fixture
def joined():
    """Opens a study as a worker finds it that was started with no budget of its own."""
    studies = []

    def join(study):
        studies.append(Study(Storage(study.storage.url), study.name))
        return studies[-1]

    yield join
    for study in studies:
        study.storage.close()


def test_a_joined_worker_claims_nothing_once_the_target_is_reached(opening, joined):
    study = opening(target=0.9)
    other = joined(study)
    assert study.finish(study.claim(holder()), complete(0.95))
    assert other.claim(holder("joined")) is None
    assert not other.searching()
    assert run_workers.is_done(other)


def test_a_joined_worker_claims_nothing_once_the_time_is_over(opening, joined):
    study = opening(timeout="1s")
    other = joined(study)
    claim = other.claim(holder("joined"))
    assert claim is not None
    time.sleep(1.1)
    assert other.searching(), "what runs is finished"
    assert other.finish(claim, complete(0.5))
    assert other.claim(holder("joined")) is None
    assert not joined(study).searching()
    assert run_workers.is_done(study)


def test_time_that_earlier_sessions_spent_counts_and_is_spent_once(opening, joined):
    study = opening(timeout="1h")
    study.add_seconds(3599.5)
    other = joined(study)
    assert other.claim(holder("joined")) is not None, "there is half a second left"
    time.sleep(0.6)
    assert joined(study).claim(holder("another")) is None


def test_the_session_that_was_opened_last_says_what_holds_for_all(opening, joined):
    study = opening(target=0.9, timeout="1h", trial_timeout="90s")
    other = joined(study)
    assert study.finish(study.claim(holder()), complete(0.95))
    assert other.claim(holder("joined")) is None
    opening(target=None, timeout=None, trial_timeout="60s")
    claim = other.claim(holder("joined"))
    assert claim is not None, "the target was taken back while it waited"
    assert claim.trial_timeout_s == 60.0
    opening(timeout="1h", target=0.96)
    assert other.searching()
    assert other.claim(holder("joined")).trial_timeout_s is None


def test_a_worker_can_tighten_the_budgets_and_not_widen_them(opening, joined):
    study = opening(target=0.9, timeout="1h")
    other = joined(study)
    assert other.claim(holder(), deadline=time.time() - 1) is None
    assert study.finish(study.claim(holder()), complete(0.5))
    assert other.claim(holder(), target=0.4) is None
    assert not other.searching(target=0.4)
    assert other.searching()
    assert study.finish(study.claim(holder()), complete(0.95))
    assert other.claim(holder(), target=0.99, deadline=time.time() + 3600) is None
