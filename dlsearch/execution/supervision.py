"""The processes of attempts.

They are started, listened to, killed at their deadline, and their ends judged.

Everything that a trial says arrives on a socket, every end of a process on a pipe, so that one
thread waits for all of them.
"""

from __future__ import annotations

import selectors
import signal
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dlsearch.core.files.disk import is_full
from dlsearch.core.files.inside import plain
from dlsearch.core.text import line_of_error
from dlsearch.execution.attempt import Running, attempts_before, judge
from dlsearch.execution.conversation import Conversation
from dlsearch.execution.messages import TrialPayload
from dlsearch.execution.outcome import TIMEOUT, KernelKills, failure
from dlsearch.execution.processes.forkserver import ServerGoneError
from dlsearch.execution.service import Service, is_of_one_attempt, is_outage
from dlsearch.study.models import Ending
from dlsearch.study.states import AttemptKind, AttemptState, FailureReason

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.execution.closing import Closer
    from dlsearch.execution.messages import ScoringPayload
    from dlsearch.execution.processes.forkserver import Child
    from dlsearch.execution.processes.warm_server import WarmServer
    from dlsearch.execution.resources.capacity import Cards
    from dlsearch.execution.resources.slots import Slot
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.models import Claim

#: What the selector says of an attempt.
MESSAGE = "message"
EXIT = "exit"


