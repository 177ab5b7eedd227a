"""The shipper against a real MLflow database."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dlsearch.tracking import journal, layout
from dlsearch.tracking.handle import Shipper
from dlsearch.tracking.journal import Journal, rows, run_id, shipped_path
from dlsearch.tracking.mlflow.pump import Pump
from dlsearch.tracking.mlflow.shipper import Sender, start, sync
from dlsearch.tracking.tail import Tail, server_id
from tests.tracking.conftest import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Write = Callable[..., Path]


def runs(client: MlflowClient) -> dict[str, Run]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = list(client.search_runs([experiment.experiment_id]))
    assert len({run.info.run_name for run in found}) == len(found), "a run was made twice"
    return {str(run.info.run_name): run for run in found}


def history(client: MlflowClient, run: Run, key: str) -> list[tuple[int, float]]:
    return [
        (metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)
    ]


def check_complete(client: MlflowClient, trials: int, steps: int, name: str = "s") -> None:
    found = runs(client)
    assert set(found) == {f"study:{name}", *(f"{name}/t{n:05d}" for n in range(trials))}
    parent = found[f"study:{name}"].info.run_id
    for number in range(trials):
        run = found[f"{name}/t{number:05d}"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert run.data.params == {"hp/lr": layout.text(0.1 * number)}
        assert sorted(history(client, run, "val/loss")) == [
            (step, float(step)) for step in range(steps)
        ]
        assert len(history(client, run, "train/loss")) == steps


# -- processes -------------------------------------------------------------------------------------------------------
@pytest.mark.storm
def test_killed_in_the_middle_nothing_is_lost_or_doubled(
    store: Path, uri: str, write: Write, client: MlflowClient
) -> None:
    trials, steps = 30, 120
    parent = write(trials=trials, steps=steps)
    first, deadline = start(store, uri), time.monotonic() + 60
    # it has the lock
    while f" {first.pid} INFO shipping" not in (store / "shipper.log").read_text():
        assert time.monotonic() < deadline, (store / "shipper.log").read_text()
        time.sleep(0.005)
    successor = start(store, uri)  # waits for the lock
    try:
        notes = [
            shipped_path(store / f"studies/s/t{n:05d}/journal.a1.jsonl") for n in range(trials)
        ]
        while sum(note.exists() for note in notes) < 4:
            assert time.monotonic() < deadline, (store / "shipper.log").read_text()
            time.sleep(0.005)
        os.kill(first.pid, signal.SIGKILL)
        sent = [note for note in notes if note.exists()]
        assert len(sent) < trials, "it was through before the kill"
        # The two moments that a kill can hit: rows accepted but not noted, and a run made but not
        # noted.
        _amend(sent[0], offset=json.loads(sent[0].read_text())["offset"] // 2)
        _amend(sent[1], run_id=None, experiment_id=None, offset=0, creating=True)
        assert successor.drain(60), (store / "shipper.log").read_text()
    finally:
        first.stop(0)
        successor.stop(0)
    check_complete(client, trials, steps)
    assert run_id(parent) == runs(client)["study:s"].info.run_id
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        assert database.execute("select count(*) from sqlite_stat1").fetchone()[0] > 0


def _amend(note: Path, **changes: Any) -> None:
    found = json.loads(note.read_text())
    if "offset" in changes:  # only back to a line's end
        journal = note.with_name(note.name.removesuffix(".shipped")).read_bytes()
        changes["offset"] = journal.rfind(b"\n", 0, changes["offset"]) + 1
    note.write_text(json.dumps(found | changes))


def test_it_drains_and_ends_after_its_owner(
    store: Path, uri: str, write: Write, client: MlflowClient
) -> None:
    write(trials=3)
    code = (
        "import sys; from pathlib import Path; from dlsearch.tracking.mlflow.shipper import start; "
    )
    code += "s = start(Path(sys.argv[1]), sys.argv[2]); s.leave(); print(s.pid, 'mlflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-Walways", "-c", code, str(store), uri],
        capture_output=True,
        text=True,
        check=True,
    )
    pid, imported = done.stdout.split()
    assert imported == "False"
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
    check_complete(client, 3, 5)
    assert done.stderr == ""


@pytest.mark.storm
def test_one_that_waits_touches_nothing_before_the_word(
    tmp_path: Path, write: Write, store: Path, client: MlflowClient
) -> None:
    # The owner that dies while it waits, and the one that thinks better of it, leave no trace of
    # it.
    code = "import sys; from pathlib import Path; from dlsearch.tracking.handle import Shipper; "
    code += "s = Shipper(Path(sys.argv[1]), sys.argv[2], wait=True); print(s.pid); s._process.returncode = 0"
    place, uri = tmp_path / "none", f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}"
    waiting = Shipper(place, uri, wait=True)
    done = subprocess.run(
        [sys.executable, "-c", code, str(place), uri], capture_output=True, text=True, check=True
    )
    orphan = Path("/proc", done.stdout.strip())
    waiting.dismiss()
    assert not Path("/proc", str(waiting.pid)).exists()
    deadline = time.monotonic() + 60
    while orphan.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not orphan.exists()
    assert not place.exists()

    write(trials=2)
    shipper = Shipper(store, f"sqlite:///{store / 'mlflow.db'}", wait=True)
    shipper.go()
    assert shipper.stop(60.0), (store / "shipper.log").read_text()
    check_complete(client, 2, 5)
    assert "ended after" in (store / "shipper.log").read_text()
    assert (
        not Path(store / "mlflow.db-wal").is_file() or not (store / "mlflow.db-wal").stat().st_size
    )


# -- what is sent ----------------------------------------------------------------------------------------------------
def test_runs_carry_time_status_kind_and_context(
    store: Path, uri: str, write: Write, client: MlflowClient
) -> None:
    parent = write(trials=1)
    assert sync(store, uri) == {"runs": 2, "rows": 12, "pending": 0}
    check_complete(client, 1, 5)
    study = runs(client)["study:s"]
    written = list(rows(parent))
    assert study.info.start_time == written[0]["started"]
    assert study.info.end_time == written[-1]["t"]
    assert study.data.tags[layout.KIND] == "study"
    assert study.data.tags[layout.SCHEMA] == "1"
    assert study.data.tags[layout.KEY] == written[0]["key"]
    assert study.data.tags["mlflow.user"]
    assert study.data.tags["mlflow.source.name"] == "dlsearch"
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    assert experiment.artifact_location == (store.resolve() / "artifacts").as_uri()
    (sent,) = client.get_metric_history(runs(client)["s/t00000"].info.run_id, "train/loss")[:1]
    first = next(
        row for row in rows(store / "studies/s/t00000/journal.a1.jsonl") if row["row"] == "metrics"
    )
    assert sent.timestamp == first["t"]


def test_sent_again_it_is_the_same(
    store: Path, uri: str, write: Write, client: MlflowClient
) -> None:
    write(trials=2)
    sync(store, uri)
    for note in store.rglob("*.shipped"):
        note.unlink()
    assert sync(store, uri)["pending"] == 0
    check_complete(client, 2, 5)


def test_a_resumed_study_runs_again(
    store: Path, uri: str, write: Write, client: MlflowClient
) -> None:
    parent = write(trials=1, status="KILLED")
    sender = Sender(store, uri)
    pump = Pump(store, sender)
    pump.round(full=True)
    assert runs(client)["study:s"].info.status == "KILLED"
    journal = Journal(parent)
    journal.open("study", "study:s", EXPERIMENT, None, {"dlsearch.study.name": "again"})
    journal.params({"cfg/seed": 1, "cfg/new": 2})  # the first is refused: params do not change
    journal.flush()
    pump.round(full=True)
    run = runs(client)["study:s"]
    assert run.info.status == "RUNNING"
    assert run.data.tags["dlsearch.study.name"] == "again"
    assert run.data.params == {"cfg/seed": "0", "cfg/new": "2"}
    journal.status("FINISHED")
    journal.close()
    pump.round(full=True)
    assert runs(client)["study:s"].info.status == "FINISHED"
    assert pump.idle


def test_numbers_texts_and_data_sets_arrive_whole(
    store: Path, uri: str, client: MlflowClient
) -> None:
    path = store / "runs/r/journal.jsonl"
    with Journal(path) as journal:
        journal.open("train", "r", EXPERIMENT)
        journal.params({"cfg/long": "x" * 7000, **{f"cfg/p{n}": n for n in range(230)}})
        journal.metrics({"nan": math.nan, "inf": math.inf}, 0)
        for step in range(1500):
            journal.metrics({"a": step}, step)
        journal.dataset("digits", "ab" * 32, "validation", "scikit-learn")
        journal.tags({"note": "y" * 9000})
        journal.status("FAILED")
    assert sync(store, uri)["pending"] == 0
    run = runs(client)["r"]
    assert run.info.status == "FAILED"
    assert len(run.data.params) == 231
    assert "7000 characters; whole in long/cfg.long.txt" in run.data.params["cfg/long"]
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "long/cfg.long.txt").read_text() == "x" * 7000
    assert (artifacts / "long/note.txt").read_text() == "y" * 9000
    assert math.isnan(history(client, run, "nan")[0][1])
    assert history(client, run, "inf")[0][1] > 1e308
    assert sorted(history(client, run, "a")) == [(step, float(step)) for step in range(1500)]
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", "ab" * 18)
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "validation")]


def test_files_are_masked_and_a_missing_one_blocks_nothing(
    store: Path, uri: str, client: MlflowClient
) -> None:
    folder = store / "runs/r"
    (folder / "report/pictures").mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "uri: postgresql://me:hunter2@host/db\ntoken: hunter2\nlr: 0.1\n"
    )
    (folder / "report/index.html").write_text("<p>token: kept</p>")
    (folder / "report/pictures/a.bin").write_bytes(bytes(range(256)))
    with Journal(folder / "journal.jsonl") as journal:
        journal.open("train", "r", EXPERIMENT)
        journal.artifact(folder / "gone.txt")
        journal.artifact(folder / "config.yaml", "study")
        journal.artifact(folder / "report", "")
        journal.status("FINISHED")
    assert sync(store, uri)["pending"] == 0
    run = runs(client)["r"]
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (
        artifacts / "study/config.yaml"
    ).read_text() == "uri: postgresql://***@host/db\ntoken: ***\nlr: 0.1\n"
    assert (artifacts / "report/index.html").read_text() == "<p>token: kept</p>"
    assert (artifacts / "report/pictures/a.bin").read_bytes() == bytes(range(256))
    assert run.info.status == "FINISHED"


def test_a_child_waits_for_its_parent(
    store: Path, uri: str, write: Write, client: MlflowClient
) -> None:
    parent = write(trials=1)
    kept = parent.read_bytes()
    parent.unlink()
    sender = Sender(store, uri)
    assert sender.client  # it is connected
    # to a server another machine may send it; nobody else writes this database
    sender.uri = "http://somewhere"
    pump = Pump(store, sender)
    pump.round(full=True)
    assert not pump.idle
    assert runs(client) == {}
    parent.write_bytes(kept)
    pump.round(full=True)
    check_complete(client, 1, 5)


def test_a_journal_longer_than_a_read_arrives_whole(
    store: Path, uri: str, write: Write, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(trials=2, steps=100)
    monkeypatch.setattr(journal, "read", partial(journal.read, limit=1000))
    assert sync(store, uri)["pending"] == 0
    check_complete(client, 2, 100)


def test_a_torn_line_is_left_out(store: Path, uri: str, write: Write, client: MlflowClient) -> None:
    path = store / "studies/s/t00000/journal.a1.jsonl"
    write(trials=1)
    os.truncate(path, path.stat().st_size - 10)  # in the middle of the status
    assert sync(store, uri)["pending"] == 0
    assert runs(client)["s/t00000"].info.status == "RUNNING"
    with Journal(path) as journal:
        journal.status("FAILED")
    assert sync(store, uri)["pending"] == 0
    assert runs(client)["s/t00000"].info.status == "FAILED"


def test_a_run_or_database_that_is_gone_is_made_again(
    store: Path, uri: str, write: Write, client: MlflowClient
) -> None:
    write(trials=2)
    sync(store, uri)
    with sqlite3.connect(store / "mlflow.db") as database:  # what deleting the file comes to
        for table in ("metrics", "latest_metrics", "params", "tags", "runs", "experiments"):
            database.execute(f"delete from {table} where 1=1")
    database.close()
    assert sync(store, uri)["pending"] == 0
    check_complete(client, 2, 5)


def test_a_run_that_the_user_deleted_stays_deleted(
    store: Path, uri: str, write: Write, client: MlflowClient
) -> None:
    parent = write(trials=1)
    sync(store, uri)
    client.delete_run(runs(client)["study:s"].info.run_id)
    with Journal(parent) as journal:
        journal.open("study", "study:s", EXPERIMENT)
        journal.metrics({"best/objective": 1.0}, 0)
        journal.status("FINISHED")
    assert sync(store, uri)["pending"] == 0
    assert set(runs(client)) == {"s/t00000"}


def test_another_server_gets_everything(store: Path, uri: str, write: Write) -> None:
    path = write(trials=1)
    sync(store, uri)
    assert Tail.load(path, server_id(uri)).offset > 0
    assert Tail.load(path, server_id("http://elsewhere:1")).offset == 0


@pytest.mark.parametrize("key", ["../escape", "a b@c", "über/loss"])
def test_any_key_arrives(store: Path, uri: str, client: MlflowClient, key: str) -> None:
    with Journal(store / "runs/r/journal.jsonl") as journal:
        journal.open("train", "r", EXPERIMENT, None, {key: 1})
        journal.params({key: 1})
        journal.metrics({key: 1.0}, 0)
        journal.status("FINISHED")
    assert sync(store, uri)["pending"] == 0
    run = runs(client)["r"]
    assert run.data.params == {layout.key(key): "1"}
    assert run.data.metrics == {layout.key(key): 1.0}


@pytest.mark.skipif(
    not Path("/proc/self/autogroup").is_file(), reason="a kernel without autogroups"
)
def test_a_shipper_yields_until_it_is_waited_for(tmp_path: Path) -> None:
    shipper = start(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}")
    try:
        group = Path(f"/proc/{shipper.pid}/autogroup")
        shipper.yield_to_training()
        assert "nice 19" in group.read_text()
        assert shipper.drain(60.0)
        assert "nice 0" in group.read_text()
    finally:
        shipper.stop(0.0)
