"""A study whose PostgreSQL is restarted, killed, or stays away: as users run it, with trainings."""

from __future__ import annotations

import time
from collections import Counter

import pytest
import sqlalchemy as sa

from dlsearch.core.errors import AWAY
from tests.e2e.running import TINY, until
from tests.storage.server import Server

pytestmark = pytest.mark.storm

TOTAL = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("pg"))
    yield server
    server.close()


def command(url, *words):
    return ["-m", *TINY, f"study.n_trials={TOTAL}", "hydra.launcher.workers=2", "study.name=s",
            f"study.storage='{url}'", *words]  # fmt: skip


def rows(url, query):
    """What the database says; nothing while it is away, or has no tables."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]
    except (sa.exc.OperationalError, sa.exc.ProgrammingError):
        return []


def ended(url):
    return len(rows(url, "SELECT 1 FROM dlsearch_attempt WHERE state='complete'"))


def exactly_once(url):
    assert rows(url, "SELECT number, state::text FROM trials ORDER BY number") == [
        (n, "COMPLETE") for n in range(TOTAL)
    ]
    attempts = rows(url, "SELECT number, state FROM dlsearch_attempt ORDER BY id")
    assert sorted(number for number, state in attempts if state == "complete") == list(range(TOTAL))
    return Counter(state for _, state in attempts)


def test_restarts_in_the_middle_of_a_study_cost_nothing(server, place):
    site, url = place("restarts"), server.database("restarts")
    with site.running(*command(url)) as process:
        for how, count in (("fast", 2), ("kill", 5)):
            until(lambda count=count: ended(url) >= count, timeout=150, poll=0.1)
            server.stop(how)
            time.sleep(0.7)
            server.start()
        process.wait(120)
    said = site.log.read_text()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert exactly_once(url) == {"complete": TOTAL}, "no trial was run again, and none was reaped"


def test_one_that_stays_away_ends_the_command_which_goes_on_later_with_all_it_had(server, place):
    site, url = place("away"), server.database("away")
    with site.running(*command(url, "study.storage_patience=2s")) as process:
        until(lambda: ended(url) >= 2, timeout=150, poll=0.1)
        server.stop("fast")
        try:
            process.wait(60)
        finally:
            server.start()
    said = site.log.read_text()
    assert process.returncode == AWAY, said
    assert said.count("has been away for 2 s") == 1, said
    assert said.count("waiting for the database: ") == 1, said
    assert "Traceback" not in said
    kept = {path.stem for path in (site.store / "studies/s/unwritten").glob("*.json")}
    running = {
        token for (token,) in rows(url, "SELECT token FROM dlsearch_attempt WHERE state='running'")
    }
    assert running, said
    assert running <= kept, (
        "a claim whose commit was not confirmed is kept too, whether it arrived or not"
    )
    before = ended(url)
    shown = site.json("status", "s", f"study.storage='{url}'")["running"]
    assert [each["silent"] for each in shown] == ["ended, not yet recorded"] * len(running)
    assert ended(url) == before, "to look is not to write"
    site.run(*command(url))
    assert not list((site.store / "studies/s/unwritten").iterdir()), (
        "the same command wrote what was kept"
    )
    assert set(exactly_once(url)) <= {"complete", "interrupted"}
