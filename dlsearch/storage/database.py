"""The storage: Optuna's tables, and beside them ours for studies, attempts and the test ledger.

Optuna's :class:`~optuna.storages.RDBStorage` owns trials. What it does not have is here: which
worker runs which attempt of which trial until when (a lease with a fencing token), what was
composed when the study was opened, and every look at a test set. Both are in one database, so that
one transaction log orders them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import check_database
from dlsearch.core.versions import is_compared
from dlsearch.storage.availability import PATIENCE_S, is_away, line_of, ride_out
from dlsearch.storage.location import mask
from dlsearch.storage.reading import open_to_read
from dlsearch.storage.schema import open_engine, open_tables, study_lock
from dlsearch.storage.tables import VERSION, Attempt, Base, RoundRow, StudyRow, TestEvaluation
from dlsearch.storage.trial_index import open_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optuna.storages import RDBStorage
    from sqlalchemy.engine import Engine

    from dlsearch.storage.optuna_cache import TrialCache

__all__ = ["SCHEMA_VERSION", "Attempt", "Base", "RoundRow", "Storage", "StudyRow", "TestEvaluation"]

T = TypeVar("T")
SCHEMA_VERSION = int(VERSION)
#: PostgreSQL's advisory lock of a study: this number, and the hash of the study's name.
_LOCK_STUDY = sa.text("SELECT pg_advisory_lock(7305802, hashtext(:study))")
_UNLOCK_STUDY = sa.text("SELECT pg_advisory_unlock(7305802, hashtext(:study))")
_LOCK_STUDY_IN_TRANSACTION = sa.text("SELECT pg_advisory_xact_lock(7305802, hashtext(:study))")
_CLOCK = sa.text("SELECT extract(epoch FROM clock_timestamp())")


class Storage:
    """An open storage. `rdb` is Optuna's view of it, `engine` ours.

    Args:
        url: ``sqlite:///path`` or ``postgresql+psycopg://…``.
        patience_s: How long to wait for the database in an outage, seconds.
        read_only: Read alone; nothing is written, made or migrated.

    Raises:
        ConfigError: The database cannot be opened, or belongs to another program.
        DatabaseAwayError: It did not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        patience_s: float = PATIENCE_S,
        read_only: bool = False,
    ) -> None:
        """Open, and create what is missing."""
        self.url = url
        self.patience_s = patience_s
        self._thread = threading.local()
        self.sqlite = url.startswith("sqlite")
        if self.sqlite:
            self.path = Path(make_url(url).database or "")
        #: Whether it is a copy, which does not see what others write.
        self.is_copy = False
        if self.sqlite:
            check_database(self.path)
        self.rdb: RDBStorage
        self.engine: Engine
        try:
            if read_only:
                self._open_to_read()
            else:
                self._open_to_write()
        except (SQLAlchemyError, sqlite3.Error, OSError, ImportError, RuntimeError) as error:
            raise ConfigError(
                "study.storage",
                f"cannot open {mask(url)}: {line_of(error)}",
            ) from error
        self.optuna = self.fresh()

    def _open_to_read(self) -> None:
        reading = self.surely(lambda: open_to_read(self.url))
        self.rdb = reading.rdb
        self.engine = reading.engine
        self.is_copy = reading.is_copy

    def _open_to_write(self) -> None:
        self.rdb = self.surely(lambda: open_tables(self.url))
        if is_compared("optuna"):
            # One engine for both has one transaction for both. It is no part of Optuna's public
            # interface.
            self.engine = self.rdb.engine
        else:
            self.engine = open_engine(self.url)

    def surely(self, action: Callable[[], T]) -> T:
        """Do something that is safe to repeat, and repeat it during an outage.

        Raises:
            DatabaseAwayError: The outage lasted for longer than `patience_s`.
        """
        return ride_out(action, self.patience_s)

    # -- locks and transactions --------------------------------------------------------------------
    @contextmanager
    def lock(self, study: str) -> Iterator[None]:
        """The study's critical section: claiming, reaping, telling.

        The death of its holder releases it.
        """
        if self.sqlite:
            with study_lock(self.path, study):
                yield
            return
        with self.engine.connect() as connection:
            connection.execute(_LOCK_STUDY, {"study": study})
            connection.commit()
            self._thread.locked = connection
            try:
                yield
            except BaseException:
                # Whatever the state of the connection, its end releases the lock. While the server
                # still commits a transaction of it, the lock lasts: the process that repeats the
                # transaction then finds it committed or not, but never in between.
                connection.invalidate()
                raise
            finally:
                self._thread.locked = None
            self._unlock_study(connection, study)

    def _unlock_study(self, connection: Connection, study: str) -> None:
        try:
            connection.execute(_UNLOCK_STUDY, {"study": study})
            connection.commit()
        except Exception as error:
            connection.invalidate()
            # In an outage all is done already, and the lock ends with the connection.
            if not is_away(error):
                raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction for all that this thread writes, by :meth:`begin` or by Optuna.

        Its own reads see at once what it wrote, others when it ends. What Optuna has cached in one
        that failed is void: see :meth:`fresh`. With a version of Optuna that is not compared, each
        write is a transaction of its own, and :meth:`~dlsearch.study.study.Study.reap` mends what a
        death in between leaves half done.
        """
        if not is_compared("optuna"):
            yield
            return
        from dlsearch.storage.optuna_cache import join_transaction

        with self._begin_joined() as connection:
            join_transaction(self.rdb, connection)
            self._thread.joined = connection
            try:
                yield
            except BaseException:
                with contextlib.suppress(Exception):  # of a connection that is gone
                    self.rdb.remove_session()
                raise
            finally:
                self._thread.joined = None
            self.rdb.remove_session()

    @contextmanager
    def section(self, study: str) -> Iterator[None]:
        """The study's critical section as one transaction.

        On PostgreSQL the lock is the transaction's: no question gives it back, and it lasts for as
        long as the server commits.
        """
        if self.sqlite or not is_compared("optuna"):
            with self.lock(study), self.transaction():
                yield
            return
        with self.transaction():
            with self.begin() as connection:
                connection.execute(_LOCK_STUDY_IN_TRANSACTION, {"study": study})
            yield

    @contextmanager
    def _begin_joined(self) -> Iterator[Connection]:
        """A transaction on the connection of the lock that this thread holds, else on another.

        Each connection from the pool costs PostgreSQL a question.
        """
        locked: Connection | None = getattr(self._thread, "locked", None)
        if locked is None:
            with self.engine.begin() as connection:
                yield connection
            return
        with locked.begin():
            yield locked

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction of its own; within :meth:`transaction`, that one."""
        joined: Connection | None = getattr(self._thread, "joined", None)
        if joined is not None:
            yield joined
            return
        with self.engine.begin() as connection:
            yield connection

    def now(self, connection: Connection) -> float:
        """Seconds since the epoch on the database's clock: the one clock that all workers share."""
        if self.sqlite:
            return time.time()
        seconds = connection.execute(_CLOCK).scalar_one()
        return float(seconds)

    # -- Optuna's view -----------------------------------------------------------------------------
    def fresh(self) -> TrialCache:
        """Optuna's view, replaced by one with nothing cached."""
        self.optuna = open_cache(self.rdb)
        return self.optuna

    def close(self) -> None:
        """Close all connections; a fork must not inherit one."""
        self.rdb.remove_session()
        self.engine.dispose()
        optunas_engine = getattr(self.rdb, "engine", None)
        if optunas_engine is not None and optunas_engine is not self.engine:
            optunas_engine.dispose()
