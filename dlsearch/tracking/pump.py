"""The rounds of a shipper: which journal is looked at when, and what happens when the server does not answer."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dlsearch.tracking import journal
from dlsearch.tracking.tail import Discovery, Tail, in_order

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("dlsearch.shipper")

_BACKOFF_S, _BACKOFF_MAX_S = 0.5, 10.0


class Sends(Protocol):
    """What a pump needs of a sender."""

    server: str

    def advance(self, tail: Tail) -> int:
        """Send what is new; the number of rows sent."""


class Pump:
    """Goes round the journals of a store.

    Args:
        store: The store.
        sender: Sends one journal's rows; raises when the server does not take them.
    """

    def __init__(self, store: Path, sender: Sends) -> None:
        """Look at nothing yet."""
        self.store, self.sender = Path(store).resolve(), sender
        self.rows, self.touched = 0, set[Path]()
        self.delay, self.failing = 0.0, False
        self._tails: dict[Path, Tail] = {}
        self._live: dict[Path, Tail] = {}
        self._discovery = Discovery(self.store)

    @property
    def idle(self) -> bool:
        """Whether everything there was at the last full round has been sent."""
        return all(tail.seen >= 0 and tail.job is None for tail in self._live.values())

    def round(self, *, full: bool = False) -> int:
        """Send what is new in every journal; the number of rows sent. A failure is noted, never raised."""
        self._find(full)
        sent, failed_in_a_row = 0, 0
        self.failing = False
        for tail in sorted(self._live.values(), key=lambda tail: in_order(tail.path)):
            if tail.retry_at > time.monotonic() and not full:
                continue
            try:
                if tail.job is None and tail.path.stat().st_size == tail.seen:
                    self._settle(tail)
                    continue
                count = self.sender.advance(tail)
            except FileNotFoundError:  # the user removed it
                self._live.pop(tail.path, None)
                continue
            except Exception as error:
                self._note_failure(tail, error)
                failed_in_a_row += 1
                if failed_in_a_row > 1:  # not this journal: the server
                    break
                continue
            failed_in_a_row, tail.failures, tail.retry_at = 0, 0, 0.0
            if count:
                sent += count
                self.touched.add(tail.path)
            self._settle(tail)
        self.delay = min(max(2 * self.delay, _BACKOFF_S), _BACKOFF_MAX_S) if self.failing and not sent else 0.0
        self.rows += sent
        return sent

    def verify(self, exists: Callable[[str], bool]) -> None:
        """Have everything sent again whose top-level run the server has lost (its database was deleted, say)."""
        self._find(full=True)
        lost = set()
        for tail in self._tails.values():
            if tail.run_id is not None and self._parent(tail) is None and not exists(tail.run_id):
                lost.add(tail.path)
        for tail in self._tails.values():
            if tail.path in lost or self._parent(tail) in lost:
                tail.reset()
                self._live[tail.path] = tail

    def _parent(self, tail: Tail) -> Path | None:
        first = next((row for row in journal.rows(tail.path) if row["row"] == "open"), None)
        return self.store / first["parent"] if first and first["parent"] else None

    def _find(self, full: bool) -> None:
        new, looked_at_all = self._discovery.scan(full=full)
        for path in new:
            tail = Tail.load(path, self.sender.server)
            self._tails[path] = self._live[path] = tail
        if looked_at_all:
            for path, tail in self._tails.items():  # a study that ended may have been taken up again
                if path not in self._live and _size(path) > tail.seen:
                    self._live[path] = tail
                    self._discovery.wake(path)

    def _settle(self, tail: Tail) -> None:
        if tail.ended and tail.job is None and tail.seen >= 0 and _size(tail.path) == tail.seen:
            self._live.pop(tail.path, None)
            if tail.path.name != "journal.jsonl":  # a study's folder gets new trials: it is looked at always
                self._discovery.settle(tail.path)

    def _note_failure(self, tail: Tail, error: Exception) -> None:
        self.failing = True
        tail.failures += 1
        tail.retry_at = time.monotonic() + min(_BACKOFF_S * 2 ** min(tail.failures, 6), _BACKOFF_MAX_S)
        tail.seen = -1
        if tail.failures in (1, 10) or tail.failures % 100 == 0:
            line = (str(error).splitlines() or [""])[0][:500]
            _log.warning("%s: attempt %d: %s: %s", tail.path, tail.failures, type(error).__name__, line)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
