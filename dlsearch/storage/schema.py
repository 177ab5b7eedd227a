"""The schema of the database: one query finds it up to date, or Alembic creates and migrates it.

Alembic's bookkeeping is in a table of our own name, because Optuna keeps its own in the same
database.
"""

from __future__ import annotations

import logging
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import check_schema
from dlsearch.core.files.locks import file_lock
from dlsearch.core.files.sqlite_url import escape_braces
from dlsearch.core.versions import is_compared
from dlsearch.storage.availability import ConnectionLostError, is_away
from dlsearch.storage.gated_sqlite import GatedConnection, connect
from dlsearch.storage.location import check_storage, refuse_foreign
from dlsearch.storage.tables import VERSION, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection, ExceptionContext

# Optuna warns of each connection that is lost, with its statement, before it raises; dlsearch says
# it in one line.
optuna.logging.get_logger("optuna.storages._rdb.storage").setLevel(logging.ERROR)

MIGRATIONS = Path(__file__).with_name("migrations")
#: Optuna's own schema, by Optuna's version. With another version, Optuna itself looks at the
#: schema, which imports Alembic.
OPTUNA_SCHEMA = {"5.0.0": "v3.2.0.a"}
#: Seconds that a SQLite connection waits for another's lock.
BUSY_SECONDS = 60
#: How soon a connection to PostgreSQL notices that the network is silent.
_POSTGRESQL_TIMEOUTS = {
    "connect_timeout": 5,  # s
    "keepalives_idle": 3,  # s
    "keepalives_interval": 1,  # s
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,  # ms
}
#: The same for the server, which then releases the locks of a client that is cut off.
_SERVER_KEEPALIVES = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3"
)
#: PostgreSQL's advisory lock of the process that makes the schema.
_LOCK_SCHEMA = sa.text("SELECT pg_advisory_lock(7305801)")
#: Our schema's version, and Optuna's.
_VERSIONS = sa.text(
    f"SELECT (SELECT max(version_num) FROM {VERSION_TABLE}),"
    " (SELECT max(version_num) FROM alembic_version)"
)


# -- connections -----------------------------------------------------------------------------------
def connection_arguments(url: str) -> dict[str, Any]:
    """The arguments of an engine: no wait is endless when a network goes silent.

    What the URL itself says wins.
    """
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_SECONDS, "factory": GatedConnection}}
    timeouts = {
        name: value for name, value in _POSTGRESQL_TIMEOUTS.items() if name not in parts.query
    }
    return {"pool_pre_ping": True, "connect_args": timeouts}


def open_engine(url: str) -> Engine:
    """Connections to a database, each tuned; none is made yet."""
    engine = sa.create_engine(url, **connection_arguments(url))
    _listen_to_connections(engine)
    return engine


