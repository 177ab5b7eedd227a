"""A store that an earlier version wrote: read, gone on with, verified.

``old/store.tar.gz`` holds the database as SQL, and the folders of two studies: ``finished``, with its kept model, and
``interrupted``, which was killed in the middle of its third trial. ``@STORE@`` stands for the store's path.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.running import TINY, Site

PACKED = Path(__file__).with_name("old") / "store.tar.gz"
WORDS = [word for word in TINY if not word.startswith(("study.finalize", "trainer.max_epochs"))]
WORDS += ["trainer.max_epochs=2"]
#: The store was written on a processor whose widest instructions were these; results depend on them.
AS_THERE = {"ATEN_CPU_CAPABILITY": "avx2"}


def unpack(store: Path) -> None:
    with tarfile.open(PACKED) as archive:
        archive.extractall(store, filter="data")
    for path in store.rglob("*"):
        if path.is_file() and b"@STORE@" in (text := path.read_bytes()):
            path.write_bytes(text.replace(b"@STORE@", str(store).encode()))
    dump = store / "dlsearch.sql"
    with closing(sqlite3.connect(store / "dlsearch.db")) as connection:
        connection.executescript(dump.read_text())
    dump.unlink()


@pytest.fixture(scope="module")
def site(place) -> Site:
    site = place("old")
    unpack(site.store)
    return site


def verify(site: Site, which: str = "finished") -> str:
    """What the command says, in a process of its own: torch asks for the instructions once."""
    alone = Site(site.folder)
    return alone.run("verify", which, "--anyway", env=AS_THERE)


def test_its_targets_are_the_former_ones(site):
    (document,) = site.rows("SELECT document FROM dlsearch_study WHERE name='finished'")[0]
    assert "dlsearch.models.linear.LinearModel" in document


def test_it_is_looked_at(site):
    assert site.json("status", "finished")["state"] == "complete"
    assert len(site.json("trials", "interrupted")) == 3
    assert "test/accuracy" in site.run("status", "finished")


def test_its_report_is_written(site):
    site.run("report", "finished")
    report = json.loads((site.store / "studies/finished/report/report.json").read_text())
    assert len(report["test"]["openings"]) == 1


@pytest.mark.storm
def test_its_trials_are_trained_again_bit_for_bit(site):
    said = verify(site)
    assert "3 of 3 trials bit-equal" in said, said


def test_its_model_predicts(site):
    said = site.run("export", "finished", "--out", str(site.folder / "exported"))
    assert (site.folder / "exported").exists(), said


def test_what_was_interrupted_goes_on(site):
    command = ["-m", *WORDS, "study.name=interrupted", "study.n_trials=6", "study.finalize=false"]
    said = site.run(*command, "hydra.launcher.workers=1")
    assert "drift" not in said
    numbers = site.rows(
        "SELECT number, state FROM trials JOIN studies USING (study_id) "
        "WHERE study_name='interrupted' ORDER BY number"
    )
    assert numbers == [(number, "COMPLETE") for number in range(6)]
    attempts = site.rows(
        "SELECT number, state FROM dlsearch_attempt WHERE study='interrupted' ORDER BY id"
    )
    assert attempts[:4] == [(0, "complete"), (1, "complete"), (2, "lost"), (2, "complete")]


@pytest.mark.storm
def test_what_was_finished_is_extended_and_still_verified(site):
    command = ["-m", *WORDS, "study.name=finished", "study.confirm.seeds=2", "study.confirm.top=1"]
    site.run(*command, "study.n_trials=4")
    assert site.json("status", "finished")["n_trials"] == 4
    assert "trial 2 (complete): equal, bit for bit" in verify(site, "finished/2")
    assert "trial 3 (complete): equal, bit for bit" in site.run("verify", "finished/3")
