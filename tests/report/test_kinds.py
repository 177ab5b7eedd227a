"""Each kind of evaluation describes its own scores, and every score has a kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlsearch.report import build
from dlsearch.report.document import read_ledger_row
from dlsearch.report.facts.facts import facts
from dlsearch.report.facts.kinds.registry import KINDS, recognise_kind
from dlsearch.report.load import view


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"metrics": {"test/accuracy": 0.5}}, "classification"),
        ({"confusion": [[1, 0], [0, 1]]}, "classification"),
        ({"metrics": {"test/mse": 0.1}}, "regression"),
        ({}, "regression"),
    ],
)
def test_scores_are_recognised(row: dict[str, Any], name: str) -> None:
    assert recognise_kind(read_ledger_row(row)).name == name


def test_kinds_have_names_of_their_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert KINDS[-1].recognises(read_ledger_row({}))


def test_every_kind_gives_the_same_keys(record: dict[str, Any]) -> None:
    found = view(record)
    row = found.ledger[0]
    keys = {frozenset(kind.describe_scores(row, found)) for kind in KINDS}
    assert len(keys) == 1


def test_a_regression_has_no_accuracy_and_its_metrics_over_the_seeds(
    record: dict[str, Any],
) -> None:
    row = record["test"][0]
    row.update(confusion=None, metrics={"test/mse": 0.25}, errors=[])
    for replica in row["replicas"]:
        replica["metrics"] = {"test/mse": 0.25 + 0.01 * replica["replica"]}
    found = facts(view(record))
    main = found["test"]["main"]
    assert main["accuracy"] is None
    assert main["wilson"] is None
    assert main["confusion"] == []
    assert [each["metric"] for each in main["over_seeds"]] == ["test/mse"]
    sentences = " ".join(found["claim"]["sentences"])
    assert "was scored on the test set in one of 2 openings of it." in sentences


def test_openings_of_the_test_set_by_other_studies_are_counted(
    record: dict[str, Any], tmp_path: Path
) -> None:
    name = record["study"]["name"]
    openings = [("lenet", False), (None, False), (name, False), (name, True), (name, True)]
    record["test_set"] = {
        "digest": "5e5t" * 16,
        "openings": [{"study": study, "is_own": is_own} for study, is_own in openings],
    }
    found = facts(view(record))
    assert found["test"]["opened"] == 2
    text = (
        "Over all studies of this store, this test set was opened 5 times: twice by this study, "
        f"once by an earlier study {name}, once by lenet and once by single runs "
        "(test split 5e5t5e5t5e5t)."
    )
    assert found["test"]["in_store"] == {
        "digest": "5e5t" * 16,
        "opened": 5,
        "by_others": 3,
        "text": text,
        "openings": record["test_set"]["openings"],
    }
    assert text in found["limits"]
    assert "in one of 5 openings of it" in " ".join(found["claim"]["sentences"])
    page = build(record, tmp_path)
    assert text in page.read_text()
    assert text in page.with_name("report.md").read_text().replace("\\", "")


def test_the_accuracy_comes_first_of_the_metrics(record: dict[str, Any]) -> None:
    main = facts(view(record))["test"]["main"]
    assert main["over_seeds"][0]["metric"] == "test/accuracy"


def test_without_a_confusion_matrix_the_accuracy_counts_the_right_ones(
    record: dict[str, Any],
) -> None:
    row = record["test"][0]
    row.update(confusion=None, n=200)
    row["metrics"]["test/accuracy"] = 0.75
    main = facts(view(record))["test"]["main"]
    assert main["right"] == 150
    assert main["per_class"] == []
    assert main["wilson"][0] < 0.75 < main["wilson"][1]
