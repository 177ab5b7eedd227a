"""``dlsearch sync``: each journal goes to where its study ships, and nothing is done before it is there."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dlsearch.cli.main import main
from dlsearch.tracking.destination import (
    FILE,
    Destination,
    UnknownDestinationError,
    recall,
    remember,
    uri_of,
    where_to_ship,
    without_secrets,
)
from dlsearch.tracking.mlflow import ui
from dlsearch.tracking.mlflow.shipper import start
from dlsearch.tracking.mlflow.syncing import sync_store
from dlsearch.tracking.tail import server_id
from tests.tracking.conftest import forget


@pytest.fixture
def other(store: Path, empty_database: Path) -> Iterator[str]:
    """Another MLflow database than the store's own, in the store: one outside is opened only when it is typed."""
    shutil.copy(empty_database, store / "other.db")
    uri = f"sqlite:///{store / 'other.db'}"
    yield uri
    forget(uri)


def studies(uri: str) -> list[str]:
    """The studies whose runs a database has."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        query = "SELECT DISTINCT value FROM tags WHERE key = 'dlsearch.study.name' ORDER BY 1"
        return [name for (name,) in database.execute(query)]


def as_before(folder: Path, uri: str | None) -> None:
    """What the present version leaves beside the journals."""
    (folder / "config.yaml").write_text(json.dumps({"tracking": {"enabled": True, "uri": uri}}))


@pytest.mark.parametrize("how", ["noted", "in the config alone"])
def test_each_study_goes_to_its_own_server(
    how: str, store: Path, uri: str, other: str, write: Callable[..., Path]
) -> None:
    write("here")
    write("there")
    write("unknown")
    for name, where in (("here", uri), ("there", other)):
        if how == "noted":
            remember(store, store / "studies" / name, where)
        else:
            as_before(store / "studies" / name, None if where == uri else where)
    found = sync_store(store, uri, only=None, typed=False)
    assert {each.to: (each.runs, each.pending) for each in found.all} == {
        uri: (6, 0),
        other: (3, 0),
    }
    assert (studies(uri), studies(other)) == (["here", "unknown"], ["there"])
    again = sync_store(store, uri, only=None, typed=False)
    assert (again.to_json()["rows"], again.pending) == (0, 0)


def test_a_moved_store_still_has_its_own_database(
    store: Path, uri: str, tmp_path: Path, write: Callable[..., Path]
) -> None:
    write("here")
    remember(store, store / "studies/here", uri)
    moved = tmp_path / "moved"
    shutil.copytree(store, moved)
    assert recall(moved, moved / "studies/here") == Destination(f"sqlite:///{moved / 'mlflow.db'}")


def test_one_study_can_be_named(
    store: Path, uri: str, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write("a")
    write("b")
    assert run("sync", "b", f"paths.store={store}") == 0
    assert studies(uri) == ["b"]
    assert capsys.readouterr().out == f"shipped 3 runs, 21 rows to {uri}, 0 pending\n"
    assert run("sync", "c", f"paths.store={store}") == 2
    assert "there is no journal of a study or run of this name" in capsys.readouterr().err


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert isinstance(end.value.code, int)
    return end.value.code


def test_what_is_typed_wins_and_says_so(
    store: Path,
    uri: str,
    other: str,
    write: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("there")
    remember(store, store / "studies/there", other)
    assert run("sync", f"paths.store={store}", f"tracking.uri='{uri}'") == 0
    assert f"note: there ships to {other}; this once it goes to {uri}" in capsys.readouterr().out
    assert (studies(uri), studies(other)) == (["there"], [])
    assert recall(store, store / "studies/there") == Destination(other)


@pytest.mark.storm
def test_a_server_that_is_not_reached_is_named_with_what_is_pending(
    store: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write("there", trials=1)
    address = f"http://127.0.0.1:{ui.free_port(0)}"
    remember(store, store / "studies/there", address)
    assert run("sync", f"paths.store={store}") == 1
    said = capsys.readouterr().out
    assert said.startswith(f"shipped 0 runs, 0 rows to {address}, 12 rows pending: ")
    assert "Connection refused" in said or "Max retries" in said
    assert run("sync", f"paths.store={store}", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["pending"], document["pending_rows"]) == (2, 12)
    assert "Connection" in document["destinations"][0]["error"]


def test_rows_that_went_nobody_noted_where_wait_for_a_word(
    store: Path,
    uri: str,
    other: str,
    write: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The present version noted the server's digest alone."""
    write("s")
    assert sync_store(store, other, only=None, typed=True).pending == 0
    write("s")
    as_before(store / "studies/s", None)  # it came from an environment that is another now
    assert run("sync", f"paths.store={store}") == 1
    said = capsys.readouterr().out
    assert "rows pending: s was shipped to another server before, and nobody noted which" in said
    assert "dlsearch sync s tracking.uri=… ships it" in said
    assert studies(uri) == []


