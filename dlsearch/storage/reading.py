"""Opening a storage to read it alone: nothing is written, made, migrated or reaped.

SQLite: while another process has the database open, its log and the log's index are read as they
are (``readonly_shm``, so that not even a read mark is left). A database that no process has open,
that lacks the index, or that an earlier version wrote is copied into memory and read there, where
the copy is migrated. PostgreSQL: every transaction is read-only.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import check_schema
from dlsearch.core.files.sqlite_url import sqlite_url
from dlsearch.core.retry import Backoff, retry
from dlsearch.storage import schema
from dlsearch.storage.gated_sqlite import connect
from dlsearch.storage.location import mask, refuse_foreign
from dlsearch.storage.tables import VERSION

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import Engine

#: How often a copy is tried while the database changes, and the pause between, seconds.
COPY_TRIES = 20
COPY_PAUSE_S = 0.1
#: For how long another connection's lock is waited for, seconds.
BUSY_S = 60.0
#: Files beside a SQLite database: its log, the log's index, and the journal of other modes.
_LOG = "-wal"
_LOG_INDEX = "-shm"
_JOURNAL = "-journal"


class NoStudiesError(ConfigError):
    """A database that exists, and holds no studies."""


@dataclass(frozen=True)
class Reading:
    """A database that was opened to be read.

    Args:
        rdb: Optuna's view of it.
        engine: Ours.
        is_copy: Whether it is a copy, which will not see what changes.
    """

    rdb: RDBStorage
    engine: Engine
    is_copy: bool


def open_to_read(url: str) -> Reading:
    """Open a database to read it.

    Raises:
        NoStudiesError: It has none of our tables.
        ConfigError: It belongs to another program, to a newer dlsearch, or, on a server, to an
            older one.
        sqlalchemy.exc.SQLAlchemyError: It cannot be reached, or is none.
    """
    if not url.startswith("sqlite"):
        return _open_server(url)
    path = Path(make_url(url).database or "")
    if _is_open(path):
        reading = _open_shared_file(url, path)
        if reading is not None:
            return reading
    return _open_copy(path)


# -- PostgreSQL ------------------------------------------------------------------------------------
def _open_server(url: str) -> Reading:
    engine = schema.open_engine(url)
    sa.event.listen(engine, "connect", _make_read_only)
    try:
        if not schema.is_current(engine):
            _refuse_schema(url, engine)
    except BaseException:
        engine.dispose()
        raise
    arguments = schema.connection_arguments(url)
    arguments["connect_args"]["options"] = "-c default_transaction_read_only=on"
    rdb = schema.known_tables(url, engine, arguments)
    return Reading(rdb, engine, is_copy=False)


def _make_read_only(connection: Any, _record: Any) -> None:
    """Make all transactions of a new connection read-only."""
    if hasattr(connection, "read_only"):
        # psycopg 3 begins each transaction so. The session stays as it is: a pooler may hand it to
        # a client that writes.
        connection.read_only = True
        return
    cursor = connection.cursor()
    cursor.execute("SET default_transaction_read_only = on")
    cursor.close()
    connection.commit()


def _refuse_schema(url: str, engine: Engine) -> None:
    """Raise an error that says why a server's database cannot be read as it is.

    Raises:
        ConfigError: Always.
    """
    with engine.connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        refuse_foreign(url, tables)
        if "dlsearch_study" not in tables:
            raise NoStudiesError(
                "study.storage",
                f"{mask(url)} holds no study yet",
                "dlsearch -m … begins one",
            )
        schema.refuse_newer(connection, tables)
    raise ConfigError(
        "study.storage",
        f"{mask(url)} was written by an earlier version of dlsearch"
        f" (this one has schema {VERSION})",
        "the next search in it, or dlsearch worker study=NAME, brings it up to date",
    )


# -- SQLite ----------------------------------------------------------------------------------------
def _open_shared_file(url: str, path: Path) -> Reading | None:
    """A database that another process has open; None where its schema is another version's."""
    arguments = {"creator": lambda: _connect_read_only(path)}
    engine = sa.create_engine(url, **arguments)
    if not schema.is_current(engine):
        engine.dispose()
        return None
    rdb = schema.known_tables(url, engine, arguments)
    return Reading(rdb, engine, is_copy=False)


