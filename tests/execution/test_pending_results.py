"""What a worker keeps in the store for the next one: durable, and never in anybody's way."""

from __future__ import annotations

import json
import os
import stat

import pytest

from dlsearch.core.files.durable import write_durably
from dlsearch.execution import pending_results
from dlsearch.execution.clients.database import DatabaseClient
from dlsearch.execution.outcome import Ending
from dlsearch.execution.pending_results import PendingResults
from dlsearch.records.silence import is_kept
from tests.study.studies import complete, draft, holder, opened


@pytest.fixture
def study(tmp_path):
    study = opened(tmp_path, draft(4))
    yield study
    study.storage.close()


@pytest.fixture
def unwritten(tmp_path):
    return tmp_path / "studies/s/unwritten"


def states(study):
    return [trial.state.name for trial in type(study)(study.storage, study.name).trials()]


def test_a_kept_end_is_on_the_disk_before_it_has_its_name(study, tmp_path, unwritten, monkeypatch):
    claim, synced = study.claim(holder()), []
    path, fsync = unwritten / f"{claim.token}.json", os.fsync

    def note(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append((kind, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    PendingResults(tmp_path, study.name).keep(claim, Ending("interrupted", "interrupted"))
    assert synced == [("file", False), ("folder", True)]
    assert [each.name for each in unwritten.iterdir()] == [path.name], (
        "nothing half written is left beside it"
    )


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_durably(path, "old")
    monkeypatch.setattr(
        os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        write_durably(path, "new")
    assert path.read_text() == "old"


def changed(**changes):
    """What a kept file becomes by some changes, given as ``part__key=value``."""

    def change(text):
        document = json.loads(text)
        for name, value in changes.items():
            *parts, key = name.split("__")
            node = document
            for part in parts:
                node = node[part]
            node[key] = value
        return json.dumps(document)

    return change


DAMAGES = {
    "empty": lambda _: "",
    "torn": lambda text: text[: len(text) // 2],
    "zeroes": lambda text: "\0" * len(text),
    "another kind of JSON": lambda _: "[]",
    "nested": lambda _: "[" * 100_000,
    "no claim": changed(claim=None),
    "unknown kind": changed(claim__kind="warmup"),
    "number of another type": changed(claim__number="0"),
    "another attempt": changed(claim__attempt=7),
    "unknown state": changed(end__state="fine"),
    "unknown field": changed(end__more=1),
    "reason of another type": changed(end__reason=["x"]),
    "result of another type": changed(end__result="complete"),
    "result of another state": changed(end__result__state="failed"),
    "too many values": changed(end__result__values=[0.5, 0.5]),
    "values that are none": changed(end__result__values=["high"]),
    "ledger row of another type": changed(ledger_row="1"),
    "epochs of another type": changed(unreported=[[0]]),
    "no epochs": changed(unreported=None),
    "a journal outside": changed(journal="../../elsewhere/journal.jsonl"),
    "an absolute journal": changed(journal="/tmp/journal.jsonl"),
    "a journal with a NUL": changed(journal="studies/\0"),
    "a journal of another type": changed(journal=3),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_unreadable_is_put_aside_and_blocks_nobody(
    study, tmp_path, unwritten, damage, capsys
):
    bad, good = study.claim(holder("w1")), study.claim(holder("w2", 1))
    for claim in (bad, good):
        PendingResults(tmp_path, study.name).keep(claim, Ending("complete", result=complete(0.5)))
    path = unwritten / f"{bad.token}.json"
    found = damage(path.read_text())
    path.write_text(found)
    for _ in range(2):
        PendingResults(tmp_path, study.name).write_kept(DatabaseClient(study))
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith(f"dlsearch: {path} is not what a worker kept (")
    assert [each.name for each in unwritten.iterdir()] == [f"{path.name}.unreadable"]
    assert (unwritten / f"{path.name}.unreadable").read_text() == found
    assert states(study) == ["RUNNING", "COMPLETE"], (
        "of the other nothing was lost; this one is mended by its lease"
    )
    assert [attempt.number for attempt in study.reap("w1")] == [bad.number]
    assert states(study) == ["WAITING", "COMPLETE"]


def test_what_another_study_kept_is_put_aside(study, tmp_path, unwritten, capsys):
    other = tmp_path / "other"
    other.mkdir()
    foreign = opened(other, draft(4))
    claim = foreign.claim(holder())
    PendingResults(other, foreign.name).keep(claim, Ending("complete", result=complete(0.9)))
    study.claim(holder())
    unwritten.mkdir(parents=True)
    (other / f"studies/s/unwritten/{claim.token}.json").rename(unwritten / f"{claim.token}.json")
    PendingResults(tmp_path, study.name).write_kept(DatabaseClient(study))
    assert "no attempt of study s has its token" in capsys.readouterr().err
    assert states(study) == ["RUNNING"]
    foreign.storage.close()


def test_an_unexpected_refusal_of_the_database_blocks_nobody(
    study, tmp_path, unwritten, monkeypatch, capsys
):
    claim = study.claim(holder())
    PendingResults(tmp_path, study.name).keep(claim, Ending("complete", result=complete(0.5)))
    monkeypatch.setattr(
        pending_results, "record_end", lambda *_: (_ for _ in ()).throw(RuntimeError("refused"))
    )
    PendingResults(tmp_path, study.name).write_kept(DatabaseClient(study))
    assert "RuntimeError: refused" in capsys.readouterr().err
    assert [each.suffix for each in unwritten.iterdir()] == [".unreadable"]


def test_what_the_present_version_kept_is_written(study, tmp_path, unwritten):
    """As it wrote it before files were synced: the same fields, no others."""
    claim = study.claim(holder())
    unwritten.mkdir(parents=True)
    (unwritten / f"{claim.token}.json").write_text(json.dumps({
        "claim": {"kind": "trial", "number": 0, "attempt": 1, "token": claim.token},
        "end": {"state": "complete", "reason": None, "error": None, "result": complete(0.5)},
        "ledger_row": None, "unreported": [[0, 0.25]], "journal": "studies/s/t00000/journal.a1.jsonl",
    }))  # fmt: skip
    PendingResults(tmp_path, study.name).write_kept(DatabaseClient(study))
    assert not list(unwritten.iterdir())
    assert states(study) == ["COMPLETE"]
    assert (tmp_path / "studies/s/t00000/journal.a1.jsonl").is_file()


def test_a_claim_that_was_never_confirmed_is_taken_back_by_the_next_worker(
    study, tmp_path, unwritten
):
    claim = study.claim(holder())
    # the second never arrived
    PendingResults(tmp_path, study.name).keep_opened({claim.token, "0" * 32})
    assert is_kept(study, tmp_path, claim.token)
    PendingResults(tmp_path, study.name).write_kept(DatabaseClient(study))
    assert not list(unwritten.iterdir())
    assert states(study) == ["WAITING"]
    assert not study.leases.rows(kind="trial", number=0), "none was made at it"
    assert study.claim(holder()).attempt == 1


def test_a_claim_that_has_ended_meanwhile_is_not_taken_back(study, tmp_path, unwritten):
    claim = study.claim(holder())
    assert study.finish(claim, complete())
    PendingResults(tmp_path, study.name).keep_opened({claim.token})
    PendingResults(tmp_path, study.name).write_kept(DatabaseClient(study))
    assert states(study) == ["COMPLETE"]
    assert not list(unwritten.iterdir())
