"""Reading changes nothing: each file of a store, each row of a server, before and after a verb."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection

from dlsearch.cli.main import main
from dlsearch.core.machine.processes import ProcessIdentity
from dlsearch.execution import run_journals
from dlsearch.execution.outcome import Ending
from dlsearch.execution.pending_results import PendingResults
from dlsearch.execution.resources.slots import Slot
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.records.status import read_status
from dlsearch.storage.attempts import Holder
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study
from tests.e2e.running import ROOT
from tests.execution.workers import worker_of_study
from tests.study.studies import complete, draft, holder, opened

SILENT = {1: "its worker is gone", 2: "ended, not yet recorded", 3: "no word for "}


def ended_process():
    """The identity of a process of this machine that is gone."""
    process = subprocess.Popen(["sleep", "60"])
    identity = ProcessIdentity.of(process.pid)
    process.kill()
    process.wait()
    return identity


def leave_behind(study, store):
    """One trial is complete; one's worker died, one is silent, and one's end was kept."""
    gone = ended_process()
    assert study.finish(study.claim(holder()), complete(0.5))
    dead = Holder("dead", socket.gethostname(), gone.pid, 0, "cpu:0", gone)
    claim = study.claim(dead)
    run_journals.begin(study, claim, dead, store)
    kept, silent = study.claim(holder("kept", 1)), study.claim(holder("silent"))
    PendingResults(store, study.name).keep(kept, Ending("complete", result=complete(0.75)))
    with study.storage.begin() as connection:
        connection.execute(
            sa.text("UPDATE dlsearch_attempt SET lease_until = lease_until - 600 WHERE token = :t"),
            {"t": silent.token},
        )


def forked(action):
    """Do something in another process, and kill it, so that SQLite's files beside its own stay."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture(params=["killed", "closed", "without an index"])
def store(request, tmp_path):
    """A store that no worker serves, as a killed one leaves it, or one that ended, or a copy."""
    store = tmp_path / "store"
    store.mkdir()

    def fill():
        study = opened(store, draft(5))
        leave_behind(study, store)
        if request.param == "closed":
            study.storage.close()

    forked(fill)
    if request.param == "without an index":
        (store / "dlsearch.db-shm").unlink()
    assert (store / "dlsearch.db-wal").exists() is (request.param != "closed")
    return store