def _open_copy(path: Path) -> Reading:
    """A copy of a database in memory."""
    url = "sqlite://"
    memory = _copy_to_memory(path)
    arguments = {"creator": lambda: memory, "poolclass": sa.pool.StaticPool}
    engine = sa.create_engine(url, **arguments)
    rdb = schema.known_tables(url, engine, arguments)
    return Reading(rdb, engine, is_copy=True)


def _is_open(path: Path) -> bool:
    """Whether a process has it open, or had when it was killed: there is a log, and its index."""
    return _file_beside(path, _LOG).exists() and _file_beside(path, _LOG_INDEX).exists()


def _file_beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}{suffix}")


def _connect_read_only(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode=ro&readonly_shm=1"
    connection = connect(
        uri,
        uri=True,
        timeout=BUSY_S,
        check_same_thread=False,
    )
    try:
        check_schema(connection)
    except sqlite3.Error:
        pass  # no database, or one that is busy: the next query raises that
    except BaseException:
        connection.close()
        raise
    return connection


def _copy_to_memory(path: Path) -> sqlite3.Connection:
    """A copy of the database in memory, with the tables of this version."""
    with tempfile.TemporaryDirectory(prefix="dlsearch-") as folder:
        copy = Path(folder, "copy.db")
        _copy_file(path, copy)
        try:
            migrated = schema.open_tables(sqlite_url(copy))
            migrated.remove_session()
            if hasattr(migrated, "engine"):
                migrated.engine.dispose()
        except ConfigError as error:
            expected = error.expected.replace(str(copy), str(path))
            raise ConfigError(error.key, expected, error.hint) from error
        memory = connect(":memory:", check_same_thread=False)
        with closing(connect(copy)) as source:
            source.backup(memory)
    return memory


def _copy_file(path: Path, copy: Path) -> None:
    """Copy a database and its log as they are at one moment.

    Raises:
        ConfigError: It changes all the time.
    """
    try:
        retry(
            partial(_copy_once, path, copy),
            on=_ChangedMeanwhileError,
            tries=COPY_TRIES,
            backoff=Backoff(first_s=COPY_PAUSE_S, cap_s=COPY_PAUSE_S),
        )
    except _ChangedMeanwhileError:
        raise ConfigError(
            "study.storage", f"{path} changes faster than it can be copied", "try again"
        ) from None


class _ChangedMeanwhileError(Exception):
    """A process opened the database while it was copied."""


def _copy_once(path: Path, copy: Path) -> None:
    """Copy a database and its log.

    Raises:
        _ChangedMeanwhileError: They are of two moments, and the copy is gone again.
    """
    if _is_open(path):
        with (
            closing(_connect_read_only(path)) as source,
            closing(connect(copy)) as target,
        ):
            source.backup(target)
        return
    before = _stamp_files(path)
    shutil.copyfile(path, copy)
    log = _file_beside(path, _LOG)
    if log.exists():
        shutil.copyfile(log, _file_beside(copy, _LOG))
    if _stamp_files(path) != before:
        for each in copy.parent.iterdir():
            each.unlink()
        raise _ChangedMeanwhileError


def _stamp_files(path: Path) -> list[tuple[int, int, int] | None]:
    """Stamps that change with a database or its log: inode, size and time of each file.

    None stands for a file that is absent.
    """
    stamps: list[tuple[int, int, int] | None] = []
    for suffix in ("", _LOG, _LOG_INDEX, _JOURNAL):
        try:
            status = _file_beside(path, suffix).stat()
        except FileNotFoundError:
            stamps.append(None)
        else:
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return stamps
