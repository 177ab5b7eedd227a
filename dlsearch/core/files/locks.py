"""Lock files of a store. The kernel releases a lock when its holder dies, however it dies.

There are two kinds. :func:`exclusive_lock` makes one of filelock's, for a lock that one process
holds and others ask for from time to time. :func:`file_lock` is our own call of ``flock``, for the
locks of a SQLite database; its docstring says why filelock cannot serve there.

Neither kind removes a lock file: a process that still waits for the removed file would hold a lock
that excludes nobody. Imports nothing heavy; filelock (0.1 s) is imported with the first lock.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.core.files.regular import open_to_append

if TYPE_CHECKING:
    from filelock import FileLock


def exclusive_lock(path: Path) -> FileLock:
    """A lock of filelock's that every thread of this process may release.

    Where a file system has no ``flock``, acquiring it raises OSError. By default filelock would
    take the mere existence of the file for the lock there, and a holder that is killed would never
    release it.

    Args:
        path: The lock file. It is made when the lock is acquired first, and never followed as a
            symbolic link.
    """
    from filelock import FileLock

    return FileLock(path, thread_local=False, fallback_to_soft=False)


@contextmanager
def file_lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file `path` within the body: alone, or together with all that share it.

    This is ``flock`` itself, not filelock, for three reasons:

    - filelock has no shared ``flock``. Its readers' lock is a SQLite database, which would not
      exclude earlier versions of dlsearch: they lock this same file with ``flock``.
    - It asks every 50 ms. Here the kernel wakes the next in line at once, and workers of a study
      wait for this lock at every claim.
    - A store may come from somebody else: a lock file with a second name is refused here.

    Args:
        path: The lock file; it is made where it is missing.
        shared: Whether other holders that share it are let in.

    Raises:
        OSError: The file cannot be opened or locked; see
            :func:`~dlsearch.core.files.regular.open_to_append`.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with open_to_append(path, mode=0o666) as opened:
        fcntl.flock(opened, operation)
        yield