def test_a_shipper_leaves_alone_what_ships_elsewhere(
    store: Path, uri: str, other: str, write: Callable[..., Path]
) -> None:
    """A search beside it, in the same store, must not copy a remote study into the local database."""
    write("here")
    write("there")
    remember(store, store / "studies/there", other)
    shipper = start(store, uri)
    assert shipper.stop(60.0)
    assert studies(uri) == ["here"]
    assert studies(other) == []


SECRETS = [
    "http://me:hunter22@127.0.0.1:9/x",
    "https://127.0.0.1:9?token=abcdefgh",
    "postgresql+psycopg://me:hunter22@/db",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_kept_and_it_is_asked_for_again(
    secret: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store / "studies/s"
    remember(store, folder, secret)
    text = (folder / FILE).read_text()
    assert "hunter22" not in text
    assert "abcdefgh" not in text
    address = without_secrets(secret)
    assert json.loads(text) == {"uri": address, "credentials": True}
    with pytest.raises(UnknownDestinationError, match="whose user and password are not kept"):
        uri_of(store, folder, [], ["sqlite:///local.db"], server_id)
    assert uri_of(store, folder, [], [secret], server_id) == secret, (
        "from the config, or the command line"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    assert uri_of(store, folder, [], ["sqlite:///local.db"], server_id) == secret, (
        "from the environment"
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert uri_of(store, folder, [], ["sqlite:///local.db"], server_id) == address, (
        "MLflow takes them from there itself"
    )


@pytest.mark.parametrize("credentials", [True, False])
def test_what_the_environment_holds_is_sent_to_no_server_that_a_store_alone_names(
    credentials: bool, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, theirs = store / "studies/s", "https://elsewhere.invalid"
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps({"uri": theirs, "credentials": credentials}))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-mine")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mine.invalid")
    with pytest.raises(UnknownDestinationError, match=r"MLFLOW_TRACKING_URI names their server"):
        uri_of(store, folder, [], ["sqlite:///local.db"], server_id)
    assert uri_of(store, folder, [], [theirs], server_id) == theirs, "typed"


def test_a_worker_that_joins_does_not_change_where_a_study_ships(
    store: Path, uri: str, other: str
) -> None:
    folder = store / "studies/s"
    remember(store, folder, other)
    assert where_to_ship(store, folder, uri, typed=False) == other
    assert where_to_ship(store, folder, uri, typed=True) == uri
    assert recall(store, folder) == Destination(uri)
    assert where_to_ship(store, store / "studies/new", other, typed=False) == other
    assert recall(store, store / "studies/new") == Destination(other)


@pytest.mark.parametrize("content", ["", "[]", '{"uri": 3}', "\0"])
def test_a_note_that_cannot_be_read_is_none(content: str, store: Path) -> None:
    folder = store / "studies/s"
    folder.mkdir(parents=True)
    (folder / FILE).write_text(content)
    assert recall(store, folder) is None
