"""A file descriptor that somebody owns: it is closed once, and its number is forgotten then.

Imports nothing heavy.

The kernel gives the number of a closed descriptor to whatever is opened next: a second ``os.close``
of the same number closes a stranger's file, a database say, and what is opened after that is
written into it. So no number is kept in a variable beside its owner, and no error of ``close`` is
passed over: EBADF means that somebody closed what was not his.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Descriptor:
    """Owns a file descriptor.

    After a fork parent and child own one each, of the same number: each closes its own.

    Args:
        number: An open descriptor that nobody else owns.
    """

    def __init__(self, number: int) -> None:
        """Take it over."""
        self._number: int | None = number

    @classmethod
    def open(
        cls,
        path: str | Path,
        flags: int,
        mode: int = 0o644,
    ) -> Descriptor:
        """As `os.open`."""
        return cls(os.open(path, flags, mode))

    @classmethod
    def pipe(cls) -> tuple[Descriptor, Descriptor]:
        """The end of a pipe that is read, and the one that is written."""
        read, write = os.pipe()
        return cls(read), cls(write)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._number is None

    def fileno(self) -> int:
        """Its number, for a call that is made now.

        Raises:
            ValueError: It was closed.
        """
        if self._number is None:
            raise ValueError("the descriptor is closed")
        return self._number

    def detach(self) -> int:
        """Its number, for another owner: this one has none any more.

        Raises:
            ValueError: It was closed.
        """
        number = self.fileno()
        self._number = None
        return number

    def close(self) -> None:
        """Close it, unless that was done.

        Raises:
            OSError: What was written before could not be kept, for one. It is closed all the same.
        """
        number = self._number
        if number is None:
            return
        self._number = None  # first: also where close fails, the number is free
        os.close(number)

    def __enter__(self) -> Descriptor:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Close what was forgotten: it does not leak, and its number is nobody's meanwhile."""
        if getattr(self, "_number", None) is not None:
            self.close()
