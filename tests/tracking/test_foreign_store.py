"""A store of somebody else's is shipped: nothing outside it is read into MLflow, and nothing outside is written."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.tracking.destination import remember
from dlsearch.tracking.journal import Journal
from dlsearch.tracking.mlflow import database
from dlsearch.tracking.mlflow.artifacts import check_places
from dlsearch.tracking.mlflow.shipper import send
from dlsearch.tracking.mlflow.syncing import sync_store
from dlsearch.tracking.tail import discover, shipped_path
from tests.tracking.conftest import EXPERIMENT, forget

if TYPE_CHECKING:
    from mlflow import MlflowClient

Write = Callable[..., Path]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What is the user's own, beside the store."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".bashrc").write_text("alias ll='ls -l'\n")
    (home / "secret.txt").write_text("hunter2\n")
    return home


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def journal(store: Path, *rows: dict[str, Any], name: str = "a") -> Path:
    """A run's journal with rows as somebody may write them."""
    path = store / f"runs/{name}/journal.jsonl"
    with Journal(path) as opened:
        opened.open("train", name, EXPERIMENT)
        opened.metrics({"loss": 1.0}, 1)
    with path.open("a") as file:
        for row in rows:
            file.write(json.dumps({"t": 1, **row}) + "\n")
    with Journal(path) as opened:
        opened.metrics({"loss": 0.5}, 2)
        opened.status("FINISHED")
    return path


def artifacts(client: MlflowClient) -> list[str]:
    """The files of the only run."""
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2, (
        "what is refused costs only itself"
    )
    found: list[str] = []

    def visit(path: str | None) -> None:
        for each in client.list_artifacts(run.info.run_id, path):
            visit(each.path) if each.is_dir else found.append(each.path)

    visit(None)
    return found


NAMES = ["{home}/secret.txt", "../../../home/secret.txt", "../../../home", "{home}", "link.txt", "folder/secret.txt",
         "folder", "../..", "../../mlflow.db/../../home/secret.txt", "pipe", "a\0b", "/dev/zero",
         "/proc/self/environ"]  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_an_artifact_outside_the_store_is_not_read(
    name: str, store: Path, uri: str, client: MlflowClient, outside: Path
) -> None:
    path = journal(store, {"row": "artifact", "file": name.format(home=outside), "to": "x"})
    (path.parent / "link.txt").symlink_to(outside / "secret.txt")
    (path.parent / "folder").symlink_to(outside)
    os.mkfifo(path.parent / "pipe")
    found = send(store, uri)
    assert (found.pending, found.error) == (0, None)
    assert artifacts(client) == []
    assert "left out" in (store / "shipper.log").read_text()


def test_a_folder_is_sent_without_its_links(
    store: Path, uri: str, client: MlflowClient, outside: Path
) -> None:
    path = journal(store, {"row": "artifact", "file": "page", "to": ""})
    page = path.parent / "page"
    (page / "figures").mkdir(parents=True)
    (page / "index.html").write_text("fine")
    (page / "figures/a.svg").write_text("fine")
    (page / "secret.txt").symlink_to(outside / "secret.txt")
    (page / "home").symlink_to(outside)
    os.mkfifo(page / "pipe")
    send(store, uri)
    assert sorted(artifacts(client)) == ["page/figures/a.svg", "page/index.html"]


