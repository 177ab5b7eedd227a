"""The rounds of a shipper: which journal is looked at when, and what a failure means."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dlsearch.core.retry import Backoff
from dlsearch.core.text import line_of_error
from dlsearch.tracking import journal
from dlsearch.tracking.tail import Discovery, Tail, in_order

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("dlsearch.shipper")

#: Between rounds in which nothing was sent, and between attempts at one journal.
_BETWEEN_ROUNDS = Backoff(first_s=0.5, cap_s=10.0)
_BETWEEN_ATTEMPTS = Backoff(first_s=1.0, cap_s=10.0)


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
        wanted: Which journals it sends; all by default.
    """

    def __init__(
        self,
        store: Path,
        sender: Sends,
        wanted: Callable[[Path], bool] | None = None,
    ) -> None:
        """Look at nothing yet."""
        self._wanted = wanted
        self.error: str | None = None  #: what went wrong last, in one line
        self.store = Path(store).resolve()
        self.sender = sender
        self.rows = 0
        self.touched = set[Path]()
        self.delay = 0.0
        self.failing = False
        self._failed_rounds = 0
        self._tails: dict[Path, Tail] = {}
        self._live: dict[Path, Tail] = {}
        self._discovery = Discovery(self.store)

    @property
    def idle(self) -> bool:
        """Whether everything there was at the last full round has been sent."""
        return all(tail.seen >= 0 and tail.job is None for tail in self._live.values())

    def round(self, *, full: bool = False) -> int:
        """Send what is new in every journal.

        The number of rows sent. A failure is noted, never raised.
        """
        self._find_journals(full)
        sent = 0
        failed_in_a_row = 0
        self.failing = False
        for tail in sorted(self._live.values(), key=lambda tail: in_order(tail.path)):
            if tail.retry_at > time.monotonic() and not full:
                continue
            try:
                count = self._send_new_rows(tail)
            except Exception as error:
                self._note_failure(tail, error)
                failed_in_a_row += 1
                if failed_in_a_row > 1:  # not this journal: the server
                    break
                continue
            if count is not None:
                failed_in_a_row = 0
                sent += count
        self._failed_rounds = self._failed_rounds + 1 if self.failing and not sent else 0
        self.delay = _BETWEEN_ROUNDS.pause_after(self._failed_rounds)
        self.rows += sent
        return sent

    def _send_new_rows(self, tail: Tail) -> int | None:
        """Send what is new in one journal.

        Returns:
            The number of rows sent; None where the server was not asked, because nothing is new or
            the journal is gone.
        """
        try:
            if tail.job is None and tail.path.stat().st_size == tail.seen:
                self._settle_if_ended(tail)
                return None
            count = self.sender.advance(tail)
        except FileNotFoundError:  # the user removed it
            self._live.pop(tail.path, None)
            return None
        tail.failures = 0
        tail.retry_at = 0.0
        if count:
            self.touched.add(tail.path)
        self._settle_if_ended(tail)
        return count

    def verify(self, exists: Callable[[str], bool]) -> None:
        """Have everything sent again whose top-level run the server has lost.

        Its database may have been deleted, for example.
        """
        self._find_journals(full=True)
        lost = set()
        for tail in self._tails.values():
            if (
                tail.run_id is not None
                and self._find_parent(tail) is None
                and not exists(tail.run_id)
            ):
                lost.add(tail.path)
        for tail in self._tails.values():
            if tail.path in lost or self._find_parent(tail) in lost:
                tail.reset()
                self._live[tail.path] = tail

    def _find_parent(self, tail: Tail) -> Path | None:
        first = next((row for row in journal.rows(tail.path) if row["row"] == "open"), None)
        return journal.parent_of(self.store, first) if first else None

    def _find_journals(self, full: bool) -> None:
        new, looked_at_all = self._discovery.scan(full=full)
        for path in new:
            if self._wanted is not None and not self._wanted(path):
                continue
            tail = Tail.load(path, self.sender.server)
            self._tails[path] = tail
            self._live[path] = tail
        if looked_at_all:
            self._take_up_grown_journals()

    def _take_up_grown_journals(self) -> None:
        """Go on with journals that had ended: their study may have been resumed."""
        for path, tail in self._tails.items():
            if path in self._live:
                continue
            if _size_of(path) > tail.seen:
                self._live[path] = tail
                self._discovery.wake(path)

    def _settle_if_ended(self, tail: Tail) -> None:
        is_sent = tail.seen >= 0 and tail.job is None
        if not tail.ended or not is_sent or _size_of(tail.path) != tail.seen:
            return
        self._live.pop(tail.path, None)
        # a study's folder gets new trials: it is looked at always
        if tail.path.name != "journal.jsonl":
            self._discovery.settle(tail.path)

    def _note_failure(self, tail: Tail, error: Exception) -> None:
        self.failing = True
        self.error = line_of_error(error)
        tail.failures += 1
        pause_s = _BETWEEN_ATTEMPTS.pause_after(tail.failures)
        tail.retry_at = time.monotonic() + pause_s
        tail.seen = -1
        is_logged = tail.failures in (1, 10) or tail.failures % 100 == 0
        if is_logged:
            _log.warning(
                "%s: attempt %d: %s",
                tail.path,
                tail.failures,
                self.error,
            )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
