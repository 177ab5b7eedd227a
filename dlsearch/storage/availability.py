"""Outages of the database: how one is recognised, how long to wait, and when to give up.

An outage is what passes by itself: the connection is lost or refused, the server is starting,
stopping or a standby, it has no connection or no disk left, two transactions were in conflict
(serialisation, deadlock). What failed is then done again from its beginning, so it must be safe to
repeat: a commit whose answer was lost may have succeeded. Importing this module imports nothing
heavy.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from dlsearch.console.terminal import warn
from dlsearch.core.errors import ConfigError, DatabaseAwayError
from dlsearch.core.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: For how long an outage is waited out where nothing else is configured, seconds.
PATIENCE_S = 300.0
#: The longest pause before the second try, and before later ones, seconds. A holder that waits
#: longer could lose its lease.
FIRST_S = 0.2
CAP_S = 3.0
#: How often it is checked whether the next try is due, seconds.
_TICK_S = 0.05

#: SQLSTATE codes that pass by themselves, beside the whole class 08 (connection exception):
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
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
#: What a server says, with no code, when it refuses a connection, and what no waiting changes.
LASTING = (
    "password",
    "does not exist",
    "pg_hba.conf",
    "authentication",
    "Permission denied",
    "is not permitted",
    "SSL",
)
_CONNECTION_EXCEPTION = "08"
#: SQLite's codes for a database that another connection uses.
_SQLITE_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_PSYCOPG_PASSING = {"OperationalError", "InterfaceError"}

T = TypeVar("T")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it; the driver's in the place of SQLAlchemy's around them."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield getattr(error, "orig", None) or error
        error = error.__cause__ or error.__context__


def is_away(error: BaseException | None) -> bool:
    """Whether `error`, or one that led to it, is a sign of an outage: a retry may succeed."""
    if isinstance(error, ConfigError | DatabaseAwayError):
        return False
    return any(_is_sign_of_outage(each) for each in chain(error))


def _is_sign_of_outage(error: BaseException) -> bool:
    """Whether a driver's error passes by itself."""
    sqlite_code = getattr(error, "sqlite_errorname", "")
    if sqlite_code.startswith(_SQLITE_PASSING):
        return True
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if sqlstate is not None:
        return sqlstate in PASSING or sqlstate.startswith(_CONNECTION_EXCEPTION)
    # By names: this module imports no driver.
    if not type(error).__module__.startswith("psycopg"):
        return False
    class_names = {each.__name__ for each in type(error).__mro__}
    if not class_names & _PSYCOPG_PASSING:
        return False
    message = str(error)
    return not any(words in message for words in LASTING)


class ConnectionLostError(Exception):
    """A connection to the database ended in the middle of something.

    It is no error of SQLAlchemy's, for which Optuna would try a statement again where the
    transaction must be repeated.
    """

    sqlstate = "08006"


class Outage:
    """What one process knows of an outage.

    Args:
        patience_s: For how long it is waited out, seconds; ``inf`` for ever.
        say: Writes a line to the user.
    """

    def __init__(
        self,
        patience_s: float = PATIENCE_S,
        say: Callable[[str], object] | None = None,
    ) -> None:
        """There is none until something has failed."""
        self.patience_s = patience_s
        self._say = say or to_stderr
        self._since: float | None = None
        self._failures = 0
        self._next_try = 0.0

    @property
    def now(self) -> bool:
        """Whether there is an outage, as far as is known."""
        return self._since is not None

    def seen(self, error: BaseException) -> None:
        """Note a failure, and when to try again; the user hears of the second one in a row.

        Raises:
            DatabaseAwayError: The outage has lasted for `patience_s`.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self._failures += 1
        if now - self._since >= self.patience_s:
            raise DatabaseAwayError(self.patience_s, line_of(error)) from error
        if self._failures == 2:
            self._say(f"waiting for the database: {line_of(error)}")
        # Jitter, so that all that wait do not try at once.
        pauses = Backoff(FIRST_S, CAP_S, jitter=0.5)
        self._next_try = now + pauses.pause_after(self._failures)

    def due(self) -> bool:
        """Whether to try: always without an outage, from time to time during one."""
        return self._since is None or time.monotonic() >= self._next_try

    def over(self) -> None:
        """Note that the database has answered."""
        if self._since is not None and self._failures > 1:
            lasted = time.monotonic() - self._since
            self._say(f"the database is back after {lasted:.0f} s")
        self._since = None
        self._failures = 0


def ride_out(
    action: Callable[[], T],
    patience_s: float = PATIENCE_S,
    say: Callable[[str], object] | None = None,
) -> T:
    """Do something with the database, and repeat it during an outage.

    Args:
        action: What to do; it is safe to repeat.
        patience_s: For how long the outage is waited out, seconds.
        say: Writes a line to the user.

    Raises:
        DatabaseAwayError: The outage lasted for longer.
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
            time.sleep(_TICK_S)


def line_of(error: BaseException) -> str:
    """The first line of the driver's message; the error's name where it has none."""
    drivers_error = getattr(error, "orig", None) or error
    for each in chain(error):
        if _is_sign_of_outage(each):
            drivers_error = each
            break
    lines = str(drivers_error).splitlines()
    if not lines:
        return type(drivers_error).__name__
    return lines[0]


def to_stderr(line: str) -> None:
    """Write a line to the user."""
    warn(line)
