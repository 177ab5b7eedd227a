"""Waiting: a worker whose disk is full, or whose database is away, claims nothing, says so once, and goes on after."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from dlsearch.search.outage import PATIENCE_S, Outage, is_away, line_of, to_stderr
from dlsearch.tracking.full import has_room, is_full

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RETRY_S = 2.0
TRIES = 20  # where there is room, but it fails nevertheless
LEAST = 1 << 20  # bytes; a log, a journal, and rows of the database

T = TypeVar("T")


class Room:
    """The disk that a worker writes to, and its database.

    Args:
        store: Where.
        say: Tells the user.
        patience_s: How long the database is waited for, seconds; a disk is waited for as long as it takes.
    """

    def __init__(self, store: Path, say: Callable[[str], object] | None = None, patience_s: float = PATIENCE_S) -> None:
        """There is room, and a database, until something has failed."""
        self.store, self._say = store, say or to_stderr
        self.outage = Outage(patience_s, self._say)
        self._wanted: int | None = None
        self._next = 0.0

    def missing(self, what: str, size: int = 0) -> None:
        """Something could not be written; `size` is what it needs, in bytes."""
        if self._wanted is None:
            self._say(f"waiting for room in {self.store}: {what}")
        self._wanted = max(self._wanted or LEAST, size)
        self._next = time.monotonic() + RETRY_S

    def there(self) -> bool:
        """Whether there is room, as far as is known; looks at most once in two seconds."""
        if self._wanted is None:
            return True
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + RETRY_S
        if not has_room(self.store, self._wanted):
            return False
        self._wanted = None
        self._say(f"there is room again in {self.store}")
        return True

    def insist(
        self, action: Callable[[], T], *, give_up: Callable[[], bool], between: Callable[[], object], away: bool = True
    ) -> T:
        """Do something with the database, again and again while its disk is full or it is away.

        Args:
            action: It leaves nothing half done, and may be done twice.
            give_up: Whether to raise instead of waiting on.
            between: Called before each further try, when there may be room.
            away: Whether to wait for a database that is away; false raises what it says.

        Raises:
            DatabaseAwayError: The database was away for too long.
            Exception: What `action` raised, where that was something else, `give_up` says so, or room did not help.
        """
        full, tried = 0, False
        while True:
            try:
                if tried:
                    between()
                found = action()
            except Exception as error:
                tried = True
                if give_up():
                    raise
                if is_away(error):
                    if not away:
                        raise
                    self.outage.seen(error)
                elif is_full(error) and full + 1 < TRIES:
                    full += 1
                    self.missing(line_of(error))
                else:
                    raise
            else:
                self.outage.over()
                return found
            while not give_up() and not (self.outage.due() and self.there()):
                time.sleep(0.1)

    def at_once(
        self,
        action: Callable[[], T],
        otherwise: T,
        *,
        give_up: Callable[[], bool],
        between: Callable[[], object],
        broken: Callable[[], object],
    ) -> T:
        """Do something with the database now, for which :meth:`insist` finds room; `otherwise`, while it is away.

        Args:
            action: It leaves nothing half done, and may be done twice.
            otherwise: What comes of it while the database is away.
            give_up: Whether to raise instead of waiting for room.
            between: Called before the first try after the database was away, and before each after a full disk.
            broken: Called where the database turns out to be away.

        Raises:
            DatabaseAwayError: It was away for too long.
        """
        if not self.outage.due():
            return otherwise
        try:
            if self.outage.now:
                between()
            return self.insist(action, give_up=give_up, between=between, away=False)
        except Exception as error:
            if not is_away(error):
                raise
            broken()
            self.outage.seen(error)
            return otherwise


def needed(folder: Path, n_params: int | None) -> int:
    """Bytes that a training in `folder` may want for its next checkpoint: the largest it has, and as much again.

    Args:
        folder: With ``ckpt`` in it.
        n_params: Where it has none yet: weights, gradients' moments, and room to spare.
    """
    sizes = [path.stat().st_size for path in (folder / "ckpt").glob("*.ckpt") if path.is_file()]
    return max(LEAST, 2 * max(sizes, default=16 * (n_params or 0)))
