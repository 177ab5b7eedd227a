"""A disk that is full: how it shows, and whether there is room again. Imports nothing heavy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from dlsearch.core.text import text_of

#: A file grew beyond what the process may write, the disk is full, the quota is used up.
FULL = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)
#: What SQLite makes of them: only of ENOSPC does it say that the disk is full.
SQLITE = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
#: What a C library says that leaves it to others where the file system cannot allocate: glibc
#: writes instead.
_CANNOT_ALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_ZEROS = memoryview(bytes(1 << 16))


def is_full(error: BaseException | None) -> bool:
    """Whether `error`, or one that led to it, says that there was no room on a disk.

    SQLite and SQLAlchemy included.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        its = getattr(error, "orig", None) or error
        if getattr(its, "sqlite_errorname", None) in SQLITE or "No space left on device" in text_of(
            its
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def has_room(folder: Path, size: int) -> bool:
    """Whether `size` bytes can be written below `folder`: they are, and removed again.

    Quotas tell nobody else.
    """
    probe = folder / f".room.{os.getpid()}"
    try:
        with probe.open("wb") as file:
            _take_room(file.fileno(), max(1, size))
    except OSError as error:
        if not is_full(error):
            raise
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def _take_room(number: int, size: int) -> None:
    """Have the file system hold `size` bytes for an empty file.

    Raises:
        OSError: There is no room, for one.
    """
    allocate = getattr(os, "posix_fallocate", None)  # macOS has none
    if allocate is not None:
        try:
            allocate(number, 0, size)
        except OSError as error:
            if error.errno not in _CANNOT_ALLOCATE:
                raise
        else:
            return
    left = size
    while left > 0:
        left -= os.write(number, _ZEROS[:left])
    # a file system that allocates late, or on another machine, reports a full disk only now
    os.fsync(number)