@pytest.mark.parametrize("where", ["studies", "study", "run", "journal", "runs"])
def test_a_journal_behind_a_link_is_none(where: str, store: Path, uri: str, outside: Path) -> None:
    other = outside / "other"
    journal(other)
    at = {
        "studies": ("studies", other / "runs"),
        "runs": ("runs", other / "runs"),
        "study": ("studies/s", other / "runs/a"),
        "run": ("studies/s/t00000", other / "runs/a"),
        "journal": ("runs/b/journal.jsonl", other / "runs/a/journal.jsonl"),
    }[where]
    link = store / at[0]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(at[1])
    before = contents(outside)
    assert list(discover(store)) == []
    if where in ("studies", "runs"):
        with pytest.raises(ConfigError, match="symbolic link"):
            send(store, uri)
    else:
        assert send(store, uri).runs == 0
    assert contents(outside) == before


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", ["journal", "notes", "destination", "config"])
def test_a_pipe_hangs_nobody(what: str, store: Path, uri: str) -> None:
    path = journal(store)
    at = {
        "journal": path.with_name("journal.b.jsonl"),
        "notes": shipped_path(path),
        "destination": path.with_name("tracking.json"),
        "config": path.with_name("config.yaml"),
    }[what]
    os.mkfifo(at)
    sync_store(store, uri, only=None, typed=False)


@pytest.mark.parametrize(
    "name", ["shipper.log", "shipper.lock", "runs/a/tracking.json", "runs/a/tracking.json.part"]
)
@pytest.mark.parametrize("kind", ["link", "hard link", "dangling"])
def test_what_the_shipper_writes_goes_into_no_other_file(
    name: str, kind: str, store: Path, uri: str, outside: Path
) -> None:
    journal(store)
    victim = outside / (".bashrc" if kind != "dangling" else ".profile")
    if kind == "hard link":
        (store / name).hardlink_to(victim)
    else:
        (store / name).symlink_to(victim)
    before = contents(outside)
    for action in (
        lambda: remember(store, store / "runs/a", "http://host:1"),
        lambda: send(store, uri),
    ):
        try:
            action()
        except (OSError, ConfigError) as error:
            assert name in str(error)  # noqa: PT017
    assert contents(outside) == before


LOCATIONS = ["{home}", "file://{home}", "file:{home}", "{store}/../home", "file://{store}/../home", "{store}/link",
             "file://{store}/%2e%2e/home", "../home", "./home"]  # fmt: skip


