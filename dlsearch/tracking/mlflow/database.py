"""MLflow's own SQLite file, made so that a kill leaves a whole database or none.

MLflow makes its tables in some fifty migrations, which SQLite does not hold together as one
transaction. Killed among them it leaves a file that it can neither use nor finish: every later
start ends with "table … already exists".
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

from dlsearch.console.terminal import warn
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import check_database, check_schema
from dlsearch.core.files.sqlite_url import sqlite_file, sqlite_url
from dlsearch.core.machine.processes import process_tag
from dlsearch.core.masking import mask_text

__all__ = ["make", "path_of", "tune", "wanting"]

_log = logging.getLogger("dlsearch.shipper")

#: What nobody has written to for so long, and is not whole, was left by a process that died.
_ABANDONED_S = 60.0
_BESIDE = ("", "-wal", "-shm", "-journal")


def path_of(uri: str) -> Path | None:
    """The file that `uri` names; None for a server, or another database."""
    return sqlite_file(uri)


def wanting(uri: str) -> bool:
    """Whether `uri` names a file that is not there, or that holds no experiment.

    One that is made whole has one.
    """
    path = path_of(uri)
    if path is None:
        return False
    try:
        if not path.stat().st_size:
            return True
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        with closing(_open_existing(path)) as database:
            return database.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is None
    except sqlite3.OperationalError as error:
        return str(error).startswith("no such table")
    except sqlite3.Error:
        return False  # no database, or in use: MLflow says which


def make(uri: str) -> None:
    """Make the database where it is wanting.

    What another process left half made is set aside, never deleted.

    Raises:
        ConnectionError: Another process may be making it; try again later.
        Exception: MLflow cannot make it.
    """
    path = path_of(uri)
    if path is None or not wanting(uri):
        return
    check_database(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{process_tag()}")
    whole.unlink(missing_ok=True)
    try:
        _make_whole(whole, path.name)
        if not path.exists() or _make_room(path, _read_version(whole)):
            with suppress(FileExistsError):  # another process was faster
                os.link(whole, path)
    finally:
        whole.unlink(missing_ok=True)


def tune(uri: str, statement: str) -> None:
    """Run a statement on the database, where that is a SQLite file.

    What it refuses is of no consequence.
    """
    path = path_of(uri)
    if path is not None:
        with suppress(sqlite3.Error), closing(_open_existing(path)) as database:
            database.execute(statement)
            database.commit()


def _open_existing(path: Path) -> sqlite3.Connection:
    """One that exists: SQLite would make an empty file of one that does not.

    Raises:
        OutsideError: What lies beside it leads elsewhere.
    """
    check_database(path)
    opened = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=5.0,
    )
    try:
        check_schema(opened, triggers=False)
    except BaseException:
        opened.close()
        raise
    return opened


def look(uri: str) -> None:
    """Look at the database that somebody asked for.

    Raises:
        ConfigError: It is none, or as :func:`check` says.
    """
    try:
        check(uri)
    except sqlite3.Error as error:
        raise ConfigError("tracking.uri", f"{path_of(uri)} cannot be opened: {error}") from error


def check(uri: str) -> None:
    """Look at the database before MLflow opens it, where it is a SQLite file.

    Raises:
        OutsideError: It holds a program, or what lies beside it leads elsewhere.
        sqlite3.Error: It is no database.
    """
    path = path_of(uri)
    if path is not None and path.is_file():
        with closing(_open_existing(path)):
            pass


def _make_whole(whole: Path, name: str) -> None:
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, name)
        # makes the tables, and the experiment that each database has
        MlflowClient(sqlite_url(draft))
        # A copy, for MLflow keeps its connection to the draft: no file may be open under two names.
        with closing(sqlite3.connect(draft)) as made, closing(sqlite3.connect(whole)) as copy:
            made.backup(copy)
            copy.execute("PRAGMA journal_mode=WAL")  # a reader, the UI, does not stop the writer


def _make_room(path: Path, version: str | None) -> bool:
    """Whether `path` is free now.

    It was empty, or was set aside because it has another `version` of the tables.
    """
    beside = [file for end in _BESIDE if (file := path.with_name(path.name + end)).is_file()]
    if not any(file.stat().st_size for file in beside):  # the first thing that SQLite does
        path.unlink()
        return True
    if _read_version(path) == version:
        return False  # whole; somebody has deleted what was in it
    age = time.time() - max(file.stat().st_mtime for file in beside)
    if age < _ABANDONED_S:
        raise ConnectionError(f"{path} is not whole: it is being made, or was left {age:.0f} s ago")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for file in beside:
        file.rename(
            path.with_name(f"{path.name}.unfinished-{stamp}{file.name.removeprefix(path.name)}")
        )
    _log.warning(
        "%s was left half made; it is kept as %s.unfinished-%s, and made again",
        path,
        path.name,
        stamp,
    )
    return True


def _read_version(path: Path) -> str | None:
    with closing(_open_existing(path)) as database, suppress(sqlite3.OperationalError):
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
    return None


def main() -> int:
    """Make the database that the environment of MLflow's server names."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        make(os.environ["MLFLOW_BACKEND_STORE_URI"])
    except Exception as error:
        warn(mask_text(str(error).splitlines()[0]))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
