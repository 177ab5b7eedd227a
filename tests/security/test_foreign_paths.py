"""A store of somebody else's: whatever its names, links and rows say, nothing outside it is read or changed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dlsearch.cli.main import main
from dlsearch.config.transfer import settings
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import OutsideError
from dlsearch.execution import checkpoint_retention, run_journals
from dlsearch.execution.clients.database import DatabaseClient
from dlsearch.execution.outcome import Ending
from dlsearch.execution.pending_results import PendingResults
from dlsearch.execution.resources.slots import Slot
from dlsearch.planning.transfer_sources import kept_files
from dlsearch.storage.location import check_folders
from dlsearch.storage.studies import names
from dlsearch.study.study import Study
from dlsearch.verification import report_file
from tests.execution.workers import worker_of_study
from tests.study.studies import complete, draft, holder, opened

TRIALS = 4


def contents(folder):
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() else None,
            path.lstat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished study with its files, made once."""
    store = tmp_path_factory.mktemp("made") / "store"
    store.mkdir()
    study = opened(
        store, draft(TRIALS, study={"finalize": False, "keep": {"top_k": 1, "max_gib": None}})
    )
    for value in (0.5, 0.9, 0.1, 0.2):
        claim = study.claim(holder())
        run_journals.begin(study, claim, holder(), store)
        folder = store / f"studies/s/t{claim.number:05d}"
        (folder / "config.yaml").write_text("a: 1\n")
        (folder / "ckpt").mkdir()
        for name in ("best.ckpt", "last.ckpt", "previous.ckpt"):
            (folder / "ckpt" / name).write_bytes(bytes(100))
        assert study.finish(claim, complete(value))
    study.settle(interrupted=False, confirmed=True)
    study.storage.close()
    return store


@pytest.fixture
def store(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


@pytest.fixture
def home(tmp_path):
    """What is the user's own: checkpoints, notes, a page; and it is to stay as it is."""
    home = tmp_path / "home"
    for name in ("best.ckpt", "last.ckpt", "ckpt/best.ckpt", "ckpt/last.ckpt", "t00001/ckpt/last.ckpt",
                 "secret.txt", "report/report.json", "config.yaml", "journal.a1.jsonl.shipped",
                 "x/t00000/ckpt/last.ckpt"):  # fmt: skip
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"run_id": "hunter2"}')
    return home


def run(store, *words):
    with pytest.raises(SystemExit) as end:
        main([*words, f"paths.store={store}"])
    return end.value.code


def replaced(store, name, target):
    """Put a link to `target` in the place of something in the store."""
    path = store / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


LINKS = {
    "studies": "x/..", "studies/s": "x", "studies/s/t00000": "", "studies/s/t00002/ckpt": "ckpt",
    "studies/s/t00002/ckpt/best.ckpt": "best.ckpt", "studies/s/t00002/ckpt/last.ckpt": "last.ckpt",
    "studies/s/t00000/ckpt": "ckpt", "studies/s/t00000/config.yaml": "config.yaml", "studies/s/report": "report",
    "studies/s/unwritten": "x", "dlsearch.db-wal": "secret.txt", "dlsearch.db-journal": "secret.txt",
    "shipper.log": "secret.txt", "dlsearch.db.lock": "secret.txt", "cache": "x", "weights": "x",
    "studies/s/t00000/journal.a1.jsonl.shipped": "journal.a1.jsonl.shipped",
}  # fmt: skip
VERBS = [
    ["status", "s", "--json"], ["trials", "s", "--json"], ["studies"], ["report", "s"], ["gc"], ["gc", "s"],
    ["gc", "--max-gib", "0"], ["predict", "s/0", "picture.png"], ["export", "s/0", "--out", "out"], ["look", "s/0"],
    ["ensemble", "s"], ["compare", "s", "other"], ["reproduce", "s", "--store", "again"], ["verify", "s/9"],
    ["worker", "study=s"],
]  # fmt: skip