def contents(folder):
    """Every file and folder: what it holds, and when it was changed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        found[str(path.relative_to(folder))] = (
            digest,
            path.stat().st_mtime_ns,
            path.stat().st_mode,
        )
    return found, folder.stat().st_mtime_ns


def run(store, *words):
    with pytest.raises(SystemExit) as end:
        main([*words, f"paths.store={store}"])
    return end.value.code


def verbs(out):
    return [
        ["status", "s"],
        ["status", "s", "--json"],
        ["trials", "s"],
        ["trials", "s", "--json"],
        ["studies"],
        ["studies", "--json"],
        ["report", "s", "--out", str(out / "report")],
        ["gc", "--dry-run"],
    ]


def test_no_verb_that_looks_changes_a_store(store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents(store)
    folders = [path for path in (store, *store.rglob("*")) if path.is_dir()]
    for path in folders:  # for any user but root: another's
        path.chmod(0o555)
    try:
        codes = [run(store, *words) for words in verbs(tmp_path)]
    finally:
        for path in folders:
            path.chmod(0o755)
    assert codes == [0] * len(codes), capsys.readouterr().err
    assert contents(store) == before


def test_what_nobody_works_on_is_shown_as_that(store, tmp_path, capsys):
    run(store, "status", "s", "--json")
    status = json.loads(capsys.readouterr().out)
    assert status["state"] == "partial", "no worker is at work"
    assert status["counts"] == {"complete": 1, "pruned": 0, "failed": 0, "running": 3, "waiting": 0}
    found = {each["number"]: each["silent"] for each in status["running"]}
    assert found.keys() == SILENT.keys()
    assert all(found[number].startswith(word) for number, word in SILENT.items())
    run(store, "status", "s")
    shown = capsys.readouterr().out
    run(store, "trials", "s")
    rows = capsys.readouterr().out
    assert all(word in shown and f"running({word}" in rows for word in SILENT.values())
    run(store, "trials", "s", "--json")
    assert [row["silent"] is not None for row in json.loads(capsys.readouterr().out)] == [
        False,
        True,
        True,
        True,
    ]


def test_the_next_worker_mends_it(store):
    study = Study(Storage(f"sqlite:///{store / 'dlsearch.db'}"), "s")
    worker = worker_of_study(study, store, [Slot(0, "cpu:0", 1)], None)
    worker._recovery.begin()  # what is silent, and of another machine, is reaped while it serves
    assert [trial.state.name for trial in study.trials()] == [
        "COMPLETE",
        "WAITING",
        "COMPLETE",
        "RUNNING",
    ]
    assert not list((store / "studies/s/unwritten").iterdir())
    journal = store / "studies/s/t00001/journal.a1.jsonl"
    assert run_journals.has_ended(journal)
    study.storage.close()


def test_a_database_that_is_being_written_is_read_as_it_stands(tmp_path, capsys, monkeypatch):
    """By another process, which writes more between two looks."""
    monkeypatch.chdir(tmp_path)
    study = opened(tmp_path, draft(5))
    study.storage.close()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            study = Study(Storage(f"sqlite:///{tmp_path / 'dlsearch.db'}"), "s")
            while theirs.recv(1):
                study.finish(study.claim(holder()), complete(0.5))
                theirs.send(b"x")
        finally:
            os._exit(0)
    try:
        for count in (1, 2):
            ours.send(b"x")
            ours.recv(1)
            before = contents(tmp_path)
            assert (tmp_path / "dlsearch.db-shm").exists()
            run(tmp_path, "status", "s", "--json")
            assert json.loads(capsys.readouterr().out)["counts"]["complete"] == count
            assert contents(tmp_path) == before
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()
        theirs.close()


def test_following_changes_nothing_and_leaves_nothing_when_it_is_killed(tmp_path):
    study = opened(tmp_path, draft(5))
    study.claim(holder())
    study.storage.close()
    before = contents(tmp_path)
    terminal, line = pty.openpty()
    command = [
        sys.executable,
        "-c",
        "from dlsearch.cli.main import command; command()",
        "status",
        "s",
        "--follow",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'dlsearch/_hydra'}",
        "TERM": "xterm",
    }
    process = subprocess.Popen(
        [*command, f"paths.store={tmp_path}"],
        stdin=line,
        stdout=line,
        stderr=line,
        env=environment,
        cwd=ROOT,
    )
    os.close(line)
    try:
        said, deadline = b"", time.monotonic() + 60
        while said.count(b"0/5 trials") < 2:
            assert time.monotonic() < deadline, said
            assert process.poll() is None, said
            if select.select([terminal], [], [], 0.5)[0]:
                said += os.read(terminal, 1 << 16)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert contents(tmp_path) == before


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path, capsys):
    with closing(sqlite3.connect(tmp_path / "dlsearch.db")) as connection:
        connection.execute("CREATE TABLE cakes (n INTEGER)")
        connection.commit()
    before = contents(tmp_path)
    assert run(tmp_path, "status", "s") == 2
    assert f"{tmp_path / 'dlsearch.db'} holds another program's tables" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("version", [1, 2])
def test_an_earlier_versions_store_is_shown_and_not_migrated(version, tmp_path, capsys):
    with closing(sqlite3.connect(tmp_path / "dlsearch.db")) as connection:
        connection.executescript(
            Path(__file__).with_name("old").joinpath(f"v{version}.sql").read_text()
        )
    before = contents(tmp_path)
    assert run(tmp_path, "studies", "--json") == 0
    (study,) = json.loads(capsys.readouterr().out)
    assert run(tmp_path, "trials", study["name"], "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == sum(study["counts"].values())
    assert contents(tmp_path) == before


# -- PostgreSQL ------------------------------------------------------------------------------------
def rows_of(url):
    """All rows of all tables, each with the transaction that wrote it."""
    engine, found = sa.create_engine(url), {}
    with engine.connect() as connection:
        for name in sorted(sa.inspect(connection).get_table_names()):
            rows = connection.execute(sa.text(f'SELECT xmin::text, t.* FROM "{name}" t')).all()
            found[name] = sorted(map(str, rows))
    engine.dispose()
    return found


@pytest.fixture
def server_url(postgres, request):
    return postgres.database(f"reading-{request.node.name[:40]}")


def test_only_transactions_are_read_only_on_a_server_not_the_session_which_a_pooler_hands_on(
    server_url,
):
    Storage(server_url).close()
    storage = Storage(server_url, read_only=True)
    with storage.begin() as connection:
        assert connection.execute(sa.text("SHOW transaction_read_only")).scalar_one() == "on"
        assert (
            connection.execute(sa.text("SHOW default_transaction_read_only")).scalar_one() == "off"
        )
    with pytest.raises(StorageInternalError) as refused:
        storage.rdb.create_new_study([StudyDirection.MAXIMIZE], "s")
    assert "read-only transaction" in str(refused.value.__cause__)
    storage.close()


@pytest.mark.storm
def test_a_role_that_may_only_read_sees_a_study_on_a_server(
    postgres, server_url, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = draft(5)
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    study, _ = open_study(Storage(server_url), given, document, lease_s=30.0)
    leave_behind(study, tmp_path)
    study.storage.close()
    engine = sa.create_engine(server_url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP ROLE IF EXISTS looker"))
        connection.execute(sa.text("CREATE ROLE looker LOGIN"))
        connection.execute(sa.text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker"))
    engine.dispose()
    reads = sa.make_url(server_url).set(username="looker").render_as_string(hide_password=False)
    rows, files = rows_of(server_url), contents(tmp_path)
    out = tmp_path.parent / f"{tmp_path.name}-out"
    for words in verbs(out):
        for url in (server_url, reads):
            assert run(tmp_path, *words, f"study.storage='{url}'") == 0, capsys.readouterr().err
    assert rows_of(server_url) == rows
    assert contents(tmp_path) == files
    assert "running(no word for" in capsys.readouterr().out


def test_a_server_without_studies_gets_none(server_url, tmp_path, capsys):
    words = [f"study.storage='{server_url}'"]
    assert run(tmp_path, "studies", *words) == 0
    assert "no studies" in capsys.readouterr().out
    assert run(tmp_path, "status", "s", *words) == 2
    assert "holds no study yet" in capsys.readouterr().err
    assert rows_of(server_url) == {}


def test_an_earlier_versions_server_is_named_and_not_migrated(server_url, tmp_path, capsys):
    Storage(server_url).close()
    engine = sa.create_engine(server_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE dlsearch_alembic_version SET version_num = '2'"))
    engine.dispose()
    before = rows_of(server_url)
    assert run(tmp_path, "status", "s", f"study.storage='{server_url}'") == 2
    said = capsys.readouterr().err
    assert "was written by an earlier version of dlsearch" in said
    assert "the next search in it, or dlsearch worker study=NAME, brings it up to date" in said
    assert rows_of(server_url) == before


def test_a_worker_that_is_heard_is_at_work(tmp_path):
    study = opened(tmp_path, draft(2))
    study.claim(holder())
    status = read_status(study, tmp_path).to_json()
    assert status["state"] == "running"
    assert status["running"][0]["silent"] is None
    study.storage.close()
