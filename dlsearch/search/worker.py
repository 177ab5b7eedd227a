"""A worker: it serves one study with the slots of one machine, and supervises a process for every trial.

It knows no torch. Everything that a trial says arrives on a socket, every end of a process on a pipe, so that one
thread can wait for all of them; between events it renews its leases and reaps those of the dead. While the database
is away its trials go on: pruners' verdicts are "go on", and reports and ends stay in hand until they can be written.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dlsearch.config.errors import DatabaseAwayError
from dlsearch.search import inhand, retention, run_journals
from dlsearch.search.endings import FENCED, TIMEOUT, Ending, KernelKills, Limits
from dlsearch.search.forkserver import ServerGoneError
from dlsearch.search.leases import Holder, is_dead
from dlsearch.search.outage import is_away
from dlsearch.search.room import Room, needed
from dlsearch.search.rounds import TEST, ConfirmClaim, Rounds
from dlsearch.search.starting import Running, earlier, judge, payload_of
from dlsearch.tracking.full import is_full

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dlsearch.search.capacity import Cards
    from dlsearch.search.forkserver import Child, ForkServer
    from dlsearch.search.slots import Slot
    from dlsearch.search.study import Claim, Study

    T = TypeVar("T")

TICK_S, REAP_S, DEATHS = 0.5, 2.0, 3  # fork servers that die in a row before it is taken for more than bad luck
GRACE_S, LEAVE_S = 6.0, 2.0  # between SIGTERM and SIGKILL; that a database that is away is waited for after that


class Worker:
    """One machine's service to one study.

    Args:
        study: The open study.
        store: Where this machine writes.
        slots: Its slots.
        server: The warm fork server; None where there may be nothing to do.
        revive: Starts one, also where it has died: the out-of-memory killer takes whom it likes.
        paths: This machine's ``paths`` config.
        deadline: No trial is claimed after this time (``time.time()``).
        target: No trial is claimed once the objective has reached this.
        trial_timeout: Seconds that an attempt may take.
        owner: The process whose death ends the service; None where a user's shell may well end before.
        cards: How many of the slots of each GPU are open; None opens all.
        told: Whether somebody who cannot send a signal wants the service to end.
    """

    def __init__(
        self,
        study: Study,
        *,
        store: Path,
        slots: list[Slot],
        server: ForkServer | None,
        revive: Callable[[], ForkServer],
        paths: Mapping[str, Any],
        deadline: float | None = None,
        target: float | None = None,
        trial_timeout: float | None = None,
        owner: int | None = None,
        cards: Cards | None = None,
        told: Callable[[], bool] | None = None,
    ) -> None:
        """Nothing is claimed before :meth:`run`."""
        self._owner, self._cards, self._told, self.rounds = owner, cards, told, Rounds(study)
        self.study, self.store, self.slots, self.paths = study, store, slots, dict(paths)
        self.server, self._revive = server, revive
        self.deadline, self.target, self.trial_timeout = deadline, target, trial_timeout
        self.host = socket.gethostname()
        self.id = f"{self.host}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.running: dict[int, Running] = {}
        self.stopping = False
        self.room, self._keeper = Room(store, patience_s=study.storage.patience_s), retention.Keeper(study, store)
        self._limits, self._kills = Limits(study.max_attempts, study.max_halvings), KernelKills()
        self._ends = run_journals.Ends(study, store, lambda why: self.room.missing(why))
        self._selector = selectors.DefaultSelector()
        self._renewed, self._reaped, self._deaths = 0.0, 0.0, 0

    def stop(self, *_: Any) -> None:
        """Give all trials back and end; a signal handler."""
        self.stopping = True

    def run(self) -> bool:
        """Serve until the budget is spent and nothing is left to wait for; False when told to stop before.

        Raises:
            DatabaseAwayError: The database was away for too long. Trials were given back, as far as this store goes.
        """
        try:
            return self._run()
        except BaseException as error:
            self._signal_all(signal.SIGKILL)
            away = isinstance(error, DatabaseAwayError) or is_away(error)
            if away:
                self._leave()
            with contextlib.suppress(Exception):  # the database may be what is gone: then the leases run out
                for running in self.running.values():
                    self.study.release(running.claim)
            if self.stopping and (away or is_full(error)):
                return False
            raise

    def _surely(self, action: Callable[[], T]) -> T:
        """Do something with the database; where its disk is full or it is away, once that is over."""
        return self.room.insist(action, give_up=lambda: self.stopping, between=self._renew)

    def _now(self, action: Callable[[], T], otherwise: T) -> T:
        """Do something with the database now; while it is away, nothing, or in vain: then `otherwise`."""
        return self.room.at_once(
            action, otherwise, give_up=lambda: self.stopping, between=self._renew, broken=self.study.leases.broken
        )

    def _leave(self) -> None:
        """Keep in the store what cannot be told the study."""
        with contextlib.suppress(OSError):  # no room either: then the leases run out
            inhand.keep_all(self.study, self.store, self.running)
        self.running.clear()

    def _begin(self) -> None:
        inhand.write_kept(self.study, self.store)
        self._reap_local_dead()
        self._ends.lost(run_journals.of_the_dead(self.study))

    def _run(self) -> bool:
        stopped_at: float | None = None
        self._surely(self._begin)
        while True:
            if self._owner is not None and os.getppid() != self._owner:  # the driver died
                self.stopping = True
            if not self.stopping:
                busy = not self._warm() or self._fill()
                if not self.running and not busy and not self._ends.left:
                    self._close_round()
                    return True
            elif not self.running:
                self._now(self.study.leases.forget, None)
                return False
            elif stopped_at is None:
                stopped_at = time.monotonic()
                self._signal_all(signal.SIGTERM)
            elif all(r.end is not None for r in self.running.values()) and time.monotonic() > stopped_at + LEAVE_S:
                self._leave()  # the database is away, or it had been told by now
            elif time.monotonic() > stopped_at + GRACE_S:
                self._signal_all(signal.SIGKILL)
            self._wait(TICK_S if self.running else TICK_S / 2)
            self._keep_alive()

    # -- claiming and starting -----------------------------------------------------------------------------------
    def _fill(self) -> bool:
        """Give free slots work; True while there was some, or other workers' trials are worth waiting for."""
        started = False
        for slot in self.slots:
            if self.stopping or slot.index in self.running or not self._open(slot):
                continue
            if not self.room.there() and not (self.deadline is not None and time.time() >= self.deadline):
                return True
            holder = Holder(self.id, self.host, os.getpid(), slot.index, slot.device)
            claim = self._now(partial(self._claim, holder), None)
            if self.room.outage.now:
                return True
            if claim is None:
                break
            if not self._start(claim, holder, slot):
                return True
            started = True
            # Filling many slots takes longer than a lease may: who runs already is heard, and stays alive, in between.
            self._wait(0.0)
            self._keep_alive()
        return started or bool(self.running) or self._now(self.study.others_running, True)

    def _warm(self) -> bool:  # while the server imports, a claim would wait for it, and its lease run out
        if self.server is not None and len(self.running) < len(self.slots):
            self.server = self.server.or_another(self._revive)
        return self.server is None or not self.server.importing

    def _claim(self, holder: Holder) -> Claim | None:
        claim = self.study.claim(holder, deadline=self.deadline, target=self.target)
        if claim is None and not any(r.claim.kind == "trial" for r in self.running.values()):
            claim = self.rounds.claim(holder, deadline=self.deadline, target=self.target)
        return claim

    def _open(self, slot: Slot) -> bool:  # whether its card has room for one more trial
        return self._cards is None or len(self._beside(slot)) < self._cards.limit(slot.device)

    def _beside(self, slot: Slot) -> list[Running]:
        return [running for running in self.running.values() if running.slot.device == slot.device]

    def _start(self, claim: Claim, holder: Holder, slot: Slot) -> bool:
        """Start the claim's process; False where there was no room for it, and the trial was given back."""
        folder, journal_path = self.store / run_journals.folder_of(self.study.name, claim), None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before = self._surely(partial(earlier, self.study, claim))
            payload = self._surely(partial(payload_of, self.rounds, claim, before, folder, self.store, self.paths))
            journal_path = run_journals.begin(self.study, claim, holder, self.store)
            payload |= {"threads": slot.threads, "journal": str(journal_path)}
            child = self._spawn(claim, payload, slot, folder / f"worker.a{claim.attempt}.log")
        except BaseException as error:
            reason, words = "disk" if is_full(error) else "interrupted", f"{type(error).__name__}: {error}"
            if isinstance(error, DatabaseAwayError) or is_away(error):
                inhand.keep(self.study, self.store, claim, Ending("interrupted", "interrupted"))
                raise
            self._surely(partial(self.study.release, claim, reason, error=words))
            if reason == "disk":
                self.room.missing(str(error))
            elif not (isinstance(error, ServerGoneError) and self._deaths < DEATHS):
                raise
            if journal_path is not None:
                self._ends.left.append((journal_path, claim.attempt, "interrupted", reason))
            return False
        epochs = self.study.document["config"]["trainer"]["max_epochs"]
        running = Running(claim, slot, child, journal_path, time.monotonic(), before=before)
        running.progress, self.running[slot.index] = {"epoch": 0, "max_epochs": epochs, "value": None}, running
        for each in (together := self._beside(slot)):
            each.sharing = max(each.sharing, len(together))
        self._selector.register(child.channel, selectors.EVENT_READ, (running, "message"))
        self._selector.register(child.status_fd, selectors.EVENT_READ, (running, "exit"))
        return True

    def _spawn(self, claim: Claim, payload: dict[str, Any], slot: Slot, log: Path) -> Child:
        target = f"dlsearch.search.trial_process:{'run_test' if claim.kind == TEST else 'run_trial'}"
        server = self.server = self.server or self._revive()
        try:
            child = server.spawn(target, payload, env=slot.env, log=log)
        except ServerGoneError:
            self._deaths, self.server = self._deaths + 1, self._revive()
            raise
        self._deaths = 0
        return child

    # -- listening -----------------------------------------------------------------------------------------------
    def _wait(self, timeout: float) -> None:
        ready = [key.data for key, _ in self._selector.select(timeout)]
        if ready and time.monotonic() - self._renewed > self.study.leases.lease_s / 2:
            self._now(self._renew, None)  # this process was stopped for a while: who is heard now may be lost already
        for running, what in ready:
            if what == "message":
                self._listen(running)
        for running, what in ready:
            if what == "exit":
                self._end(running)

    def _listen(self, running: Running) -> None:
        while True:
            message = running.child.channel.receive()
            if message is None:
                self._selector.unregister(running.child.channel)
                return
            self._answer(running, message)
            if not running.child.channel.pending:
                return

    def _answer(self, running: Running, message: dict[str, Any]) -> None:
        answer: dict[str, Any] | None = None
        if running.killed_for == FENCED:
            return
        if message["type"] == "report":
            epoch, value = message["epoch"], message["metrics"].get(self.study.document["objectives"][0])
            running.progress |= {"epoch": epoch + 1, "value": value}
            prune = False
            if value is not None:
                running.history.append([epoch, value])
                running.unreported.append((epoch, value))
                prune = self._now(partial(inhand.verdict, self.study, running), False)
            answer = {"prune": prune}
        elif message["type"] == "began":
            running.progress |= {k: message[k] for k in ("micro_batches", "resumption")}
        elif message["type"] == "unseal":
            claim = running.claim
            assert isinstance(claim, ConfirmClaim)
            number = claim.finalist.trial_number
            running.ledger_row = self._surely(
                lambda: self.study.ledger.opened("confirm", number, claim.seed, claim.token)
            )
            answer = {}
        elif message["type"] == "done":
            running.result = message["result"]
        if answer is not None:
            with contextlib.suppress(OSError):  # it has ended
                running.child.channel.send(answer)

    # -- ending --------------------------------------------------------------------------------------------------
    def _end(self, running: Running) -> None:
        channel = running.child.channel
        if channel in self._selector.get_map():
            while running.result is None and (message := channel.receive()) is not None:
                self._answer(running, message)
            self._selector.unregister(channel)
        self._selector.unregister(running.child.status_fd)
        code = running.child.reap()
        channel.close()
        running.end = self._judge(running, code)
        self._close(running, running.end)

    def _close(self, running: Running, end: Ending) -> None:
        """Tell the study; while that cannot be, the attempt keeps its slot and its lease."""
        claim = running.claim
        accepted = self._now(lambda: inhand.settle(self.rounds, running, end), None)
        if accepted is None:
            return
        del self.running[running.slot.index]
        if end.reason == "disk":
            folder = self.store / run_journals.folder_of(self.study.name, claim)
            self.room.missing(end.error or "", needed(folder, (running.result or {}).get("n_params")))
        if running.journal is not None:
            ended = (end.state, end.reason) if accepted else ("lost", "lost")
            self._ends.left.append((running.journal, claim.attempt, *ended))
            self._ends.write()
        if claim.kind == TEST and accepted and end.state != "interrupted":
            self._close_round()
        if claim.kind == "trial" and accepted and end.result is not None:
            with contextlib.suppress(OSError):  # what is in the way now goes with the next trial, or by `dlsearch gc`
                self._surely(lambda: self._keeper.ended(claim.number))

    def _judge(self, running: Running, code: int) -> Ending:
        """What the end of an attempt's process means."""
        cards, result = self._cards, running.result
        by_kernel = code == -signal.SIGKILL and result is None
        return judge(
            running,
            code,
            self.study,
            self._limits,
            crowded=bool(cards and result and cards.ended(running.slot.device, result, running.sharing)),
            trial_timeout=self.trial_timeout,
            stopping=self.stopping,
            by_kernel=by_kernel and self._kills.claim() and self.server is not None and self.server.alive,
        )

    def _close_round(self) -> None:
        """Once a round is over: what it showed goes to its runs, and of this machine's checkpoints one is kept."""

        def close() -> None:
            now = self.rounds.close()
            if now is not None:
                retention.close_round(self.study, self.store, now)

        self._surely(close)

    # -- time ----------------------------------------------------------------------------------------------------
    def _keep_alive(self) -> None:
        now = time.monotonic()
        for running in self.running.values():
            timed = self.trial_timeout is not None and running.claim.kind != TEST and not running.killed_for
            timed = timed and running.end is None
            if timed and now > running.started + (self.trial_timeout or 0.0):
                running.killed_for = TIMEOUT
                running.child.signal(signal.SIGKILL)
        if now - self._renewed > min(1.0, self.study.leases.lease_s / 3):
            self._now(self._renew, None)
            self._ends.write()
        for running in list(self.running.values()):
            if running.end is not None:
                self._close(running, running.end)
        if now - self._reaped > REAP_S:
            self._reaped = now
            if self._told is not None and self._now(self._told, False):  # a signal may come meanwhile, and stands
                self.stopping = True
            self._now(self._reap, None)

    def _renew(self) -> None:
        """Extend this worker's leases; a trial that others took for lost meanwhile is theirs, and is ended here."""
        held = {r.claim.token: r.progress for r in self.running.values()}
        alive = self.study.leases.renew(held, {token: progress for token, progress in held.items() if progress})
        self._renewed = time.monotonic()
        for running in self.running.values():
            if running.claim.token not in alive and running.killed_for != FENCED and running.end is None:
                running.killed_for, running.result = FENCED, None
                running.child.signal(signal.SIGKILL)

    def _reap(self) -> None:
        self._reap_local_dead()
        if self.study.leases.overdue():
            self.study.reap()
            # All of this machine's, whenever they were lost: whoever reaped them may not have heard that it stands.
            self._ends.lost(run_journals.of_the_dead(self.study))

    def _reap_local_dead(self) -> None:  # they need no lease to run out
        for worker in {a.worker for a in self.study.leases.live() if a.host == self.host and is_dead(a.pid)}:
            self._ends.lost(self.study.reap(worker))

    def _signal_all(self, number: int) -> None:
        for running in self.running.values():
            running.child.signal(number)
