"""The heartbeat of a worker.

A thread that renews leases, whatever the worker itself is waiting for.

It has a connection of its own. All that it shares with the worker is a small table: which tokens
are held and how far their attempts are, and, the other way, which of them are held no longer. An
extension in C that keeps the interpreter's lock for longer than a lease keeps this thread from
running, too: nothing in this process can help that.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from dlsearch.core.errors import DatabaseAwayError
from dlsearch.core.files.disk import is_full
from dlsearch.storage.availability import Outage, is_away

if TYPE_CHECKING:
    from dlsearch.study.client import LeaseRenewer, Progress

INTERVAL_S = 1.0  # or a third of a lease, if that is less
_JOIN_S = 2.0


def waking_clock() -> float:
    """A clock that goes on while the machine sleeps, seconds."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time()


class Heartbeat:
    """Renews the leases of one worker; starts with the first one that it is given.

    Args:
        renewer: Renews leases, over a connection of its own.
        lease_s: How long an attempt lives without renewal, seconds.
    """

    def __init__(self, renewer: LeaseRenewer, lease_s: float) -> None:
        """Nothing is held yet."""
        self._renewer = renewer
        self._lease_s = lease_s
        self._lock = threading.Lock()  # of all that follows
        self._held: dict[str, Progress] = {}
        self._lost: set[str] = set()
        self._renewed = waking_clock()
        self._failure: Exception | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # -- the worker's side ------------------------------------------------------------------------
    def hold(self, token: str) -> None:
        """Renew the lease of an attempt that was just opened, from now on."""
        with self._lock:
            if not self._held:
                self._renewed = waking_clock()
            self._held.setdefault(token, {})
        if self._thread is None:
            thread = threading.Thread(
                target=self._run,
                name="heartbeat",
                daemon=True,
            )
            thread.start()
            self._thread = thread  # now: one that the system refused cannot be waited for

    def note(self, token: str, progress: Progress) -> None:
        """Say how far an attempt is that is held."""
        with self._lock:
            if token in self._held:
                self._held[token] = dict(progress)

    def let_go(self, token: str | None) -> None:
        """Renew a lease no longer."""
        with self._lock:
            self._held.pop(token or "", None)
            self._lost.discard(token or "")

    def lost(self) -> set[str]:
        """The tokens that are held here, and to the study are not any more.

        Raises:
            Exception: What ended the heartbeat.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            return set(self._lost)

    def is_stale(self) -> bool:
        """Whether leases may have run out without a word of it.

        This process, or its machine, stood still.
        """
        with self._lock:
            return bool(self._held) and waking_clock() - self._renewed > self._lease_s / 2

    def was_renewed(self) -> None:
        """Note that the worker has renewed all leases itself."""
        with self._lock:
            self._renewed = waking_clock()

    def stop(self) -> None:
        """End the thread; one that waits for the database is not waited for."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    # -- the thread's side ------------------------------------------------------------------------
    def _run(self) -> None:
        outage = Outage(math.inf, lambda _: None)  # the worker speaks of it, and gives up
        try:
            while not self._stopping.wait(min(INTERVAL_S, self._lease_s / 3)):
                if not outage.due():
                    continue
                try:
                    self._beat()
                except Exception as error:
                    if is_away(error) or isinstance(error, DatabaseAwayError):
                        outage.seen(error)
                    elif not is_full(error):  # a full disk may have space at the next beat
                        raise
                else:
                    outage.over()
        except Exception as error:
            with self._lock:
                self._failure = error
        finally:
            self._renewer.close()

    def _beat(self) -> None:
        with self._lock:
            held = dict(self._held)
        if not held:
            return
        alive = self._renewer.renew(held)
        with self._lock:
            self._renewed = waking_clock()
            self._lost |= {token for token in held if token not in alive and token in self._held}
