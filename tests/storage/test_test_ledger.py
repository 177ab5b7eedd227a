"""The ledger follows the data's digest: openings of a test set count over all studies of a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from dlsearch.app.phrases import describe_next_opening, describe_test
from dlsearch.records.record import read_record
from dlsearch.records.status import ScoreRecord, read_status
from dlsearch.storage.tables import StudyRow
from dlsearch.storage.test_ledger import Ledger, digest_of_test_split
from dlsearch.study.study import Study
from tests.study.studies import complete, draft, holder, opened

DIGEST = "5e5t" * 16


def open_study(folder: Path, name: str, digest: str | None = DIGEST) -> Study:
    """A study whose data have a digest, or none."""
    study = opened(folder, draft(2, name=name, study={"name": name}))
    data = {"digests": {"test": digest}} if digest else {}
    document = {**study.document, "data": data}
    change = sa.update(StudyRow).where(StudyRow.name == name)
    with study.storage.begin() as connection:
        connection.execute(change.values(document=json.dumps(document)))
    return Study(study.storage, name)


@pytest.fixture
def store(tmp_path):
    """A study of this test set, after another one, one of other data, and a single run."""
    before = open_study(tmp_path, "before")
    before.ledger.scored(before.ledger.opened("confirm", 0, 1), {"metrics": {"test/loss": 1.0}})
    open_study(tmp_path, "elsewhere", "other").ledger.opened("confirm", 0, 2)
    Ledger(before.storage, "", test_digest=DIGEST).opened("manual", None, 3)
    return open_study(tmp_path, "s")


def test_a_record_a_status_and_a_search_count_the_openings_of_all_studies(store):
    claim = store.claim(holder())
    assert store.finish(claim, complete(0.5))
    row = store.ledger.opened("confirm", 0, 4)
    store.ledger.scored(row, {"metrics": {"test/accuracy": 0.9}, "n": 10})
    status = read_status(store)
    assert (status.openings, status.openings_of_test_set) == (1, 3)
    said = describe_test(ScoreRecord(0, {"test/accuracy": 0.9}), status)
    assert said == (
        "test set, opened once by this study (3 times in this store) for trial 0: "
        "test/accuracy 0.9000"
    )
    record = read_record(store).to_json()
    assert record["openings"][0]["test_digest"] == DIGEST
    assert record["test_set"]["digest"] == DIGEST
    openings = [(each["study"], each["is_own"]) for each in record["test_set"]["openings"]]
    assert openings == [("before", False), (None, False), ("s", True)]


def test_a_study_that_is_gone_or_had_the_same_name_still_counts(tmp_path, store):
    storage = store.storage
    store.ledger.opened("confirm", 0, 4)
    with storage.begin() as connection:
        connection.execute(sa.delete(StudyRow).where(StudyRow.name == "before"))
    namesake = Ledger(storage, "s", uuid="another", test_digest=DIGEST)
    assert namesake.rows() == []
    assert [row["is_own"] for row in namesake.rows_of_test_set()] == [0, 0, 0]
    namesake.opened("confirm", 0, 5)
    assert [row["seed"] for row in namesake.rows()] == [5]
    assert [row["seed"] for row in store.ledger.rows()] == [4]
    assert read_status(store).openings_of_test_set == 4


def test_rows_of_earlier_versions_count_by_their_name(store):
    Ledger(store.storage, "s").opened("confirm", 0, 6)
    assert [row["seed"] for row in store.ledger.rows()] == [6]
    assert read_status(store).openings_of_test_set == 3


def test_without_a_digest_nothing_is_said_of_others(tmp_path, store):
    study = open_study(tmp_path, "own", None)
    study.ledger.opened("confirm", 0, 7)
    status = read_status(study)
    assert (status.openings, status.openings_of_test_set) == (1, None)
    record = read_record(study).to_json()
    assert "test_set" not in record
    assert "test_digest" not in record["openings"][0]


def test_an_extension_says_how_often_the_test_set_has_been_opened(store):
    assert describe_next_opening(read_status(store), is_certain=True) is None
    store.ledger.opened("confirm", 0, 4)
    status = read_status(store)
    assert describe_next_opening(status, is_certain=True) == (
        "the test set will be opened again; "
        "it has been opened 3 times in this store, twice by others so far"
    )
    assert describe_next_opening(status, is_certain=False) == (
        "the test set will be opened again, unless the finalists stay the same; "
        "it has been opened 3 times in this store, twice by others so far"
    )


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        ({"digests": {"test": DIGEST}}, DIGEST),
        ({"digests": {"test": None}}, None),
        ({"digests": []}, None),
        ({"digests": {"test": "x" * 129}}, None),
        (None, None),
        ({}, None),
    ],
)
def test_a_digest_is_a_text_that_fits(data, digest):
    assert digest_of_test_split(data) == digest
