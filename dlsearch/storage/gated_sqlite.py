"""SQLite connections whose calls keep forks of this process waiting.

See :mod:`dlsearch.core.machine.fork_gate` for the reason.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from dlsearch.core.machine.fork_gate import enter, inside, leave

P = ParamSpec("P")
T = TypeVar("T")


def _gated(method: Callable[P, T]) -> Callable[P, T]:
    """`method`, called inside the gate. It is called for every row: no context manager is made."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        enter()
        try:
            return method(*args, **kwargs)
        finally:
            leave()

    return call


class GatedCursor(sqlite3.Cursor):
    """A cursor; each call that runs a statement or reads rows is inside the gate."""

    execute = _gated(sqlite3.Cursor.execute)
    executemany = _gated(sqlite3.Cursor.executemany)
    executescript = _gated(sqlite3.Cursor.executescript)
    fetchone = _gated(sqlite3.Cursor.fetchone)
    fetchmany = _gated(sqlite3.Cursor.fetchmany)
    fetchall = _gated(sqlite3.Cursor.fetchall)
    close = _gated(sqlite3.Cursor.close)

    def __next__(self) -> Any:
        """The next row."""
        with inside():
            return super().__next__()


class GatedConnection(sqlite3.Connection):
    """A connection; each call that reaches the database is inside the gate."""

    commit = _gated(sqlite3.Connection.commit)
    rollback = _gated(sqlite3.Connection.rollback)
    close = _gated(sqlite3.Connection.close)
    backup = _gated(sqlite3.Connection.backup)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open the database."""
        with inside():
            super().__init__(*args, **kwargs)

    def cursor(self, factory: Any = GatedCursor) -> Any:
        """A cursor of this connection."""
        return super().cursor(factory)

    def execute(self, *args: Any) -> Any:
        """Run a statement by a new cursor, which is returned."""
        return self.cursor().execute(*args)


def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    """Like :func:`sqlite3.connect`, with a :class:`GatedConnection`."""
    return sqlite3.connect(*args, factory=GatedConnection, **kwargs)
