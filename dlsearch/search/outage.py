"""A database that is away: how that shows, how it is waited for, and when that has been too long.

Away is what passes by itself: the connection is lost or refused, the server is starting, stopping or a standby, it has
no connection or no disk left, a transaction met another (serialisation, deadlock). What is done then is done again from
its beginning, so it must be safe to repeat: a commit whose answer was lost may have been one. Imports nothing heavy.
"""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING, TypeVar

from dlsearch.config.errors import ConfigError, DatabaseAwayError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds that a database is waited for, where nobody says otherwise.
PATIENCE_S = 300.0
#: Seconds before the second try, at most, and before the later ones. A holder that waits longer could lose its lease.
FIRST_S, CAP_S = 0.2, 3.0

#: https://www.postgresql.org/docs/current/errcodes-appendix.html, beside the whole class 08 (connection exception).
PASSING = {
    "25006",  # read-only: a standby answers, or the new primary is not one yet
    "25P03",  # idle in a transaction for too long
    "40001",  # serialisation failure
    "40P01",  # deadlock
    "53100",  # the server's disk is full
    "53200",  # its memory
    "53300",  # its connections
    "55P03",  # a lock was not to be had in time
    "57014",  # a statement took too long
    "57P01",  # shutting down
    "57P02",  # another of its processes crashed
    "57P03",  # starting up, stopping, recovering
    "57P05",  # an idle session was ended
    "58030",  # it cannot read or write its files
}
#: What a server says while one connects, with no code, and what no waiting changes.
LASTING = (
    "password",
    "does not exist",
    "pg_hba.conf",
    "authentication",
    "Permission denied",
    "is not permitted",
    "SSL",
)

T = TypeVar("T")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it; those of the driver in place of SQLAlchemy's around them."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield getattr(error, "orig", None) or error
        error = error.__cause__ or error.__context__


def is_away(error: BaseException | None) -> bool:
    """Whether `error`, or one that led to it, says that the database is away, or that the same again may do."""
    if isinstance(error, ConfigError | DatabaseAwayError):
        return False
    return any(_says_so(each) for each in chain(error))


def _says_so(error: BaseException) -> bool:
    if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        return True
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if code is not None:
        return code in PASSING or code.startswith("08")
    classes = {each.__name__ for each in type(error).__mro__}
    if not type(error).__module__.startswith("psycopg") or not classes & {"OperationalError", "InterfaceError"}:
        return False
    return not any(words in str(error) for words in LASTING)


class ConnectionLostError(Exception):
    """A connection to the database ended in the middle of something.

    It is no error of SQLAlchemy's, for which Optuna would try a statement again where the transaction must be repeated.
    """

    sqlstate = "08006"


class Outage:
    """What one process knows of the database's being away.

    Args:
        patience_s: Seconds that it is waited for; ``inf`` for ever.
        say: Tells the user.
    """

    def __init__(self, patience_s: float = PATIENCE_S, say: Callable[[str], object] | None = None) -> None:
        """It is there until it has failed."""
        self.patience_s, self._say = patience_s, say or to_stderr
        self._since: float | None = None
        self._tries, self._next = 0, 0.0

    @property
    def now(self) -> bool:
        """Whether it is away, as far as is known."""
        return self._since is not None

    def seen(self, error: BaseException) -> None:
        """Note that it is away, and when to ask again; the second failure in a row is told.

        Raises:
            DatabaseAwayError: It has been for as long as it is waited for.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        self._tries += 1
        if now - self._since >= self.patience_s:
            raise DatabaseAwayError(self.patience_s, line_of(error)) from error
        if self._tries == 2:
            self._say(f"waiting for the database: {line_of(error)}")
        # Jitter, so that those who wait do not all come at once.
        self._next = now + min(CAP_S, FIRST_S * 2 ** min(self._tries - 1, 10)) * random.uniform(0.5, 1.0)

    def due(self) -> bool:
        """Whether it may be asked: always while it is there, from time to time while it is away."""
        return self._since is None or time.monotonic() >= self._next

    def over(self) -> None:
        """Note that it has answered."""
        if self._since is not None and self._tries > 1:
            self._say(f"the database is back after {time.monotonic() - self._since:.0f} s")
        self._since, self._tries = None, 0


def ride_out(action: Callable[[], T], patience_s: float = PATIENCE_S, say: Callable[[str], object] | None = None) -> T:
    """Do something with the database, again and again while it is away.

    Args:
        action: It is safe to repeat.
        patience_s: How long it is waited for.
        say: Tells the user.

    Raises:
        DatabaseAwayError: It was away for longer.
        Exception: What `action` raised, where that was something else.
    """
    outage = Outage(patience_s, say)
    while True:
        try:
            found = action()
        except Exception as error:
            if not is_away(error):
                raise
            outage.seen(error)
        else:
            outage.over()
            return found
        while not outage.due():
            time.sleep(0.05)


def line_of(error: BaseException) -> str:
    """The first line of what the driver said."""
    said = next((each for each in chain(error) if _says_so(each)), getattr(error, "orig", None) or error)
    return (str(said).splitlines() or [type(said).__name__])[0]


def to_stderr(line: str) -> None:
    """Tell the user."""
    sys.stderr.write(f"dlsearch: {line}\n")
    sys.stderr.flush()