REFUSED = ("studies", "studies/s", "dlsearch.db-wal", "dlsearch.db-journal", "shipper.log", "cache", "weights",
           "dlsearch.db.lock")  # fmt: skip
READ = ("studies/s/t00000", "studies/s/t00000/ckpt", "studies/s/t00000/config.yaml")
TOUCHED = {
    **dict.fromkeys(("predict", "export", "look"), READ),
    "gc": ("studies/s/t00000", "studies/s/t00000/ckpt", "studies/s/t00002/ckpt"),
    "report": ("studies/s/report",),
    "reproduce": ("studies/s/report",),
    "worker": ("studies/s/t00000", "studies/s/report", "studies/s/unwritten"),
    "ensemble": ("studies/s/t00000", "studies/s/t00000/ckpt"),
}


def _ends_soon(link, verb):
    """Whether the verb ends by the link: else it would go on, or import torch."""
    if verb[0] in ("predict", "export", "look"):
        return link in (*REFUSED, *READ)
    return verb[0] not in ("worker", "ensemble") or link in TOUCHED[verb[0]]


def _pairs():
    """Each link with each verb; ``make test`` runs each link once, and each verb that goes through one."""
    seen = set()
    for link in LINKS:
        verbs = [verb for verb in VERBS if _ends_soon(link, verb)]
        through = [verb for verb in verbs if link in TOUCHED.get(verb[0], ())] or verbs
        new = [verb for verb in through if verb[0] not in seen] or through[:1]
        seen |= {verb[0] for verb in new if link in TOUCHED.get(verb[0], ())}
        for verb in verbs:
            is_quick = verb in new[:1] or (verb in new and link in READ)
            # a worker's start takes seconds
            marks = () if is_quick and verb[0] != "worker" else pytest.mark.storm
            yield pytest.param(link, verb, id=f"{' '.join(verb)}-{link}", marks=marks)


@pytest.mark.parametrize(("link", "verb"), list(_pairs()))
def test_no_verb_follows_a_link(link, verb, store, home, capsys, tmp_path):
    (tmp_path / "picture.png").write_bytes(b"no picture")
    replaced(store, link, home / LINKS[link])
    before = contents(home)
    refused, touched = link in REFUSED, TOUCHED.get(verb[0], ())
    if verb[0] == "status" and link in ("studies", "studies/s"):
        refused = link == "studies"
    code = run(store, *verb)
    said = capsys.readouterr()
    assert contents(home) == before
    assert "hunter2" not in said.out + said.err
    if link in touched:
        assert code == 2
    if code == 2:
        assert len(said.err.strip().splitlines()) == 1, said.err
    if link in touched or (refused and link not in ("studies/s",)):
        assert "symbolic link" in said.err


NAMES = [
    "../../x",
    "..",
    ".",
    "/tmp/x",
    "a/b",
    "-rf",
    "",
    "a b",
    "a\nb",
    "s\x1b[31m",
    "x" * 101,
    "../home/x",
]


def renamed(store, name):
    with closing(sqlite3.connect(store / "dlsearch.db")) as database:
        for table, column in (
            ("dlsearch_study", "name"), ("studies", "study_name"), ("dlsearch_attempt", "study"),
            ("test_evaluations", "study"), ("dlsearch_test_evaluation", "study"), ("dlsearch_round", "study"),
        ):  # fmt: skip
            try:
                database.execute(f"UPDATE {table} SET {column} = ?", [name])
            except sqlite3.OperationalError as error:
                assert "no such table" in str(error)  # noqa: PT017
        database.commit()


