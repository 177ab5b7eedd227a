"""The storage: Optuna's tables, and beside them ours for study records, attempts with leases, and the test ledger.

Optuna's :class:`~optuna.storages.RDBStorage` owns trials. What it does not have is here: who runs which attempt of
which trial until when (a lease with a fencing token), what was composed when the study was opened, and every look
at a test set. Both live in one database, so that one transaction log orders them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError

from dlsearch.config.errors import ConfigError
from dlsearch.search.index import TrialCache
from dlsearch.search.outage import PATIENCE_S, is_away, line_of, ride_out
from dlsearch.search.place import mask
from dlsearch.search.schema import file_lock, lock_path, open_tables
from dlsearch.search.tables import VERSION, Attempt, Base, RoundRow, StudyRow, TestEvaluation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SCHEMA_VERSION", "Attempt", "Base", "RoundRow", "Storage", "StudyRow", "TestEvaluation"]

T = TypeVar("T")
SCHEMA_VERSION = int(VERSION)


class Storage:
    """An open storage. `rdb` is Optuna's view of it, `engine` ours.

    Args:
        url: ``sqlite:///path`` or ``postgresql+psycopg://…``.
        patience_s: How long it is waited for while it is away, seconds.

    Raises:
        ConfigError: The database cannot be opened, or belongs to another program.
        DatabaseAwayError: It did not answer.
    """

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        """Open, and create what is missing."""
        self.url, self.patience_s = url, patience_s
        self._thread = threading.local()
        self.sqlite = url.startswith("sqlite")
        if self.sqlite:
            self.path = Path(make_url(url).database or "")
        try:
            self.rdb = self.surely(lambda: open_tables(url))
        except (SQLAlchemyError, sqlite3.Error, OSError, ImportError, RuntimeError) as error:
            raise ConfigError("study.storage", f"cannot open {mask(url)}: {line_of(error)}") from error
        self.engine = self.rdb.engine
        self.optuna = self.fresh()

    def surely(self, action: Callable[[], T]) -> T:
        """Do something that is safe to repeat, again and again while the database is away.

        Raises:
            DatabaseAwayError: It was for longer than `patience_s`.
        """
        return ride_out(action, self.patience_s)

    @contextmanager
    def lock(self, study: str) -> Iterator[None]:
        """The study's critical section: claiming, reaping, telling. Its holder's death releases it."""
        if self.sqlite:
            with file_lock(lock_path(self.path)):
                yield
            return
        with self.engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(7305802, hashtext(:s))"), {"s": study})
            connection.commit()
            self._thread.locked = connection
            try:
                yield
            except BaseException:
                # Whatever state it is in, its end releases the lock. A transaction that is still being committed over
                # there keeps it until it is done: whoever repeats it finds it done, or not, but never on its way.
                connection.invalidate()
                raise
            finally:
                self._thread.locked = None
            try:
                connection.execute(sa.text("SELECT pg_advisory_unlock(7305802, hashtext(:s))"), {"s": study})
                connection.commit()
            except Exception as error:
                connection.invalidate()
                if not is_away(error):  # else all is done, and the lock is gone or will be
                    raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that this thread writes meanwhile, by :meth:`begin` or by Optuna through `rdb`, stands, or nothing.

        Its own reads see it at once, others when it ends. What Optuna has cached in one that failed is void: see
        :meth:`fresh`.
        """
        locked: Connection | None = getattr(self._thread, "locked", None)
        with ExitStack() as stack:
            if locked is not None:  # the lock's own connection: each from the pool costs PostgreSQL a question
                stack.enter_context(locked.begin())
                connection = locked
            else:
                connection = stack.enter_context(self.engine.begin())
            self.rdb.remove_session()
            self.rdb.scoped_session(bind=connection, join_transaction_mode="rollback_only")
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
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def fresh(self) -> TrialCache:
        """Optuna's view from now on, with nothing cached."""
        self.optuna = TrialCache(self.rdb)
        return self.optuna

    def close(self) -> None:
        """Close all connections; a fork must not inherit one."""
        self.rdb.remove_session()
        self.engine.dispose()
