"""In all tests an ``os.close`` of what is closed already is an error, also where somebody passes over it.

The number may belong to a stranger's file by then: that it did not, this time, is luck.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

_close = os.close


def watch_close(on_stale: Callable[[int], None]) -> None:
    """Have `on_stale` called with each number that this process closes though nothing is open under it."""

    def close(fd: int) -> None:
        try:
            _close(fd)
        except OSError as error:
            if error.errno == errno.EBADF:
                on_stale(fd)
            raise

    os.close = close


def end_loudly(fd: int) -> None:
    """For processes that tests start: say where, and end at once, with exit status 97."""
    import sys
    import traceback

    traceback.print_stack(limit=12)
    sys.stderr.write(f"os.close({fd}): nothing is open under that number\n")
    sys.stderr.flush()
    os._exit(97)
