"""Which model is the study's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.study.kept_model import kept_model
from tests.report.records import study_record


def touch(store: Path, folder: str) -> Path:
    path = store / folder / "ckpt" / "best.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    (store / folder / "config.yaml").touch()
    return path


def record(**changes: Any) -> dict[str, Any]:
    return study_record("alpha", scores=[0.8, 0.9, 0.7], **changes)


def test_the_finalisation_names_it(tmp_path: Path) -> None:
    path = touch(tmp_path, "studies/alpha/confirm/kept")
    kept = kept_model(record(confirmed=[0.9, 0.91], right=190), tmp_path)
    assert (kept.checkpoint, kept.number, kept.kind) == (path, 1, "confirm")
    assert kept.about["test"]["metrics"] == {"test/accuracy": 0.95}


def test_a_refit_that_was_kept_has_its_own_test_score(tmp_path: Path) -> None:
    touch(tmp_path, "studies/alpha/confirm/kept")
    done = record(confirmed=[0.9, 0.91], right=190)
    done["test"][0]["refit"] = {"metrics": {"test/accuracy": 0.96}}
    assert kept_model(done, tmp_path).about["test"] == {
        "n": 200,
        "metrics": {"test/accuracy": 0.96},
    }


def test_a_trial_of_its_own_and_the_one_that_it_repeats(tmp_path: Path) -> None:
    path = touch(tmp_path, "studies/alpha/t00000")
    several = record()
    several["trials"][2]["duplicate_of"] = 0
    assert kept_model(several, tmp_path, 2).checkpoint == path


@pytest.mark.parametrize(
    ("changes", "number", "why"),
    [
        ({"finalization": None}, None, "not finalised.*alpha/1"),
        ({"finalization": {"state": "partial", "checkpoint": "x"}}, None, "not finalised"),
        ({"winner": None}, None, "no trial of 'alpha' is complete yet"),
        ({"pareto": [0, 1]}, None, "several objectives.*alpha/0, alpha/1"),
        ({}, 7, "has no trial 7"),
        ({}, 1, "is not in this store"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    tmp_path: Path, changes: dict[str, Any], number: int | None, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        kept_model(record() | changes, tmp_path, number)


def test_a_trial_that_failed_left_nothing(tmp_path: Path) -> None:
    failed = record()
    failed["trials"][0]["state"] = "failed"
    with pytest.raises(ConfigError, match="trial 0 of 'alpha' is failed"):
        kept_model(failed, tmp_path, 0)