@pytest.mark.storm
@pytest.mark.parametrize("name", NAMES)
def test_a_study_that_was_renamed_in_the_database_leads_nowhere(name, store, home, capsys):
    renamed(store, name)
    before = contents(home)
    for verb in (
        ["status"],
        ["trials"],
        ["report"],
        ["gc"],
        ["predict"],
        ["ensemble"],
        ["compare"],
        ["verify"],
    ):
        if name in ("-rf",) or (name == "" and verb == ["verify"]):
            continue
        more = {"predict": [str(home / "secret.txt")], "compare": ["other"]}.get(verb[0], [])
        assert run(store, *verb, name, *more) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert run(store, "gc") == 0
    assert run(store, "studies", "--json") == 0
    assert "home" not in capsys.readouterr().out
    assert contents(home) == before


def test_of_several_studies_those_with_names_are_listed(tmp_path):
    study = opened(tmp_path, draft(1))
    with closing(sqlite3.connect(tmp_path / "dlsearch.db")) as database:
        row = database.execute("SELECT * FROM dlsearch_study").fetchone()
        columns = [each[1] for each in database.execute("PRAGMA table_info(dlsearch_study)")]
        marks = ", ".join("?" for _ in columns)
        changed = [
            "../../x" if column == "name" else value
            for column, value in zip(columns, row, strict=True)
        ]
        database.execute(f"INSERT INTO dlsearch_study VALUES ({marks})", changed)
        database.commit()
    assert names(study.storage) == ["s"]
    with pytest.raises(ConfigError, match="expected letters"):
        Study(study.storage, "../../x")
    study.storage.close()


TYPES = [("number", "../../../home/x/t00000"), ("attempt", "/../../../../home/journal.a1"),
         ("token", "../../../home/x"), ("pid", "../../home")]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), TYPES)
def test_a_text_in_a_column_of_numbers_is_no_path(column, value, store, home, capsys):
    """SQLite takes any value in any column."""
    with closing(sqlite3.connect(store / "dlsearch.db")) as database:
        database.execute(
            f"UPDATE dlsearch_attempt SET {column} = ?, state = 'live' WHERE id = 1",
            [value],
        )
        database.commit()
    before = contents(home)
    for verb in (["status", "s", "--json"], ["trials", "s", "--json"], ["gc"]):
        with pytest.raises((SystemExit, ValueError, TypeError)):
            main([*verb, f"paths.store={store}"])
        said = capsys.readouterr()
        assert "hunter2" not in said.out + said.err
    assert contents(home) == before


@pytest.fixture
def study(store):
    with closing(sqlite3.connect(store / "dlsearch.db")) as database:
        database.execute("UPDATE dlsearch_study SET n_trials = 9, finished = 0")
        database.commit()
    from dlsearch.storage.database import Storage

    storage = Storage(f"sqlite:///{store / 'dlsearch.db'}")
    yield Study(storage, "s")
    storage.close()


INTO = [".", "config.yaml", "journal.a1.jsonl", "worker.a1.log", "ckpt", "error", "ckpt/last.ckpt",
        "error/traceback.txt", "breaches.jsonl", "anything"]  # fmt: skip


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
@pytest.mark.parametrize("name", INTO)
def test_a_worker_begins_no_trial_in_a_folder_with_a_link(name, kind, study, store, home):
    claim = study.claim(holder())
    path = store / f"studies/s/t{claim.number:05d}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(home / ("secret.txt" if kind == "link" else "new"))
    before = contents(home)
    worker = worker_of_study(study, store, [Slot(0, "cpu:0", 1)], None)
    try:
        assert worker.supervisor.start(claim, holder(), worker.slots[0]) is False
    finally:
        worker.end_threads()
    assert contents(home) == before
    trial = study.trials()[claim.number]
    assert trial.state.name == "FAIL", "no other worker tries it"


@pytest.mark.parametrize("folder", ["studies/s", "studies/s/confirm", "studies/s/unwritten", "studies/s/report",
                                    "cache", "weights", "."])  # fmt: skip