@pytest.mark.storm
@pytest.mark.parametrize("of", ["experiment", "run", "trigger"])
@pytest.mark.parametrize("location", LOCATIONS)
def test_mlflows_database_says_in_vain_that_artifacts_lie_elsewhere(
    location: str,
    of: str,
    store: Path,
    uri: str,
    client: MlflowClient,
    outside: Path,
    tmp_path: Path,
) -> None:
    at = location.format(home=outside, store=store)
    (store / "link").symlink_to(outside)
    path = journal(store)
    if of == "experiment":
        client.create_experiment(EXPERIMENT, artifact_location=at)
    elif of == "run":
        send(store, uri)
        with closing(sqlite3.connect(store / "mlflow.db")) as database:
            database.execute("UPDATE runs SET artifact_uri = ?", [at])
            database.commit()
    else:
        quoted = at.replace("'", "''")
        with closing(sqlite3.connect(store / "mlflow.db")) as database:
            for event in ("INSERT", "UPDATE"):
                database.execute(
                    f"CREATE TRIGGER planted_{event} AFTER {event} ON runs WHEN NEW.artifact_uri <> '{quoted}' BEGIN "
                    f"UPDATE runs SET artifact_uri = '{quoted}' WHERE run_uuid = NEW.run_uuid; END"
                )
            database.commit()
    for name in (".bashrc", "authorized_keys"):
        (path.parent / name).write_text("planted")
    before = contents(outside)
    with Journal(path) as opened:
        opened.open("train", "a", EXPERIMENT)
        for name, to in (
            (".bashrc", ""),
            ("authorized_keys", ".ssh"),
            (".bashrc", "../home"),
            (".bashrc", str(outside)),
        ):
            opened.artifact(path.parent / name, to)
        opened.params({"long": "x" * 7000})
        opened.status("FINISHED")
    found = send(store, uri)
    assert contents(outside) == before
    assert not (tmp_path / "ssh").exists()
    assert found.pending == 0
    if of != "trigger":
        assert ".bashrc" in artifacts(client), "they lie below the store instead"
        (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
        assert run.info.artifact_uri.startswith(
            (str(store / "artifacts"), (store / "artifacts").as_uri())
        )


def test_the_artifacts_folder_of_a_run_may_hold_no_links(
    store: Path, uri: str, client: MlflowClient, outside: Path
) -> None:
    path = journal(store)
    send(store, uri)
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    root = store / "artifacts" / run.info.run_id / "artifacts"
    root.mkdir(parents=True)
    (root / "logs").symlink_to(outside / ".ssh")
    (root / ".bashrc").symlink_to(outside / ".bashrc")
    before = contents(outside)
    (path.parent / ".bashrc").write_text("planted")
    with Journal(path) as opened:
        opened.open("train", "a", EXPERIMENT)
        opened.artifact(path.parent / ".bashrc", "logs")
        opened.artifact(path.parent / ".bashrc", "")
        opened.status("FINISHED")
    assert send(store, uri).pending == 0
    assert contents(outside) == before


def test_a_store_that_was_moved_writes_below_itself(
    store: Path, uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    path = journal(store)
    (path.parent / "a.txt").write_text("a")
    with Journal(path) as opened:
        opened.artifact(path.parent / "a.txt", "")
    remember(store, path.parent, uri)
    send(store, uri)
    assert artifacts(client) == ["a.txt"]
    forget(uri)
    moved = tmp_path / "moved"
    store.rename(moved)
    at = f"sqlite:///{moved / 'mlflow.db'}"
    try:
        (moved / "runs/a/b.txt").write_text("b")
        with Journal(moved / "runs/a/journal.jsonl") as opened:
            opened.open("train", "a", EXPERIMENT)
            opened.artifact(moved / "runs/a/b.txt", "")
            opened.status("FINISHED")
        journal(moved, name="new")
        sync_store(moved, at, only=None, typed=False)
        log = (moved / "shipper.log").read_text()
        assert not store.exists(), "nothing was written where it lay before"
        assert "lie below" in log
        client = type(client)(at)
        runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
        places = {
            run.info.run_name: Path(run.info.artifact_uri.removeprefix("file://")) for run in runs
        }
        assert all(place.is_relative_to(moved / "artifacts") for place in places.values())
        found = {
            name: sorted(each.name for each in place.glob("*")) for name, place in places.items()
        }
        assert found["a"] == ["a.txt", "b.txt"], "the earlier ones moved along"
    finally:
        forget(at)


ADDRESSES = ["sqlite:///{home}/own.db", "file://{home}/runs", "{home}/runs", "sqlite:///{store}/../home/own.db",
             "sqlite:///{store}/link/own.db", "sqlite+pysqlite:///{home}/own.db", "sqlite:///file:{home}/own.db?uri=true",
             "databricks", "uc:x", "plugin://x", "sqlite:///", "sqlite://", "file:./x"]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("noted", ["tracking.json", "config.yaml"])
def test_a_noted_address_makes_no_database_elsewhere(
    address: str, noted: str, store: Path, uri: str, outside: Path
) -> None:
    path = journal(store)
    (store / "link").symlink_to(outside)
    at = address.format(home=outside, store=store)
    document = {"uri": at} if noted == "tracking.json" else {"tracking": {"uri": at}}
    path.with_name(noted).write_text(json.dumps(document))
    before = contents(outside)
    found = sync_store(store, uri, only=None, typed=False)
    assert contents(outside) == before
    assert [each.to for each in found.all] == [None]
    assert "tracking.uri=" in str(found.all[0].error)
    typed = sync_store(store, uri, only=None, typed=True)
    assert typed.pending == 0, "what is typed is the user's word"


@pytest.mark.parametrize(
    "parent", ["../home/journal.jsonl", "{home}/x", "link/x", "a\0b", 7, ["x"]]
)
def test_a_parent_outside_the_store_is_none(
    parent: Any, store: Path, uri: str, client: MlflowClient, outside: Path
) -> None:
    (store / "link").symlink_to(outside)
    for name in ("x", "journal.jsonl"):
        (outside / f"{name}.shipped").write_text(json.dumps({"server": "", "run_id": "r"}))
    path = store / "runs/a/journal.jsonl"
    with Journal(path) as opened:
        opened.open("train", "a", EXPERIMENT)
    row = json.loads(path.read_text())
    row["parent"] = parent.format(home=outside) if isinstance(parent, str) else parent
    path.write_text(json.dumps(row) + "\n")
    before = contents(outside)
    send(store, uri, timeout_s=20)
    assert contents(outside) == before


@pytest.mark.parametrize(
    "notes", ["[]", "{}", "7", '{"server": 1}', "null", '{"server": "S", "offset": "x"}', "{"]
)
def test_notes_that_are_none_are_void(
    notes: str, store: Path, uri: str, client: MlflowClient
) -> None:
    from dlsearch.tracking.tail import server_id

    path = journal(store)
    shipped_path(path).write_text(notes.replace('"S"', json.dumps(server_id(uri))))
    assert send(store, uri).pending == 0
    assert artifacts(client) == []


def told(store: Path, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        database.execute(statement, values)
        database.commit()


def a_run(store: Path, location: str) -> str:
    run = "0" * 32
    told(
        store,
        "INSERT INTO runs (run_uuid, experiment_id, artifact_uri) VALUES (?, 0, ?)",
        run,
        location,
    )
    return run


PLACES = ["/etc", "file:///etc", "file:///home/me/.ssh", "{store}/../x", "{store}/link", "file://{store}/%2e%2e/x", "x",
          "s3://bucket/x", "http://127.0.0.1:9/x", "ftp://host/x", "file://host/x",
          "/other/artifacts/1/artifacts"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("of", ["run", "version", "trace", "webhook"])
def test_no_page_shows_files_outside_the_store(
    of: str, place: str, store: Path, uri: str, outside: Path
) -> None:
    (store / "link").symlink_to(outside)
    check_places(store, uri)
    at = place.format(store=store)
    if of == "run":
        a_run(store, at)
    elif of == "version":
        told(store, "INSERT INTO registered_models (name) VALUES ('m')")
        told(store, "INSERT INTO model_versions (name, version, source) VALUES ('m', 1, ?)", at)
    elif of == "trace":
        told(
            store,
            "INSERT INTO trace_tags (request_id, key, value) VALUES ('t', 'mlflow.artifactLocation', ?)",
            at,
        )
    else:
        told(
            store,
            "INSERT INTO webhooks (webhook_id, name, url, status) VALUES ('w', 'w', ?, 'ACTIVE')",
            at,
        )
    with pytest.raises(ConfigError, match="outside of the store"):
        check_places(store, uri)


def test_pages_show_the_files_of_a_store_that_was_moved(store: Path, uri: str) -> None:
    run = a_run(store, f"file:///before/artifacts/{'0' * 32}/artifacts")
    check_places(store, uri)
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        (place,) = database.execute("SELECT artifact_uri FROM runs").fetchone()
    assert place == (store / "artifacts" / run / "artifacts").as_uri()
    check_places(store, uri)
    check_places(store, "http://127.0.0.1:1")
    check_places(store, f"sqlite:///{store}/none.db")


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_what_lies_beside_mlflows_database_is_plain(
    suffix: str, store: Path, uri: str, outside: Path
) -> None:
    journal(store)
    (store / f"mlflow.db{suffix}").symlink_to(outside / ".bashrc")
    before = contents(outside)
    for action in (
        lambda: send(store, uri),
        lambda: check_places(store, uri),
        lambda: database.make(uri),
    ):
        with pytest.raises(ConfigError, match="symbolic link"):
            action()
    assert contents(outside) == before