class Supervisor:
    """Runs attempts in processes of their own.

    Args:
        service: What the parts of the worker share.
        selector: Waits for messages and ends.
        closer: Records ends.
        server: Forks the processes.
        trial_timeout_s: How long an attempt may take here, where the study has no nearer limit.
        cards: The GPUs of this machine that are shared as far as memory goes; None without.
    """

    def __init__(
        self,
        service: Service,
        selector: selectors.BaseSelector,
        closer: Closer,
        *,
        server: WarmServer,
        trial_timeout_s: float | None,
        cards: Cards | None,
    ) -> None:
        """Nothing runs yet."""
        self._service = service
        self._selector = selector
        self._closer = closer
        self._server = server
        self._trial_timeout_s = trial_timeout_s
        self._cards = cards
        self._conversation = Conversation(service)
        self._kernel_kills = KernelKills()
        self._unstarted: set[tuple[str, int]] = set()  # what the system refused to start, in a row

    def is_warm(self, slot_count: int) -> bool:
        """Whether claims may be made: while the fork server imports, their leases would run out."""
        if len(self._service.running) < slot_count:
            self._server.replace_dead()
        return not self._server.is_importing

    # -- starting ---------------------------------------------------------------------------------
    def start(self, claim: Claim, holder: Holder, slot: Slot) -> bool:
        """Start a claim's process.

        False where that failed, and the trial was given back or ended.
        """
        service = self._service
        folder = service.folder_of(claim)
        journal: Path | None = None
        is_prepared = False
        try:
            plain(service.store, folder)
            folder.mkdir(parents=True, exist_ok=True)
            before = service.insist(partial(attempts_before, service.client, claim))
            payload = service.insist(partial(service.files.prepare, claim, before))
            journal = service.files.begin_journal(claim, holder)
            payload = replace(payload, threads=slot.threads)
            if isinstance(payload, TrialPayload):
                payload = replace(payload, journal=str(journal))
            is_prepared = True
            child = self._spawn(
                payload,
                slot,
                folder / f"worker.a{claim.attempt}.log",
            )
        except BaseException as error:
            self._give_back(claim, error, journal, is_prepared=is_prepared)
            return False
        self._unstarted.clear()
        running = Running(
            claim,
            slot,
            child,
            journal,
            time.monotonic(),
            before=before,
        )
        self._watch(running)
        return True

    def _spawn(
        self,
        payload: TrialPayload | ScoringPayload,
        slot: Slot,
        log: Path,
    ) -> Child:
        function = "run_trial" if isinstance(payload, TrialPayload) else "run_test"
        return self._server.spawn(
            f"dlsearch.execution.trial_main:{function}",
            payload.to_json(),
            env=slot.env,
            log=log,
            config=payload.cfg if isinstance(payload, TrialPayload) else None,
        )

    def _watch(self, running: Running) -> None:
        """Count an attempt among those that run, and listen to its process."""
        service = self._service
        running.timeout_s = self._limit_of(running.claim)
        running.progress = {"epoch": 0, "max_epochs": service.facts.max_epochs, "value": None}
        service.running[running.slot.index] = running
        together = service.sharing_device_of(running.slot)
        for each in together:
            each.sharing = max(each.sharing, len(together))
        child = running.child
        self._selector.register(
            child.channel,
            selectors.EVENT_READ,
            (running, MESSAGE),
        )
        self._selector.register(
            child.status_fd,
            selectors.EVENT_READ,
            (running, EXIT),
        )

    def _limit_of(self, claim: Claim) -> float | None:
        """Seconds that the claim's process may take; a scoring has no limit."""
        if claim.kind == AttemptKind.TEST:
            return None
        limits = [claim.trial_timeout_s, self._trial_timeout_s]
        known = [limit for limit in limits if limit is not None]
        return min(known, default=None)

    def _give_back(
        self,
        claim: Claim,
        error: BaseException,
        journal: Path | None,
        *,
        is_prepared: bool,
    ) -> None:
        """Give an attempt back that could not be started.

        Raises:
            BaseException: `error`, where it concerns more than this attempt.
        """
        service = self._service
        reason = FailureReason.DISK if is_full(error) else FailureReason.INTERRUPTED
        words = line_of_error(error)
        if is_outage(error):
            interrupted = Ending(AttemptState.INTERRUPTED, FailureReason.INTERRUPTED)
            service.pending.keep(claim, interrupted)
            raise error
        ended = self._end_unstartable(claim, error, is_prepared=is_prepared)
        if ended is not None:
            service.heartbeat.let_go(claim.token)
            self._closer.leave_journal(journal, claim, ended)
            return
        service.insist(
            partial(
                service.client.release,
                claim,
                reason,
                error=words,
            )
        )
        service.heartbeat.let_go(claim.token)
        if reason is FailureReason.DISK:
            service.back_pressure.note_disk_full(str(error))
        elif not isinstance(error, ServerGoneError) or self._server.has_died_too_often:
            raise error
        self._closer.leave_journal(
            journal,
            claim,
            Ending(AttemptState.INTERRUPTED, reason),
        )

    def _end_unstartable(
        self,
        claim: Claim,
        error: BaseException,
        *,
        is_prepared: bool,
    ) -> Ending | None:
        """The end of an attempt that cannot be started by its own fault, once it is recorded.

        Else None.

        A config that cannot be put together would not be the next time either: it has failed. A
        folder that cannot be written may be this machine's problem: the attempt counts as lost, and
        where the next trial has the same, it is. So is a process that the system refuses.
        """
        if not isinstance(error, Exception) or not is_of_one_attempt(error):
            return None
        is_of_system = isinstance(error, OSError)
        if is_of_system:
            self._unstarted.add((claim.kind, claim.number))
            if is_prepared or len(self._unstarted) > 1:
                return None
        why = f"it could not be started: {line_of_error(error)}"
        return self._closer.give_up(
            claim,
            why,
            error,
            for_good=not is_of_system,
        )

    # -- listening --------------------------------------------------------------------------------
    def wait(self, timeout_s: float) -> None:
        """Wait for something to happen, and handle it: all messages first, then the ends."""
        service = self._service
        ready = [key.data for key, _ in self._selector.select(timeout_s)]
        if ready and service.heartbeat.is_stale():
            # this process stood still for a while: who is heard now may be lost already
            service.try_now(service.renew_leases, None)
        service.kill_fenced(service.heartbeat.lost())
        for running, what in ready:
            if what == MESSAGE:
                self._listen(running)
        for running, what in ready:
            if what == EXIT:
                self._end(running)

    def _listen(self, running: Running) -> None:
        while True:
            if not self._conversation.hear(running):
                self._selector.unregister(running.child.channel)
                return
            if not running.child.channel.pending:
                return

    # -- ending -----------------------------------------------------------------------------------
    def kill_overdue(self) -> None:
        """Kill the attempts that have reached their deadline."""
        now = time.monotonic()
        for running in self._service.running.values():
            if running.timeout_s is None or running.killed_for or running.end is not None:
                continue
            if now > running.started + running.timeout_s:
                running.kill(TIMEOUT)

    def _end(self, running: Running) -> None:
        channel = running.child.channel
        if channel in self._selector.get_map():
            is_heard = True
            while is_heard and running.result is None:
                is_heard = self._conversation.hear(running)
            self._selector.unregister(channel)
        self._selector.unregister(running.child.status_fd)
        code = running.child.reap()
        channel.close()
        try:
            running.end = self._judge(running, code)
        except (KeyError, TypeError, ValueError) as error:  # it sent something else than it should
            why = f"its result could not be understood: {line_of_error(error)}"
            self._service.note_failure(running.claim, why, error)
            running.end = failure(why)
        self._closer.close(running, running.end)

    def _judge(self, running: Running, code: int) -> Ending:
        """What the end of an attempt's process means."""
        result = running.result
        is_crowded = False
        if self._cards is not None and result is not None:
            is_crowded = self._cards.ended(
                running.slot.device,
                result,
                running.sharing,
            )
        is_killed = code == -signal.SIGKILL and result is None
        return judge(
            running,
            code,
            self._service.facts,
            crowded=is_crowded,
            stopping=self._service.stopping,
            by_kernel=is_killed and self._was_killed_by_kernel(),
        )

    def _was_killed_by_kernel(self) -> bool:
        """Whether the kernel's out-of-memory killer took a process that is not accounted for."""
        if not self._kernel_kills.claim():
            return False
        return self._server.is_alive
