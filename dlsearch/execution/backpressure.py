"""Back-pressure: while the disk is full or the database is away, a worker claims nothing.

It says so once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from dlsearch.core.files.disk import has_room, is_full
from dlsearch.storage.availability import PATIENCE_S, Outage, is_away, line_of, to_stderr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RETRY_S = 2.0
TRIES = 20  # where there is space, but it fails nevertheless
LEAST = 1 << 20  # bytes; a log, a journal, and rows of the database

T = TypeVar("T")


class BackPressure:
    """What a worker waits for: space on its disk, and its database.

    Args:
        store: Where.
        say: Tells the user.
        patience_s: How long the database is waited for, seconds; a disk is waited for as long as it
            takes.
    """

    def __init__(
        self,
        store: Path,
        say: Callable[[str], object] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """There is space, and a database, until something has failed."""
        self.store = store
        self._say = say or to_stderr
        self.outage = Outage(patience_s, self._say)
        self._wanted: int | None = None
        self._next = 0.0

    def note_disk_full(self, what: str, size: int = 0) -> None:
        """Something could not be written; `size` is what it needs, in bytes."""
        if self._wanted is None:
            self._say(f"waiting for room in {self.store}: {what}")
        self._wanted = max(self._wanted or LEAST, size)
        self._next = time.monotonic() + RETRY_S

    def has_space(self) -> bool:
        """Whether the disk has space, as far as is known; looks at most once in two seconds."""
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
        self,
        action: Callable[[], T],
        *,
        give_up: Callable[[], bool],
        between: Callable[[], object],
        away: bool = True,
    ) -> T:
        """Do something with the database, again and again while it is away or its disk is full.

        Args:
            action: It leaves nothing half done, and may be done twice.
            give_up: Whether to raise instead of waiting on.
            between: Called before each further try, when there may be space.
            away: Whether to wait for a database that cannot be reached; false raises its error.

        Raises:
            DatabaseAwayError: The database could not be reached for too long.
            Exception: What `action` raised, where that was something else, `give_up` says so, or
                space did not help.
        """
        full = 0
        tried = False
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
                    self.note_disk_full(line_of(error))
                else:
                    raise
            else:
                self.outage.over()
                return found
            while not give_up() and not (self.outage.due() and self.has_space()):
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
        """Do something with the database now, for which :meth:`insist` waits for space.

        `otherwise` in an outage.

        Args:
            action: It leaves nothing half done, and may be done twice.
            otherwise: What is returned while the database cannot be reached.
            give_up: Whether to raise instead of waiting for space.
            between: Called before the first try after an outage, and before each after
                a full disk.
            broken: Called where the database turns out to be unreachable.

        Raises:
            DatabaseAwayError: The outage took too long.
        """
        if not self.outage.due():
            return otherwise
        try:
            if self.outage.now:
                between()
            return self.insist(
                action,
                give_up=give_up,
                between=between,
                away=False,
            )
        except Exception as error:
            if not is_away(error):
                raise
            broken()
            self.outage.seen(error)
            return otherwise


def needed(folder: Path, n_params: int | None) -> int:
    """Bytes that a training in `folder` may want for its next checkpoint.

    The largest it has, and as much again.

    Args:
        folder: With ``ckpt`` in it.
        n_params: Where it has none yet: weights, gradients' moments, and a reserve.
    """
    sizes = [path.stat().st_size for path in (folder / "ckpt").glob("*.ckpt") if path.is_file()]
    return max(LEAST, 2 * max(sizes, default=16 * (n_params or 0)))
