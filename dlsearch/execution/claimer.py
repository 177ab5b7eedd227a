"""Claiming beside supervising: a worker's claims are made by a thread of their own, one at a time.

A claim takes as long as its sampler does. Meanwhile the worker listens to the trials that run, and
its heartbeat renews the lease of the claim. A sampler that does not return keeps nobody from
leaving: its claim is taken back by its token.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlsearch.execution.heartbeat import Heartbeat
    from dlsearch.execution.resources.slots import Slot
    from dlsearch.storage.studies import Budget
    from dlsearch.study.client import ClaimRequest, StudyClient
    from dlsearch.study.models import Claim

_JOIN_S = 0.5


class _AbandonedError(Exception):
    """The worker leaves, and wants no claim any more."""


@dataclass(frozen=True)
class Wanted:
    """A slot that is free.

    Args:
        slot: Which.
        request: What is asked for it.
    """

    slot: Slot
    request: ClaimRequest


@dataclass(frozen=True)
class Answer:
    """What came of a claim.

    Args:
        wanted: The slot that it was made for.
        claim: What was claimed; None where there is nothing to claim now.
        error: Why it is not known.
        budget: The study's, as it was then.
    """

    wanted: Wanted
    claim: Claim | None = None
    error: Exception | None = None
    budget: Budget | None = None


class Claimer:
    """Claims for one worker.

    Args:
        client: The worker's own; the thread opens another, with a connection of its own.
        heartbeat: The worker's.
    """

    def __init__(self, client: StudyClient, heartbeat: Heartbeat) -> None:
        """Nothing is claimed, and nothing to be closed, before :meth:`start`."""
        self._of_worker = client
        self._heartbeat = heartbeat
        self._client: StudyClient | None = None  # the thread's
        self._wanted: queue.SimpleQueue[Wanted | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of all that follows
        self._busy = False
        self._abandoned = False
        self._token: str | None = None
        self._answer: Answer | None = None
        self._thread: threading.Thread | None = None
        self._bell: socket.socket | None = None

    # -- the worker's side ------------------------------------------------------------------------
    def start(self) -> None:
        """Start the thread."""
        bell, ringing = socket.socketpair()
        for end in (bell, ringing):
            end.setblocking(False)
        thread = threading.Thread(
            target=self._run,
            args=(ringing,),
            name="claimer",
            daemon=True,
        )
        try:
            thread.start()
        except BaseException:  # the system has no more: then there is nothing to end either
            bell.close()
            ringing.close()
            raise
        self._bell = bell
        self._thread = thread

    @property
    def started(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def fileno(self) -> int:
        """For selectors: readable when there is an answer."""
        assert self._bell is not None
        return self._bell.fileno()

    @property
    def busy(self) -> bool:
        """Whether a claim is being made."""
        with self._lock:
            return self._busy

    @property
    def token(self) -> str | None:
        """Of the attempt whose parameters are being proposed."""
        with self._lock:
            return self._token

    def unheard(self) -> set[str]:
        """Tokens of attempts that the database may have although nothing came of them."""
        return set() if self._client is None else self._client.unconfirmed()

    def ask(self, wanted: Wanted) -> None:
        """Have a claim made; the answer comes later."""
        with self._lock:
            assert not self._busy
            self._busy = True
        self._wanted.put(wanted)

    def take(self) -> Answer | None:
        """The answer, once; None where there is none."""
        if self._bell is not None:
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(64)
        with self._lock:
            answer = self._answer
            self._answer = None
        return answer

    def abandon(self) -> None:
        """Want nothing any more.

        What is still claimed is to be given back, here or by the thread.
        """
        with self._lock:
            self._abandoned = True

    def close(self) -> None:
        """End the thread; one whose sampler does not return is left to itself."""
        self.abandon()
        self._wanted.put(None)
        if self._thread is not None and self._bell is not None:
            self._thread.join(_JOIN_S)
            self._bell.close()

    # -- the thread's side ------------------------------------------------------------------------
    def _run(self, ringing: socket.socket) -> None:
        try:
            while (wanted := self._wanted.get()) is not None:
                answer = self._claim(wanted)
                with self._lock:
                    self._answer = answer
                    self._token = None
                    self._busy = False
                # nobody listens any more, or has heard the last ring
                with contextlib.suppress(OSError):
                    ringing.send(b"!")
        finally:
            ringing.close()
            if self._client is not None:
                self._client.close()

    def _claim(self, wanted: Wanted) -> Answer:
        claim: Claim | None = None
        try:
            if self._client is None:
                self._client = self._of_worker.separate()
            client = self._client
            claim = client.claim(wanted.request, watcher=self)
        except _AbandonedError:
            return Answer(wanted)
        except Exception as error:
            return Answer(wanted, error=error)
        finally:
            if claim is None:
                self._heartbeat.let_go(self.token)
            else:
                self._heartbeat.hold(claim.token)
        if claim is not None and self.is_unwanted():
            self._give_back(client, claim)
        return Answer(wanted, claim, budget=client.known_budget())

    def _give_back(self, client: StudyClient, claim: Claim) -> None:
        """Release what came too late.

        The worker may have left, and its process may live on and seem to hold it.
        """
        # else the thread that takes the answer does it, or the end of this process
        with contextlib.suppress(Exception):
            client.release(claim)
            self._heartbeat.let_go(claim.token)

    def opened(self, token: str) -> None:
        """An attempt is open, and its parameters are being proposed."""
        with self._lock:
            before = self._token
            self._token = token
            abandoned = self._abandoned
        self._heartbeat.let_go(before)
        if abandoned:
            raise _AbandonedError
        self._heartbeat.hold(token)

    def is_unwanted(self) -> bool:
        """Whether the worker leaves, and wants no claim any more."""
        with self._lock:
            return self._abandoned
