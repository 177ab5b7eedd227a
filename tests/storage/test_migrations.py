"""The schema: migrations make the tables of the code; older ones are migrated, newer refused."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
import sys
import time
import uuid
import warnings
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from optuna.storages import RDBStorage

from dlsearch.core.errors import ConfigError
from dlsearch.storage import schema
from dlsearch.storage.database import Storage
from dlsearch.storage.optuna_cache import UncheckedStorage
from dlsearch.storage.studies import Budget
from dlsearch.storage.tables import VERSION, VERSION_TABLE, Base, StudyRow, TestEvaluation
from dlsearch.storage.test_ledger import Ledger
from dlsearch.study.study import Claim, Study
from tests.storage.test_availability import opened as opened_at
from tests.study.studies import complete, draft, holder, opened

INDEXES = {"ix_dlsearch_attempt_held", "ix_dlsearch_trials_state"}
NUMBERS = itertools.count()
TOKEN = "ix_dlsearch_test_evaluation_token"
DIGEST = "ix_dlsearch_test_evaluation_digest"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'dlsearch.db'}"
    return request.getfixturevalue("postgres").database(f"migrated-{next(NUMBERS)}")


def ours(name, kind, _parents):
    return kind != "table" or (name.startswith("dlsearch_") and name != VERSION_TABLE)


def differences(storage):
    with storage.engine.connect() as connection, warnings.catch_warnings():
        # PostgreSQL's index on Optuna's table, which is not in our metadata
        warnings.simplefilter("ignore")
        context = MigrationContext.configure(
            connection, opts={"include_name": ours, "compare_type": True}
        )
        found = compare_metadata(context, Base.metadata)
    # To SQLite every integer has 64 bits, whatever its column was called once.
    return [
        each
        for each in found
        if not (storage.sqlite and each[0][0] == "modify_type" and each[0][3] == "seed")
    ]


def versions(storage):
    with storage.engine.connect() as connection:
        return [
            connection.execute(sa.text(f"SELECT {column} FROM {table}")).scalars().all()
            for table, column in ((VERSION_TABLE, "version_num"), ("dlsearch_version", "version"))
        ]


def indexes(storage):
    found = sa.inspect(storage.engine)
    names = (
        found.get_indexes(table)
        for table in ("trials", "dlsearch_attempt", "dlsearch_test_evaluation")
    )
    return {index["name"] for each in names for index in each}


ADDED = {  # by version 4 and later
    "dlsearch_study": ("timeout_s", "trial_timeout_s", "target", "deadline"),
    "dlsearch_attempt": ("pid_space", "pid_born", "proposed", "seen", "verdict"),
    "dlsearch_test_evaluation": ("test_digest", "study_uuid"),
}


def make_old(storage, version):
    """The database as that version of the code left it; versions 1 and 2 knew no Alembic."""
    statements = [f"DROP INDEX {DIGEST}"]
    statements += [
        f"ALTER TABLE {table} DROP COLUMN {column}"
        for table, columns in ADDED.items()
        for column in columns
    ]
    statements += [f"UPDATE dlsearch_version SET version = {version}"]
    if version == 3:
        statements += [f"UPDATE {VERSION_TABLE} SET version_num = '3'"]
    else:
        statements += [f"DROP TABLE {VERSION_TABLE}", f"DROP INDEX {TOKEN}"]
        statements += ["ALTER TABLE dlsearch_test_evaluation DROP COLUMN token"]
        statements += ["ALTER TABLE dlsearch_test_evaluation ALTER COLUMN seed TYPE INTEGER"]
    if version == 1:
        statements += [f"DROP INDEX {name}" for name in sorted(INDEXES)] + [
            "DROP TABLE dlsearch_round"
        ]
    with storage.engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_migrations_make_the_tables_of_the_code(url):
    storage = Storage(url)
    assert differences(storage) == []
    assert indexes(storage) >= {*INDEXES, TOKEN, DIGEST}
    assert versions(storage) == [[VERSION], [int(VERSION)]]
    storage.close()


def test_the_newest_migration_is_the_version_of_the_code():
    scripts = ScriptDirectory(str(schema.MIGRATIONS))
    assert scripts.get_heads() == [VERSION]
    assert [script.revision for script in scripts.walk_revisions()] == [
        str(n) for n in range(int(VERSION), 0, -1)
    ]


def test_optunas_own_version_is_the_one_that_was_compared(tmp_path):
    rdb = RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    assert schema.OPTUNA_SCHEMA[optuna.__version__] == rdb.get_head_version()
    known = UncheckedStorage(rdb.url, rdb.engine)
    attributes = set(vars(rdb)) - {"_version_manager"}
    assert set(vars(known)) == attributes, "Optuna's own storage has nothing that ours lacks"
    rdb.remove_session()
    rdb.engine.dispose()


def brought_up(storage, second, row):
    """What was there before is there, and goes on."""
    assert differences(storage) == []
    assert versions(storage) == [[VERSION], [int(VERSION)]]
    assert indexes(storage) >= {*INDEXES, TOKEN, DIGEST}
    again = Study(storage, "s")
    assert [(a.number, a.state) for a in again.leases.rows()] == [(0, "complete"), (1, "running")]
    assert [(each["id"], each["seed"]) for each in again.ledger.rows()] == [(row, 7)]
    assert again.finish(Claim("trial", 1, 1, second, {}, 0, None), complete(0.25))
    assert [t.values for t in again.trials()] == [[0.5], [0.25]]
    token = uuid.uuid4().hex
    opening = again.ledger.opened("confirm", 0, 2**32 - 1, token)
    assert again.ledger.opened("confirm", 0, 2**32 - 1, token) == opening
    storage.close()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_file_that_an_earlier_version_wrote_is_brought_up_without_loss(tmp_path, version):
    """A trial that has ended, one that runs, an opening of the test set: by the code of then."""
    path = tmp_path / "dlsearch.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / f"old/v{version}.sql").read_text())
        second, row = connection.execute(
            "SELECT token, (SELECT id FROM dlsearch_test_evaluation)"
            " FROM dlsearch_attempt WHERE state = 'running'"
        ).fetchone()
    brought_up(Storage(f"sqlite:///{path}"), second, row)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_so_is_a_database_on_a_server(postgres, version):
    url = postgres.database(f"version-{version}")
    study = opened_at(url, "s", 3)
    first, second = study.claim(holder()), study.claim(holder())
    assert study.finish(first, complete(0.5))
    row = study.ledger.opened("confirm", 0, 7)
    make_old(study.storage, version)
    study.storage.close()
    brought_up(Storage(url), second.token, row)


def test_budgets_of_an_earlier_version_hold_for_whoever_joins(tmp_path):
    path = tmp_path / "dlsearch.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "old/v3.sql").read_text())
    study = Study(Storage(f"sqlite:///{path}"), "s")
    assert study.budget() == Budget(3, False, 600.0, 7200.0, 90.0, 0.875, None)
    assert all(
        (a.pid_space, a.pid_born, a.proposed) == (None, None, True) for a in study.leases.rows()
    )
    assert study.claim(holder()).trial_timeout_s == 90.0
    assert study.budget().deadline == pytest.approx(time.time() + 6600, abs=60)
    study.storage.close()


def test_attempts_of_version_4_say_nothing_of_what_they_saw(url):
    study = opened_at(url, "s", 3)
    claimed = study.claim(holder())
    assert study.leases.rows()[0].seen is not None
    with study.storage.engine.begin() as connection:
        for column in ("seen", "verdict"):
            connection.execute(sa.text(f"ALTER TABLE dlsearch_attempt DROP COLUMN {column}"))
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '4'"))
        connection.execute(sa.text("UPDATE dlsearch_version SET version = 4"))
    study.storage.close()
    storage = Storage(url)
    assert differences(storage) == []
    again = Study(storage, "s")
    assert [(a.number, a.seen, a.verdict) for a in again.leases.rows()] == [(0, None, None)]
    assert again.finish(claimed, complete(0.5))
    assert again.claim(holder()).number == 1
    assert again.leases.rows()[1].seen == '{"trials":2,"proposing":"1"}'
    storage.close()


def test_openings_of_version_5_get_the_digest_that_their_study_knows(url):
    study = opened_at(url, "s", 3)
    of_study = study.ledger.opened("confirm", 0, 7)
    of_former_study = study.ledger.opened("confirm", 1, 8)
    of_plain_run = Ledger(study.storage, "").opened("manual", None, 9)
    document = {**study.document, "data": {"digests": {"test": "5e5t"}}}
    make_version_5 = [
        f"DROP INDEX {DIGEST}",
        "ALTER TABLE dlsearch_test_evaluation DROP COLUMN test_digest",
        "ALTER TABLE dlsearch_test_evaluation DROP COLUMN study_uuid",
        f"UPDATE dlsearch_test_evaluation SET opened = opened - 9e6 WHERE id = {of_former_study}",
        f"UPDATE {VERSION_TABLE} SET version_num = '5'",
        "UPDATE dlsearch_version SET version = 5",
    ]
    with study.storage.engine.begin() as connection:
        for statement in make_version_5:
            connection.execute(sa.text(statement))
        connection.execute(sa.update(StudyRow).values(document=json.dumps(document)))
    study.storage.close()
    storage = Storage(url)
    assert differences(storage) == []
    query = sa.select(
        TestEvaluation.id, TestEvaluation.test_digest, TestEvaluation.study_uuid
    ).order_by(TestEvaluation.id)
    with storage.begin() as connection:
        rows = [tuple(row) for row in connection.execute(query)]
    assert rows == [
        (of_study, "5e5t", study.document["uuid"]),
        (of_former_study, None, None),
        (of_plain_run, None, None),
    ]
    storage.close()


def test_a_migration_that_was_cut_short_is_made_again(url):
    Storage(url).close()
    storage = Storage(url)
    with storage.engine.begin() as connection:  # SQLite has no transaction around them
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '2'"))
        connection.execute(sa.text("ALTER TABLE dlsearch_attempt DROP COLUMN proposed"))
        connection.execute(sa.text("DELETE FROM dlsearch_version"))
        connection.execute(sa.text(f"DROP INDEX {TOKEN}"))
    storage.close()
    storage = Storage(url)
    assert versions(storage) == [[VERSION], [int(VERSION)]]
    assert TOKEN in indexes(storage)
    storage.close()


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [(VERSION_TABLE, "version_num", "'7'"), ("dlsearch_version", "version", "7")],
)
def test_a_newer_database_is_refused_in_one_line_and_left_alone(url, table, column, value):
    storage = Storage(url)
    with storage.engine.begin() as connection:
        if table != VERSION_TABLE:
            connection.execute(sa.text(f"DROP TABLE {VERSION_TABLE}"))
        connection.execute(sa.text(f"UPDATE {table} SET {column} = {value}"))
    with pytest.raises(ConfigError) as error:
        Storage(url)
    assert (
        str(error.value)
        == "study.storage: was written by a newer dlsearch (7) (hint: upgrade dlsearch)"
    )
    with storage.engine.connect() as connection:
        assert str(connection.execute(sa.text(f"SELECT {column} FROM {table}")).scalar()) == "7"
    storage.close()


def test_another_program_s_database_on_a_server_is_left_alone(postgres):
    url = postgres.database("customers")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE customers (id INTEGER)"))
    with pytest.raises(ConfigError, match="another program"):
        Storage(url)
    assert sa.inspect(engine).get_table_names() == ["customers"]
    engine.dispose()


def test_a_database_that_is_up_to_date_is_opened_without_alembic(tmp_path):
    opened(tmp_path, draft(1)).storage.close()
    code = f"""
import sys
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study

study = Study(Storage("sqlite:///{tmp_path / "dlsearch.db"}"), "s")
study.reap()
study.trials()
print([name for name in sys.modules if name.split('.')[0] in ('alembic', 'mako')])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
