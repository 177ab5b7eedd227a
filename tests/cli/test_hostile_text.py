"""Texts out of somebody else's database, as the verbs that read it show them."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dlsearch.cli.main import main
from dlsearch.console.terminal import console
from dlsearch.report.compare.compare import compare
from dlsearch.report.compare.text import show
from tests.console.test_terminal import EVIL, Terminal, obeyed
from tests.report.records import study_record
from tests.study.studies import complete, draft, failed, holder, opened

#: Colours and moves of the cursor that rich needs for a table.
OWN = ("\x1b[1m", "\x1b[0m", "\x1b[2m", "\x1b[33m")
VERBS = [
    ["status", "s"],
    ["status", "s", "--json"],
    ["trials", "s"],
    ["trials", "s", "--json"],
    ["studies"],
    ["studies", "--json"],
    ["report", "s"],
    ["verify", "s"],
    ["compare", "s", "s"],
    ["describe", "s"],
    ["gc", "s"],
    ["status", EVIL],
    [EVIL],
    ["trials", f"s{EVIL}"],
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose database has control characters wherever a text can stand."""
    space = ["optimizer.lr=choice(0.1, 0.2)", "model.kind=choice(a, b)"]
    study = opened(tmp_path, draft(3, space=space))
    study.finish(study.claim(holder()), complete(0.5))
    study.finish(study.claim(holder()), {**failed("exception"), "error": f"ValueError: {EVIL}"})
    study.claim(holder(EVIL))
    study.storage.close()
    text = json.dumps(EVIL)[1:-1]
    with closing(sqlite3.connect(tmp_path / "dlsearch.db")) as database:
        for table, column in _texts(database):
            for what, instead in (
                ('"a"', f'"a{text}"'),
                ('"b"', f'"b{text}"'),
                ("val/accuracy", f"val/{text}"),
            ):
                database.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (what, instead)
                )
        database.execute(
            "UPDATE dlsearch_attempt SET device = ?, host = ?", (f"cpu{EVIL}", f"host{EVIL}")
        )
        database.commit()
    return tmp_path


def _texts(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    tables = [
        row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    for table in tables:
        for column in database.execute(f"PRAGMA table_info({table})"):
            if "CHAR" in column[2].upper() or "TEXT" in column[2].upper():
                yield table, column[1]


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize("words", VERBS, ids=lambda words: ascii(" ".join(words))[1:12])
def test_no_verb_shows_what_a_terminal_obeys(
    store: Path, words: list[str], terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out: Any = Terminal() if terminal else io.StringIO()
    err: Any = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as end:
        main([*words, f"paths.store={store}"])
    said = out.getvalue() + err.getvalue()
    assert said
    assert end.value.code in (0, 1, 2)
    for own in OWN:
        said = said.replace(own, "")
    assert not obeyed(said)
    if end.value.code == 2:
        assert err.getvalue().count("\n") == 1


def test_they_are_there_to_be_seen(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["trials", "s", f"paths.store={store}"])
    assert "\\x1b]52" in capsys.readouterr().out


def test_a_comparison_of_hostile_records(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setenv("COLUMNS", "400")
    hostile = [
        study_record(f"{name}{EVIL}", scores=[0.1, 0.2], confirmed=[0.1, 0.3]) for name in "ab"
    ]
    show(compare(hostile), console(out))
    said = out.getvalue()
    for own in OWN:
        said = said.replace(own, "")
    assert not obeyed(said)
