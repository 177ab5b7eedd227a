"""A report is a function of the storage's content: of no row order, file, clock or process."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from dlsearch.records.record import read_record
from dlsearch.report import build
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study
from tests.study.studies import complete, draft, failed, holder, opened


def sums_of(folder: Path, database: Path) -> str:
    storage = Storage(f"sqlite:///{database}")
    try:
        out = build(read_record(Study(storage, "s")).to_json(), folder)
    finally:
        storage.close()
    return (out.parent / "SHA256SUMS").read_text("utf-8")


def searched(folder: Path) -> Path:
    """A study of completed, pruned, failed and retried trials, without training; returns its database."""
    study = opened(folder, draft(9))
    for number in range(9):
        claim = study.claim(holder(f"w{number % 2}"))
        assert claim is not None
        if number == 4:
            # Given back: the same trial is claimed again.
            assert study.release(claim)
            claim = study.claim(holder("w2"))
            assert claim is not None
        for epoch in range(3):
            study.report(claim, epoch, 0.5 + 0.01 * number + 0.02 * epoch)
        if number == 3:
            study.finish(claim, failed("nan"))
        elif number == 7:
            study.finish(
                claim,
                {"state": "pruned", "reason": None, "error": None, "values": None, "epochs": 3},
            )
        else:
            study.finish(claim, complete(0.5 + 0.01 * ((number * 7) % 12)))
    row = study.ledger.opened("confirm", 5, 99)
    study.ledger.scored(
        row, {"n": 100, "metrics": {"test/accuracy": 0.6}, "confusion": [[30, 20], [20, 30]]}
    )
    study.storage.close()
    return folder / "dlsearch.db"


def restored(database: Path, into: Path, *, backwards: bool) -> Path:
    """The database from its dump, the rows in the order of the dump or in the opposite one."""
    with (
        contextlib.closing(sqlite3.connect(database)) as old,
        contextlib.closing(sqlite3.connect(into)) as new,
    ):
        lines = list(old.iterdump())
        rows = [line for line in lines if line.startswith("INSERT")]
        frame = [line for line in lines if not line.startswith(("INSERT", "BEGIN", "COMMIT"))]
        assert len(rows) > 50
        new.execute("PRAGMA foreign_keys = OFF")
        for line in frame:
            if not line.startswith("CREATE UNIQUE INDEX"):
                new.execute(line)
        for line in reversed(rows) if backwards else rows:
            new.execute(line)
        new.commit()
    return into


def test_a_restored_dump_gives_the_same_bytes(tmp_path: Path) -> None:
    database = searched(tmp_path)
    first = sums_of(tmp_path / "report", database)
    assert first.count("\n") >= 6
    assert sums_of(tmp_path / "a", restored(database, tmp_path / "a.db", backwards=False)) == first
    assert sums_of(tmp_path / "b", restored(database, tmp_path / "b.db", backwards=True)) == first
    # And it can tell records apart.
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as changed:
        changed.execute("UPDATE trial_values SET value = value + 0.001 WHERE trial_id = 1")
        changed.commit()
    assert sums_of(tmp_path / "b", tmp_path / "b.db") != first
