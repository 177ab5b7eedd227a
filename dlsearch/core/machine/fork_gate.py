"""A gate between forks and libraries that hold a lock while Python runs another thread.

A child that is forked while another thread is inside SQLite begins with SQLite's locks taken, by a
thread that it does not have: its first connection waits for ever. So whoever calls such a library
does it :func:`inside` the gate, and a fork of this process waits until nobody is.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

#: How long a fork waits. A call that takes longer is itself waiting for another process, and holds
#: no lock of the library meanwhile.
PATIENCE_S = 2.0


class ForkGate:
    """Lets any number of threads in, and forks while nobody is inside.

    A thread may go in again: a finalizer, which runs anywhere, may close a connection.
    """

    def __init__(self) -> None:
        """Nobody is inside."""
        self._condition = threading.Condition(threading.RLock())
        #: How often each thread went in, and has not come out.
        self._inside: Counter[int] = Counter()
        #: The thread that forks.
        self._closed_by: int | None = None

    def enter(self) -> None:
        """Go in; waits while another thread forks."""
        thread = threading.get_ident()
        with self._condition:
            while self._is_closed_to(thread):
                self._condition.wait()
            self._inside[thread] += 1

    def leave(self) -> None:
        """Come out."""
        thread = threading.get_ident()
        with self._condition:
            self._inside[thread] -= 1
            if self._inside[thread] == 0:
                del self._inside[thread]
                self._condition.notify_all()

    def close(self) -> None:
        """Before a fork: let nobody in, and wait until all others are out."""
        deadline = time.monotonic() + PATIENCE_S
        thread = threading.get_ident()
        with self._condition:
            while self._is_closed_to(thread):
                self._condition.wait()
            self._closed_by = thread
            while self._inside.keys() - {thread}:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._condition.wait(remaining):
                    break

    def _is_closed_to(self, thread: int) -> bool:
        is_closed = self._closed_by not in (None, thread)
        return is_closed and thread not in self._inside

    def open(self) -> None:
        """After a fork, in the parent."""
        with self._condition:
            self._closed_by = None
            self._condition.notify_all()

    def reset(self) -> None:
        """After a fork, in the child, which has this thread alone."""
        self._condition = threading.Condition(threading.RLock())
        self._inside = Counter()
        self._closed_by = None


_GATE = ForkGate()
os.register_at_fork(
    before=_GATE.close,
    after_in_parent=_GATE.open,
    after_in_child=_GATE.reset,
)


@contextmanager
def inside() -> Iterator[None]:
    """Keep forks of this process waiting."""
    _GATE.enter()
    try:
        yield
    finally:
        _GATE.leave()


enter = _GATE.enter
leave = _GATE.leave