def _listen_to_connections(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", tune_sqlite)
    else:
        sa.event.listen(engine, "connect", tune_postgresql)
        sa.event.listen(engine, "handle_error", _raise_lost_connection)


def tune_sqlite(connection: Any, _record: Any) -> None:
    """Check and tune a new connection."""
    check_schema(connection)
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA busy_timeout={1000 * BUSY_SECONDS}")
    cursor.close()


def tune_postgresql(connection: Any, _record: Any) -> None:
    """Let the server notice when a new connection is cut off, and release its locks."""
    cursor = connection.cursor()
    cursor.execute(_SERVER_KEEPALIVES)
    cursor.close()
    connection.commit()


def _raise_lost_connection(context: ExceptionContext) -> None:
    if context.is_disconnect and not context.is_pre_ping:
        raise ConnectionLostError(str(context.original_exception)) from context.original_exception


# -- opening ---------------------------------------------------------------------------------------
def open_tables(url: str) -> RDBStorage:
    """Optuna's view of a database, whose schema is made or migrated where it is not this one.

    Raises:
        ConfigError: It belongs to another program, or to a newer dlsearch.
        sqlalchemy.exc.SQLAlchemyError: It cannot be reached, or is none.
        RuntimeError: Another version of Optuna made its tables.
    """
    engine = open_engine(url)
    try:
        _make_current(url, engine)
    except BaseException:
        engine.dispose()
        raise
    if _is_optunas_schema_known():
        return known_tables(url, engine, {})
    engine.dispose()
    rdb = RDBStorage(escape_braces(url), engine_kwargs=connection_arguments(url))
    if hasattr(rdb, "engine"):
        # Its first connections were made untuned.
        rdb.engine.dispose()
        _listen_to_connections(rdb.engine)
    return rdb


def known_tables(
    url: str,
    engine: Engine,
    engine_kwargs: dict[str, Any],
) -> RDBStorage:
    """Optuna's view of tables that are known to be up to date; it makes none.

    Args:
        url: The database.
        engine: Connections to it.
        engine_kwargs: Arguments of an engine with the same connections, where Optuna needs one of
            its own.
    """
    if is_compared("optuna") and _is_optunas_schema_known():
        from dlsearch.storage.optuna_cache import UncheckedStorage

        return UncheckedStorage(url, engine)
    return RDBStorage(escape_braces(url), engine_kwargs=engine_kwargs, skip_table_creation=True)


def _is_optunas_schema_known() -> bool:
    return optuna.__version__ in OPTUNA_SCHEMA


def is_current(engine: Engine) -> bool:
    """Whether the schema is up to date: one query, which fails where a table is absent."""
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
        return False
    try:
        with engine.connect() as connection:
            our_version, optunas_version = connection.execute(_VERSIONS).one()
            has_log = _has_write_ahead_log(connection)
    except DBAPIError as error:
        if is_away(error):
            raise
        return False  # a table is not there, or it is no database
    wanted = OPTUNA_SCHEMA.get(optuna.__version__, optunas_version)
    return our_version == VERSION and optunas_version == wanted and has_log


def _has_write_ahead_log(connection: Connection) -> bool:
    if connection.dialect.name != "sqlite":
        return True
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    return mode == "wal"


# -- making and migrating --------------------------------------------------------------------------
def _make_current(url: str, engine: Engine) -> None:
    """Create or migrate the schema where it is not up to date."""
    if is_current(engine):
        return
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(url)
    with _schema_lock(url, engine):
        if not is_current(engine):
            _create_or_migrate(url, engine)


def _prepare_sqlite(url: str) -> None:
    """Make the folder and the file, with a write-ahead log."""
    check_storage(url)
    path = Path(make_url(url).database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        file_lock(lock_path(path)),
        closing(connect(path, timeout=BUSY_SECONDS)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")


def _create_or_migrate(url: str, engine: Engine) -> None:
    """Create or migrate the schema; the caller holds the lock."""
    with engine.connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        refuse_foreign(url, tables)
        refuse_newer(connection, tables)
    # This makes Optuna's tables, or checks them.
    rdb = RDBStorage(escape_braces(url), engine_kwargs=connection_arguments(url))
    rdb.remove_session()
    if hasattr(rdb, "engine"):
        rdb.engine.dispose()
    with engine.begin() as connection:
        _run_migrations(connection)


def refuse_newer(connection: Connection, tables: set[str]) -> None:
    """Refuse a database of a newer version.

    Both numbers are read: newer versions still write that of versions 1 and 2.

    Raises:
        ConfigError: It is newer.
    """
    known = {str(version) for version in range(int(VERSION) + 1)}
    for table, column in ((VERSION_TABLE, "version_num"), ("dlsearch_version", "version")):
        if table not in tables:
            continue
        query = sa.text(f"SELECT max({column}) FROM {table}")
        found = connection.execute(query).scalar()
        if found is not None and str(found) not in known:
            raise ConfigError(
                "study.storage",
                f"was written by a newer dlsearch ({found})",
                "upgrade dlsearch",
            )


def _run_migrations(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    location = str(MIGRATIONS).replace("%", "%%")
    config.set_main_option("script_location", location)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


# -- locks -----------------------------------------------------------------------------------------
#: Alembic keeps the migration that it runs in variables of its module: threads take turns.
_ALEMBIC_LOCK = threading.Lock()


@contextmanager
def _schema_lock(url: str, engine: Engine) -> Iterator[None]:
    """The lock of the process that makes the schema: many first starts at once make one."""
    with _ALEMBIC_LOCK, _schema_lock_between_processes(url, engine):
        yield


@contextmanager
def _schema_lock_between_processes(url: str, engine: Engine) -> Iterator[None]:
    if engine.dialect.name == "sqlite":
        path = Path(engine.url.database or "")
        with file_lock(lock_path(path)):
            yield
        return
    arguments = connection_arguments(url)
    arguments["poolclass"] = sa.pool.NullPool
    own_engine = sa.create_engine(url, **arguments)
    _listen_to_connections(own_engine)
    with own_engine.connect() as connection:
        connection.execute(_LOCK_SCHEMA)
        yield  # the lock ends with the connection, which no pool keeps


def lock_path(database: Path) -> Path:
    """The file whose lock is that of a SQLite database as a whole."""
    return database.with_name(f"{database.name}.lock")


@contextmanager
def study_lock(database: Path, study: str) -> Iterator[None]:
    """The lock of one study in a SQLite database.

    The database's own is shared meanwhile: it keeps out versions before 4, which hold it alone for
    any study.
    """
    own_path = database.with_name(f"{database.name}.{study}.lock")
    with file_lock(lock_path(database), shared=True), file_lock(own_path):
        yield
