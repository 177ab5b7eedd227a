"""Waiting for room: a worker whose disk is full claims nothing, says so once, and goes on when there is room."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dlsearch.tracking.full import has_room, is_full

RETRY_S = 2.0
TRIES = 20  # where there is room, but it fails nevertheless
LEAST = 1 << 20  # bytes; a log, a journal, and rows of the database

T = TypeVar("T")


class Room:
    """The disk that a worker writes to.

    Args:
        store: Where.
        say: Tells the user.
    """

    def __init__(self, store: Path, say: Callable[[str], object] | None = None) -> None:
        """There is room until something has failed."""
        self.store, self._say = store, say or _to_stderr
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

    def insist(self, action: Callable[[], T], *, give_up: Callable[[], bool], between: Callable[[], object]) -> T:
        """Do something with the database, again and again while its disk is full.

        Args:
            action: It leaves nothing half done.
            give_up: Whether to raise instead of waiting on.
            between: Called before each further try, when there may be room.

        Raises:
            Exception: What `action` raised, where that was something else, `give_up` says so, or room did not help.
        """
        tried = 0
        while True:
            try:
                if tried:
                    between()
                return action()
            except Exception as error:
                tried += 1
                if not is_full(error) or give_up() or tried >= TRIES:
                    raise
                self.missing(_line(error))
                while not give_up() and not self.there():
                    time.sleep(0.1)


def needed(folder: Path, n_params: int | None) -> int:
    """Bytes that a training in `folder` may want for its next checkpoint: the largest it has, and as much again.

    Args:
        folder: With ``ckpt`` in it.
        n_params: Where it has none yet: weights, gradients' moments, and room to spare.
    """
    sizes = [path.stat().st_size for path in (folder / "ckpt").glob("*.ckpt") if path.is_file()]
    return max(LEAST, 2 * max(sizes, default=16 * (n_params or 0)))


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"dlsearch: {line}\n")
    sys.stderr.flush()


def _line(error: BaseException) -> str:
    orig = getattr(error, "orig", None) or error
    return (str(orig).splitlines() or [type(error).__name__])[0]
