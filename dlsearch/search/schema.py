"""The schema: found to be up to date by one query, or else created and migrated, under a lock, by Alembic.

Alembic's bookkeeping is in a table of our own name, because Optuna keeps its own in the same database.
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import scoped_session, sessionmaker

from dlsearch.config.errors import ConfigError
from dlsearch.search.outage import ConnectionLostError, is_away
from dlsearch.search.place import check_storage, refuse_foreign
from dlsearch.search.tables import VERSION, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection, ExceptionContext

# It warns of each connection that is lost, with its statement, before it raises; we say it in one line.
optuna.logging.get_logger("optuna.storages._rdb.storage").setLevel(logging.ERROR)

MIGRATIONS = Path(__file__).with_name("migrations")
#: Optuna's own schema, by Optuna's version. Another's is asked by Optuna itself, which imports Alembic.
OPTUNA_SCHEMA = {"5.0.0": "v3.2.0.a"}
_BOTH = f"SELECT (SELECT max(version_num) FROM {VERSION_TABLE}), (SELECT max(version_num) FROM alembic_version)"


class _Known(RDBStorage):
    """Optuna's storage over tables that are known to be up to date: it asks for nothing and imports no Alembic."""

    def __init__(self, url: str, engine: Engine) -> None:
        """What Optuna's own does, less its look at the tables."""
        self.url, self.engine, self.engine_kwargs = url, engine, {}
        self.skip_compatibility_check = True
        self.heartbeat_interval = self.grace_period = None
        self.heartbeat_stale_trial_callback = self.failed_trial_callback = None
        self.scoped_session = scoped_session(sessionmaker(bind=engine))


def connection_arguments(url: str) -> dict[str, Any]:
    """What a connection is opened with: no wait is endless when a network goes silent. The URL's own words win."""
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 60}}
    wanted = {"connect_timeout": 5, "keepalives_idle": 3, "keepalives_interval": 1, "keepalives_count": 3}
    wanted |= {"tcp_user_timeout": 6000}  # ms
    return {"pool_pre_ping": True, "connect_args": {k: v for k, v in wanted.items() if k not in parts.query}}


def tune_sqlite(connection: Any, _record: Any) -> None:
    """Of each new connection."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=60000")
    cursor.close()


def tune_postgresql(connection: Any, _record: Any) -> None:
    """Of each new connection: a client that is cut off is noticed by the server, and its locks are released."""
    cursor = connection.cursor()
    cursor.execute("SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3")
    cursor.close()
    connection.commit()


def _lost(context: ExceptionContext) -> None:
    if context.is_disconnect and not context.is_pre_ping:
        raise ConnectionLostError(str(context.original_exception)) from context.original_exception


def open_tables(url: str) -> RDBStorage:
    """Optuna's view of a database whose schema is this one.

    Raises:
        ConfigError: It belongs to another program, or to a newer dlsearch.
        sqlalchemy.exc.SQLAlchemyError: It cannot be reached, or is none.
        RuntimeError: Another version of Optuna made its tables.
    """
    engine = _engine(url)
    try:
        if not _is_current(engine):
            if engine.dialect.name == "sqlite":
                _prepare_sqlite(url)
            with _alone(url, engine):
                if not _is_current(engine):
                    _make(url, engine)
    except BaseException:
        engine.dispose()
        raise
    if optuna.__version__ in OPTUNA_SCHEMA:
        return _Known(url, engine)
    engine.dispose()
    rdb = RDBStorage(url, engine_kwargs=connection_arguments(url))
    rdb.engine.dispose()  # its first connections were made untuned
    _listen(rdb.engine)
    return rdb


def _engine(url: str) -> Engine:
    engine = sa.create_engine(url, **connection_arguments(url))
    _listen(engine)
    return engine


def _listen(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", tune_sqlite)
    else:
        sa.event.listen(engine, "connect", tune_postgresql)
        sa.event.listen(engine, "handle_error", _lost)


def _is_current(engine: Engine) -> bool:
    """Whether nothing is to be made: one query, which fails where a table is absent."""
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
        return False
    try:
        with engine.connect() as connection:
            ours, theirs = connection.execute(sa.text(_BOTH)).one()
            wal = engine.dialect.name != "sqlite" or connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    except DBAPIError as error:
        if is_away(error):
            raise
        return False  # a table is not there, or it is no database
    return ours == VERSION and theirs == OPTUNA_SCHEMA.get(optuna.__version__, theirs) and wal


def _prepare_sqlite(url: str) -> None:
    check_storage(url)
    path = Path(make_url(url).database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(lock_path(path)), closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _make(url: str, engine: Engine) -> None:
    """Create or migrate; the caller is alone."""
    with engine.connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        refuse_foreign(url, tables)
        _refuse_newer(connection, tables)
    rdb = RDBStorage(url, engine_kwargs=connection_arguments(url))  # makes Optuna's tables, or checks them
    rdb.remove_session()
    rdb.engine.dispose()
    with engine.begin() as connection:
        _migrate(connection)


def _refuse_newer(connection: Connection, tables: set[str]) -> None:
    """Refuse what this version does not know; by the number of old, too, which newer ones still write."""
    known = {str(n) for n in range(int(VERSION) + 1)}
    for table, column in ((VERSION_TABLE, "version_num"), ("dlsearch_version", "version")):
        if table in tables:
            found = connection.execute(sa.text(f"SELECT max({column}) FROM {table}")).scalar()
            if found is not None and str(found) not in known:
                raise ConfigError("study.storage", f"was written by a newer dlsearch ({found})", "upgrade dlsearch")


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _alone(url: str, engine: Engine) -> Iterator[None]:
    """Creation of the schema is serial: many first starts at once create one."""
    if engine.dialect.name == "sqlite":
        with file_lock(lock_path(Path(engine.url.database or ""))):
            yield
        return
    own = sa.create_engine(url, **connection_arguments(url) | {"poolclass": sa.pool.NullPool})
    _listen(own)
    with own.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(7305801)"))
        yield  # the lock ends with the connection, which no pool keeps


def lock_path(database: Path) -> Path:
    """The file whose lock serves a SQLite database."""
    return database.with_name(f"{database.name}.lock")


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Held by one process; its death releases it."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
