"""MLflow's SQLite file: whole after a kill, and never overwritten."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dlsearch.tracking.mlflow import database
from dlsearch.tracking.mlflow.shipper import sync
from tests.first_start import NAME, killed
from tests.tracking.conftest import forget

Write = Callable[..., Path]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "place/mlflow.db"


@pytest.fixture
def there(path: Path, store: Path, write: Write) -> Callable[[], int]:
    """Sends a study there; the number of its runs that the database then has."""
    write(trials=2)

    def send() -> int:
        uri = f"sqlite:///{path}"
        assert sync(store, uri)["pending"] == 0
        forget(uri)
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    return send


@pytest.mark.storm
def test_killed_while_it_is_made_there_is_none(tmp_path: Path) -> None:
    found = killed("ours", tmp_path / "places", 0.0, 0.5, 1.0)
    assert found["statements"] > 200
    assert found["tries"] == [[signal.SIGKILL, []]] * 3
    assert [file.name for file in (tmp_path / "places/whole").iterdir()] == [NAME]


@pytest.mark.storm
def test_what_another_left_half_made_is_set_aside_and_made_again(
    path: Path, tmp_path: Path, there: Callable[[], int]
) -> None:
    found = killed("theirs", tmp_path / "places", 0.5)
    assert found["tries"][0][0] == signal.SIGKILL
    (tmp_path / "places" / str(found["statements"] // 2)).rename(path.parent)
    (path.parent / NAME).rename(path)
    uri, half = f"sqlite:///{path}", path.read_bytes()
    assert database.wanting(uri)
    with pytest.raises(ConnectionError, match="is not whole"):  # somebody may be at work on it
        database.make(uri)
    assert path.read_bytes() == half
    for file in path.parent.iterdir():
        os.utime(file, (time.time() - 61,) * 2)
    assert there() == 3
    assert min(path.parent.glob("mlflow.db.unfinished-*")).read_bytes() == half


def test_one_that_holds_something_is_left_alone(path: Path, empty_database: Path) -> None:
    path.parent.mkdir()
    uri = f"sqlite:///{path}"
    for held in (empty_database.read_bytes(), b"a file of somebody else, not a database\n" * 9):
        path.write_bytes(held)
        os.utime(path, (0, 0))
        assert not database.wanting(uri)
        database.make(uri)
        assert path.read_bytes() == held
    # of an MLflow that knew fewer tables
    with closing(sqlite3.connect(path.with_name("old.db"))) as old:
        old.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        old.execute("INSERT INTO experiments VALUES (7)")
        old.commit()
    assert not database.wanting(f"sqlite:///{path.with_name('old.db')}")


def test_one_that_was_emptied_is_whole(path: Path, empty_database: Path) -> None:
    path.parent.mkdir()
    shutil.copy(empty_database, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM experiments")
        connection.commit()
    os.utime(path, (0, 0))
    held = path.read_bytes()
    database.make(f"sqlite:///{path}")
    assert path.read_bytes() == held
    assert [file.name for file in path.parent.iterdir()] == ["mlflow.db"]


def test_where_nothing_is_sent_none_is_made(path: Path, store: Path) -> None:
    path.parent.mkdir()
    assert sync(store, f"sqlite:///{path}") == {"runs": 0, "rows": 0, "pending": 0}
    assert list(path.parent.iterdir()) == []


def test_the_first_of_two_makers_wins(
    path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = empty_database.read_bytes()
    link = os.link

    def faster(source: Path, target: Path) -> None:
        target.write_bytes(first)
        link(source, target)

    monkeypatch.setattr(os, "link", faster)
    monkeypatch.chdir(empty_database.parent)
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{path}")
    assert database.main() == 0
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite:///b.db?timeout=3", "b.db"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("http://localhost:5000", None),
        ("postgresql://u@h/d", None),
    ],
)
def test_only_a_file_is_made(uri: str, name: str | None) -> None:
    assert database.path_of(uri) == (None if name is None else Path(name))
    if name is None:
        assert not database.wanting(uri)
        database.make(uri)
