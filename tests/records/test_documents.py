"""The documents of a study are, byte for byte, those that are kept here: keys, their order, nulls and words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlsearch.cli.commands.status import status
from dlsearch.cli.commands.studies import studies
from dlsearch.cli.commands.trials import trials
from dlsearch.records.record import read_record
from dlsearch.study.study import Study
from tests.records.recorded import DOCUMENTS, STUDIES, make_study


@pytest.fixture(params=STUDIES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Study, Path]:
    """The name of a study, the study, and its store."""
    study = make_study(request.param, tmp_path)
    return request.param, study, tmp_path


def kept(name: str) -> str:
    return (DOCUMENTS / name).read_text("utf-8")


def test_the_record_and_what_is_printed_of_it(
    made: tuple[str, Study, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    name, study, store = made
    record = read_record(study).to_json()
    study.storage.close()
    assert json.dumps(record, indent=1) + "\n" == kept(f"{name}.record.json")
    place = f"paths.store='{store}'"
    printed = {
        f"{name}.status.json": (status, ["s", "--json", place]),
        f"{name}.trials.json": (trials, ["s", "--json", place]),
        f"{name}.studies.json": (studies, ["--json", place]),
        f"{name}.table.txt": (trials, ["s", place]),
    }
    for document, (verb, words) in printed.items():
        assert verb(words) == 0
        assert capsys.readouterr().out == kept(document), document
