"""A search whose first trials all fail alike stops; the same command after a mend goes on."""

from __future__ import annotations

import pytest

from dlsearch.records.failures import group_failures
from dlsearch.records.record import read_record
from dlsearch.records.status import read_status
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study
from tests.study.studies import complete, draft, holder, opened


def failed(message="bad shape", place="my.py:12", kind="ValueError", reason="exception"):
    cause = {"type": kind, "message": message, "place": place}
    error = f"{kind}: {message} ({place})"
    return {"state": "failed", "reason": reason, "error": error, "cause": cause}


@pytest.fixture
def opening(tmp_path):
    studies = []

    def open_(limit=3, n_trials=8, **study):
        given = {"max_identical_failures": limit, **study}
        studies.append(opened(tmp_path, draft(n_trials, study=given)))
        return studies[-1]

    yield open_
    for study in studies:
        study.storage.close()


def end(study, *results):
    """Run trials one after another to these ends; how many were claimed."""
    for count, result in enumerate(results):
        claim = study.claim(holder())
        if claim is None:
            return count
        assert study.finish(claim, result)
    return len(results)


def test_three_alike_from_the_start_stop_the_study_and_a_mend_goes_on(opening):
    study = opening()
    assert end(study, *[failed(f"{n} do not fit") for n in range(5)]) == 3
    assert not study.searching()
    other = Study(Storage(study.storage.url), "s")
    assert other.claim(holder("joined")) is None
    other.storage.close()
    assert not study.settle(interrupted=False, confirmed=True)
    status = read_status(study)
    assert (status.state, status.stopped.failed) == ("failed", 3)
    assert status.stopped.error == "ValueError: 0 do not fit (my.py:12)"
    assert read_record(study).study.state == "failed"
    assert read_record(study).trials[0].training.cause["place"] == "my.py:12"

    again = opening()  # the same command
    assert again.searching()
    assert read_status(again).stopped is None
    assert end(again, failed(), failed(), complete(0.5), failed(), failed(), failed()) == 5
    assert again.settle(interrupted=False, confirmed=True)
    status = read_status(again)
    assert (status.state, status.counts["failed"], status.counts["complete"]) == ("complete", 7, 1)
    assert [group.trials for group in status.failures] == [[0, 1, 2, 3, 4, 6, 7]]


def test_what_was_not_mended_stops_again_and_the_budget_is_exact(opening):
    assert end(opening(), *[failed()] * 9) == 3
    assert end(opening(), *[failed()] * 9) == 3
    study = opening()
    assert end(study, *[failed()] * 9) == 2
    assert study.settle(interrupted=False, confirmed=True), "nothing is left"
    assert read_status(study).stopped is None


@pytest.mark.parametrize("ends", [
    [failed(), failed(place="my.py:13"), failed()],
    [failed(), failed(kind="KeyError"), failed()],
    [failed(), complete(0.5), failed()],
    [failed(), {"state": "pruned"}, failed()],
    [failed(reason="nan")] * 3,
    [failed(reason="timeout")] * 3,
    [{"state": "failed", "reason": "exception", "error": "as an earlier version said it"}] * 3,
])  # fmt: skip
def test_others_do_not_stop_it(opening, ends):
    study = opening()
    assert end(study, *ends, *[failed()] * 5) == 8


def test_it_can_be_switched_off_and_set(opening, tmp_path):
    assert end(opening(limit=0), *[failed()] * 8) == 8


def test_one_that_ran_beside_them_and_completed_lets_it_go_on(opening):
    study = opening(limit=2)
    claims = [study.claim(holder(slot=slot)) for slot in range(3)]
    assert study.finish(claims[0], failed())
    assert study.finish(claims[1], failed())
    assert study.claim(holder()) is None
    assert study.searching(), "one runs"
    assert study.finish(claims[2], complete(0.5))
    assert study.claim(holder()) is not None


def test_a_study_of_an_earlier_version_runs_on(tmp_path):
    study = opened(tmp_path, draft(5))
    assert end(study, *[failed()] * 5) == 5
    study.storage.close()


def test_failures_are_grouped_by_type_and_place(opening):
    study = opening(limit=0)
    end(
        study,
        failed("1"),
        failed("2", place="my.py:9"),
        failed("3"),
        complete(0.1),
        failed("4", reason="oom"),
    )
    groups = group_failures(study)
    assert [(group.trials, group.reason) for group in groups] == [
        ([0, 2], "exception"), ([1], "exception"), ([4], "oom"),
    ]  # fmt: skip
    assert groups[0].error == "ValueError: 1 (my.py:12)"
