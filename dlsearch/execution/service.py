"""What the parts of a worker share: the study, its files, the leases, and what runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from dlsearch.core.errors import DatabaseAwayError
from dlsearch.core.files.disk import is_full
from dlsearch.core.files.inside import OutsideError, plain
from dlsearch.core.text import clean_line, traceback_of
from dlsearch.execution import run_journals
from dlsearch.execution.backpressure import BackPressure
from dlsearch.execution.heartbeat import Heartbeat
from dlsearch.execution.outcome import FENCED
from dlsearch.execution.pending_results import PendingResults
from dlsearch.storage.availability import is_away, to_stderr
from dlsearch.study.states import AttemptKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dlsearch.execution.attempt import Running
    from dlsearch.execution.resources.slots import Slot
    from dlsearch.execution.study_files import StudyFiles
    from dlsearch.study.client import StudyClient
    from dlsearch.study.models import Claim

    T = TypeVar("T")


class Service:
    """One machine's service to one study.

    Args:
        client: The study.
        files: What is written about it here.
        patience_s: How long an outage may last, seconds.
    """

    def __init__(
        self,
        client: StudyClient,
        files: StudyFiles,
        patience_s: float,
    ) -> None:
        """Nothing runs yet."""
        self.client = client
        self.files = files
        self.patience_s = patience_s
        self.facts = client.facts()
        self.store = files.store
        self.pending = PendingResults(self.store, self.facts.name)
        self.running: dict[int, Running] = {}  # by slot
        self.stopping = False
        self.back_pressure = BackPressure(self.store, patience_s=patience_s)
        self.heartbeat = Heartbeat(client.lease_renewer(), self.facts.lease_s)

    # -- the database -----------------------------------------------------------------------------
    def insist(self, action: Callable[[], T]) -> T:
        """Do something with the database, once it can be reached and its disk has space."""
        return self.back_pressure.insist(
            action,
            give_up=lambda: self.stopping,
            between=self.renew_leases,
        )

    def try_now(self, action: Callable[[], T], otherwise: T) -> T:
        """Do something with the database now.

        `otherwise` is returned while it cannot be reached.
        """
        return self.back_pressure.at_once(
            action,
            otherwise,
            give_up=lambda: self.stopping,
            between=self.renew_leases,
            broken=self.client.note_outage,
        )

    def renew_leases(self) -> None:
        """Extend this worker's leases now: the heartbeat may not have had the time for it."""
        held = {running.claim.token: running.progress for running in self.running.values()}
        alive = self.client.renew(held)
        self.heartbeat.was_renewed()
        self.kill_fenced(held.keys() - alive)

    # -- what runs --------------------------------------------------------------------------------
    def sharing_device_of(self, slot: Slot) -> list[Running]:
        """The attempts that run on the device of a slot."""
        return [running for running in self.running.values() if running.slot.device == slot.device]

    def signal_all(self, number: int) -> None:
        """Send a signal to the process of every attempt."""
        for running in self.running.values():
            running.child.signal(number)

    def kill_fenced(self, tokens: set[str]) -> None:
        """Kill the attempts that others took for lost: their trials are others' now."""
        for running in self.running.values():
            is_fenced = running.claim.token in tokens
            if is_fenced and running.killed_for is not FENCED and running.end is None:
                running.kill(FENCED)
                running.result = None

    def folder_of(self, claim: Claim) -> Path:
        """Where a claim's files lie."""
        return self.store / run_journals.folder_of(self.facts.name, claim)

    def note_failure(self, claim: Claim, why: str, error: Exception) -> None:
        """Say what befell an attempt, and put the traceback into its log."""
        folder = self.folder_of(claim)
        if claim.kind == AttemptKind.TRIAL:
            name = f"trial {claim.number}"
        else:
            name = f"{claim.kind} {folder.name}"
        to_stderr(f"{name}: {clean_line(why)}")
        with contextlib.suppress(OSError, OutsideError):
            log = plain(self.store, folder) / f"worker.a{claim.attempt}.log"
            with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(traceback_of(error))


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the database cannot be reached."""
    return isinstance(error, DatabaseAwayError) or is_away(error)


def is_of_one_attempt(error: BaseException) -> bool:
    """Whether an error says nothing of the database or the disk, which all attempts need."""
    return not (is_outage(error) or is_full(error))