@pytest.mark.parametrize("name", ["journal.jsonl", "config.yaml", "r1-closed", "shipper.lock"])
def test_the_folders_of_a_study_are_looked_at_before_it_goes_on(folder, name, store, home):
    check_folders(store, "s")
    path = store / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(home / "new")
    if folder == "." and name != "shipper.lock":
        check_folders(store, "s")
        return
    with pytest.raises(OutsideError, match="symbolic link"):
        check_folders(store, "s")


JOURNALS = ["../home/journal.a1.jsonl", "{home}/secret.txt", "studies/s/t00000/config.yaml", "dlsearch.db",
            "link/x.jsonl", "studies/other/journal.jsonl", "studies/s/../../../home/journal.a1.jsonl",
            "studies/s/out/journal.jsonl"]  # fmt: skip


@pytest.mark.parametrize("name", JOURNALS)
def test_a_kept_end_names_a_journal_of_its_study_alone(name, study, store, home, capfd):
    (store / "link").symlink_to(home)
    (store / "studies/s/out").symlink_to(home)
    claim = study.claim(holder())
    PendingResults(store, study.name).keep(claim, Ending("interrupted", "interrupted"))
    path = store / f"studies/s/unwritten/{claim.token}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "journal": name.format(home=home)}))
    (home / "journal.jsonl").write_text("mine\n")
    before, kept = contents(home), (store / "studies/s/t00000/config.yaml").read_text()
    PendingResults(store, study.name).write_kept(DatabaseClient(study))
    assert contents(home) == before
    assert (store / "studies/s/t00000/config.yaml").read_text() == kept
    assert "put aside" in capfd.readouterr().err


@pytest.mark.timeout(120)
def test_a_kept_end_that_is_a_pipe_hangs_nobody(study, store, capfd):
    (store / "studies/s/unwritten").mkdir()
    os.mkfifo(store / "studies/s/unwritten/token.json")
    PendingResults(store, study.name).write_kept(DatabaseClient(study))
    assert "is no plain file" in capfd.readouterr().err


def test_a_worker_removes_no_checkpoint_behind_a_link(study, store, home):
    replaced(store, "studies/s/t00003", home)
    before = contents(home)
    keeper = checkpoint_retention.Keeper(study, store)
    for number in range(TRIALS):
        try:
            keeper.ended(number)
        except OutsideError:
            continue
    assert contents(home) == before


@pytest.mark.parametrize(
    "sha", ["../../home/secret", "/etc/passwd", "x" * 64, "A" * 64, "0" * 63, 7]
)
def test_a_digest_is_no_path(sha):
    node = {"weights": "study:a", "sha256": {"study:a": sha}, "batch_norm": "frozen", "unfreeze": None, "lr": 1.0,
            "groups": {}, "prefix": None, "head": None, "freeze": None}  # fmt: skip
    with pytest.raises(ConfigError, match=r"transfer\.sha256"):
        settings(node, 3)
    if "/" in str(sha):
        assert kept_files(node, Path("/weights")) == {}


@pytest.mark.parametrize("name", [each for each in NAMES if each] + ["a', paths.store='/tmp"])
def test_a_report_names_a_study(name, tmp_path):
    path = tmp_path / "report.json"
    study = dict.fromkeys(("config", "options", "space", "sampler", "seed", "objectives"))
    path.write_text(json.dumps({"schema": 1, "study": {"name": name, **study}, "replay": [{}]}))
    with pytest.raises(ConfigError, match="expected letters"):
        report_file.load(path)


def test_a_store_behind_a_link_is_read_and_served(store, home, capsys):
    link = store.with_name("link")
    link.symlink_to(store)
    for verb in (
        ["status", "s"],
        ["trials", "s"],
        ["studies"],
        ["gc", "--dry-run"],
        ["report", "s"],
    ):
        assert run(link, *verb) == 0
    check_folders(link, "s")
    assert (store / "studies/s/report/report.json").is_file()
    capsys.readouterr()
    assert run(link, "gc") == 0
    assert "removed 11 files" in capsys.readouterr().out
