"""A worker: it serves one study with the slots of one machine.

Every trial has a process of its own, which it supervises.

It knows no torch. This thread waits for messages and ends of processes; between them it recovers
what dead workers held. Two other threads have connections of their own: one claims, which takes as
long as a sampler does, and one renews leases. While the database cannot be reached, trials go on:
pruners' verdicts are "go on", and reports and ends are kept until they can be written.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlsearch.core.files.disk import is_full
from dlsearch.execution.claiming import SlotFiller
from dlsearch.execution.closing import Closer
from dlsearch.execution.recovery import Recovery
from dlsearch.execution.service import Service, is_outage
from dlsearch.execution.supervision import Supervisor
from dlsearch.storage.attempts import Holder
from dlsearch.storage.availability import PATIENCE_S
from dlsearch.study.client import ClaimRequest

if TYPE_CHECKING:
    from dlsearch.execution.processes.forkserver import ForkServer
    from dlsearch.execution.processes.warm_server import WarmServer
    from dlsearch.execution.resources.capacity import Cards
    from dlsearch.execution.resources.slots import Slot
    from dlsearch.execution.study_files import StudyFiles
    from dlsearch.study.client import StudyClient

TICK_SECONDS = 0.5
POLL_SECONDS = 0.02
#: Between two looks at what has to be written or reaped.
UPKEEP_SECONDS = 1.0
#: Between SIGTERM and SIGKILL.
GRACE_SECONDS = 6.0
#: After SIGTERM a database that cannot be reached is waited for so long.
SPOOL_AFTER_SECONDS = 2.0


@dataclass(frozen=True)
class WorkerSettings:
    """Limits of one worker's own.

    Args:
        deadline: It claims no trial after this time (``time.time()``), nor after the study's.
        target: It claims none once the objective has reached this, or the study's.
        trial_timeout_s: How long an attempt may take here, where the study has no nearer limit.
        owner: The process whose death ends the service; None where a user's shell may well end
            before.
        patience_s: How long an outage may last, seconds.
    """

    deadline: float | None = None
    target: float | None = None
    trial_timeout_s: float | None = None
    owner: int | None = None
    patience_s: float = PATIENCE_S


class Worker:
    """One machine's service to one study.

    Args:
        client: The study.
        files: What is written about it here.
        slots: This machine's.
        servers: Forks the processes of trials.
        settings: Its own limits.
        cards: How many of the slots of each GPU are open; None opens all.
    """

    def __init__(
        self,
        client: StudyClient,
        files: StudyFiles,
        slots: list[Slot],
        servers: WarmServer,
        *,
        settings: WorkerSettings,
        cards: Cards | None = None,
    ) -> None:
        """Nothing is claimed before :meth:`run`."""
        host = socket.gethostname()
        self.id = f"{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.slots = slots
        self.service = Service(client, files, settings.patience_s)
        self.servers = servers
        self._owner = settings.owner
        self._selector = selectors.DefaultSelector()
        self._closer = Closer(self.service)
        self._recovery = Recovery(self.service, self._closer.journals)
        self.supervisor = Supervisor(
            self.service,
            self._selector,
            self._closer,
            server=servers,
            trial_timeout_s=settings.trial_timeout_s,
            cards=cards,
        )
        holder = Holder(
            self.id,
            host,
            os.getpid(),
            0,
            "",
        )
        self._filler = SlotFiller(
            self.service,
            self._selector,
            slots,
            limits=ClaimRequest(
                holder,
                deadline=settings.deadline,
                target=settings.target,
            ),
            cards=cards,
            start=self.supervisor.start,
        )
        self._closer.on_closed = self._filler.attempt_closed
        self._last_write = 0.0
        self._last_reap = 0.0

    @property
    def server(self) -> ForkServer | None:
        """The fork server that serves it now."""
        return self.servers.current

    def stop(self, *_: Any) -> None:
        """Give all trials back and end; a signal handler."""
        self.service.stopping = True

    def run(self) -> bool:
        """Serve until the budget is spent and nothing is left to wait for.

        False when stopped before.

        Raises:
            DatabaseAwayError: The database could not be reached for too long. Trials were given
                back, as far as this store goes.
        """
        try:
            return self._serve()
        except BaseException as error:
            self._abort(error)
            if self.service.stopping and (is_outage(error) or is_full(error)):
                return False
            raise
        finally:
            self.end_threads()

    def end_threads(self) -> None:
        """End what claims and what renews leases."""
        self._filler.close()
        self.service.heartbeat.stop()

    # -- the main loop ----------------------------------------------------------------------------
    def _serve(self) -> bool:
        """Claim and supervise trials until the study's budget is spent or a stop is requested."""
        self.supervisor.is_warm(len(self.slots))  # which has the servers start meanwhile
        self.service.insist(self._recovery.begin)
        while not self._stop_requested():
            if not self._has_work():
                self._closer.close_round()
                return True
            self._handle_events(self._seconds_to_wait())
        self._shut_down()
        return False

    def _seconds_to_wait(self) -> float:
        """For events: nothing else tells when a server that forks trials is ready."""
        if self.servers.is_importing:
            return POLL_SECONDS
        return TICK_SECONDS if self.service.running else TICK_SECONDS / 2

    def _stop_requested(self) -> bool:
        if self._owner is not None and os.getppid() != self._owner:  # the driver died
            self.service.stopping = True
        return self.service.stopping

    def _has_work(self) -> bool:
        """Start trials in free slots; whether anything is left to do or to wait for."""
        if not self.supervisor.is_warm(len(self.slots)):
            return True
        if self._filler.fill_free_slots():
            return True
        return bool(self.service.running) or bool(self._closer.journals.left)

    def _shut_down(self) -> None:
        """Ask all trials to stop, wait for their checkpoints, then kill what is left.

        Ends and claims that the database did not take back within ``SPOOL_AFTER_SECONDS`` are
        spooled to the store; the next worker of it writes them.
        """
        asked_at = time.monotonic()
        running = self.service.running
        self.service.signal_all(signal.SIGTERM)
        self._filler.abandon()
        while True:
            self._handle_events(TICK_SECONDS / 2)
            if not running and self._filler.has_given_claim_back():
                return
            waited_s = time.monotonic() - asked_at
            if any(each.end is None for each in running.values()):
                if waited_s > GRACE_SECONDS:
                    self.service.signal_all(signal.SIGKILL)
            elif waited_s > SPOOL_AFTER_SECONDS:
                self._spool_unwritten()
                return

    def _handle_events(self, timeout_s: float) -> None:
        """Wait for messages and ends of processes; then see to leases, deadlines and the dead."""
        self.supervisor.wait(timeout_s)
        self.supervisor.kill_overdue()
        self._keep_leases()
        now = time.monotonic()
        if now - self._last_write > UPKEEP_SECONDS:
            self._last_write = now
            self._closer.journals.write()
        self._closer.close_ended()
        if now - self._last_reap > UPKEEP_SECONDS:
            self._last_reap = now
            # a signal may come meanwhile, and is not taken back
            if self.service.try_now(self.service.client.stop_requested, False):
                self.service.stopping = True
            self.service.try_now(self._recovery.reap, None)

    def _keep_leases(self) -> None:
        service = self.service
        for running in service.running.values():
            service.heartbeat.note(running.claim.token, running.progress)
        if service.heartbeat.is_stale():  # it may have no connection where this thread has one
            service.try_now(service.renew_leases, None)
        service.kill_fenced(service.heartbeat.lost())

    # -- when something ends it -------------------------------------------------------------------
    def _abort(self, error: BaseException) -> None:
        """Kill all trials and give them back, as far as database and store can be written."""
        self.service.signal_all(signal.SIGKILL)
        if is_outage(error):
            self._spool_unwritten()
        # the database may be what is gone: then the leases run out
        with contextlib.suppress(Exception):
            for running in self.service.running.values():
                self.service.client.release(running.claim)
            self._filler.abandon()
            self._filler.has_given_claim_back()

    def _spool_unwritten(self) -> None:
        """Keep in the store what could not be written to the study."""
        running = self.service.running
        with contextlib.suppress(OSError):  # no space either: then the leases run out
            self._filler.keep_claim()
            self.service.pending.keep_all(running)
        running.clear()
