"""A worker: it serves one study with the slots of one machine, and supervises a process for every trial.

It knows no torch. Everything that a trial says arrives on a socket, every end of a process on a pipe, so that one
thread can wait for all of them; between events it renews its leases and reaps those of the dead.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.search import run_journals
from dlsearch.search.finalization import kept_folder
from dlsearch.search.leases import Holder
from dlsearch.search.rounds import TEST, ConfirmClaim, Rounds
from dlsearch.search.trial_config import trial_config
from dlsearch.tracking import layout, provenance
from dlsearch.tracking.masking import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dlsearch.search.capacity import Cards
    from dlsearch.search.forkserver import Child, ForkServer
    from dlsearch.search.slots import Slot
    from dlsearch.search.study import Claim, Study

TICK_S = 0.5
GRACE_S = 6.0  # between SIGTERM and SIGKILL


@dataclass
class _Running:
    """A claim with its process."""

    claim: Claim
    slot: Slot
    child: Child
    journal: Path | None
    started: float
    result: dict[str, Any] | None = None
    ledger_row: int | None = None
    killed_for: str | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    sharing: int = 1  # trials on its device at the busiest, itself included


class Worker:
    """One machine's service to one study.

    Args:
        study: The open study.
        store: Where this machine writes.
        slots: Its slots.
        server: The warm fork server.
        revive: Starts another where it has died: the out-of-memory killer takes whom it likes.
        paths: This machine's ``paths`` config.
        deadline: No trial is claimed after this time (``time.time()``).
        target: No trial is claimed once the objective has reached this.
        trial_timeout: Seconds that an attempt may take.
        owner: The process whose death ends the service; None where a user's shell may well end before.
        cards: How many of the slots of each GPU are open; None opens all.
    """

    def __init__(
        self,
        study: Study,
        *,
        store: Path,
        slots: list[Slot],
        server: ForkServer,
        revive: Callable[[], ForkServer],
        paths: Mapping[str, Any],
        deadline: float | None = None,
        target: float | None = None,
        trial_timeout: float | None = None,
        owner: int | None = None,
        cards: Cards | None = None,
    ) -> None:
        """Nothing is claimed before :meth:`run`."""
        self._owner, self._cards = owner, cards
        self.rounds = Rounds(study)
        self.study, self.store, self.slots, self.paths = study, store, slots, dict(paths)
        self.server, self._revive = server, revive
        self.deadline, self.target, self.trial_timeout = deadline, target, trial_timeout
        self.host = socket.gethostname()
        self.id = f"{self.host}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.running: dict[int, _Running] = {}
        self.stopping = False
        self._selector = selectors.DefaultSelector()
        self._renewed = self._reaped = 0.0

    def stop(self, *_: Any) -> None:
        """Give all trials back and end; a signal handler."""
        self.stopping = True

    def run(self) -> bool:
        """Serve until the budget is spent and nothing is left to wait for; False when told to stop before."""
        try:
            return self._run()
        except BaseException:
            self._signal_all(signal.SIGKILL)
            with contextlib.suppress(Exception):  # the database may be what is gone: then the leases run out
                for running in self.running.values():
                    self.study.release(running.claim)
            raise

    def _run(self) -> bool:
        stopped_at: float | None = None
        self._reap_local_dead()
        while True:
            if self._owner is not None and os.getppid() != self._owner:  # the driver died
                self.stopping = True
            if not self.stopping:
                busy = self._fill()
                if not self.running and not busy:
                    self._close_round()
                    return True
            elif not self.running:
                return False
            elif stopped_at is None:
                stopped_at = time.monotonic()
                self._signal_all(signal.SIGTERM)
            elif time.monotonic() > stopped_at + GRACE_S:
                self._signal_all(signal.SIGKILL)
            self._wait(TICK_S if self.running else TICK_S / 2)
            self._keep_alive()

    # -- claiming and starting -----------------------------------------------------------------------------------
    def _fill(self) -> bool:
        """Give free slots work; True while there was some, or other workers' trials are worth waiting for."""
        started = False
        for slot in self.slots:
            if slot.index in self.running or not self._open(slot):
                continue
            holder = Holder(self.id, self.host, os.getpid(), slot.index, slot.device)
            claim = self.study.claim(holder, deadline=self.deadline, target=self.target)
            if claim is None and not any(r.claim.kind == "trial" for r in self.running.values()):
                claim = self.rounds.claim(holder, deadline=self.deadline, target=self.target)
            if claim is None:
                break
            self._start(claim, holder, slot)
            started = True
            # Filling many slots takes longer than a lease may: who runs already is heard, and stays alive, in between.
            self._wait(0.0)
            self._keep_alive()
            if self.stopping:
                break
        return started or bool(self.running) or self.study.others_running()

    def _open(self, slot: Slot) -> bool:
        """Whether the slot's card has room for one more trial."""
        return self._cards is None or len(self._beside(slot)) < self._cards.limit(slot.device)

    def _beside(self, slot: Slot) -> list[_Running]:
        return [running for running in self.running.values() if running.slot.device == slot.device]

    def _start(self, claim: Claim, holder: Holder, slot: Slot) -> None:
        study = self.study
        folder = self.store / run_journals.folder_of(study.name, claim)
        folder.mkdir(parents=True, exist_ok=True)
        payload = {
            "folder": str(folder),
            "objectives": study.document["objectives"],
            "directions": study.directions,
            "threads": slot.threads,
            "params": claim.params,
            "origin": provenance.origin(tuple(study.document["allow_targets"])),
        }
        if claim.kind == TEST:
            payload |= self._trained()
        else:
            cfg = trial_config(study.document, claim.params, seed=claim.seed, paths=self.paths)
            OmegaConf.save(OmegaConf.create(mask(cfg)), folder / "config.yaml")
            payload |= {"cfg": cfg, "epochs": getattr(claim, "epochs", None)}
        journal_path = run_journals.begin(study, claim, holder, self.store)
        payload["journal"] = str(journal_path)
        child = self._spawn(claim, payload, slot, folder / f"worker.a{claim.attempt}.log")
        running = _Running(claim, slot, child, journal_path, time.monotonic())
        running.progress = {"epoch": 0, "max_epochs": study.document["config"]["trainer"]["max_epochs"], "value": None}
        self.running[slot.index] = running
        for each in (together := self._beside(slot)):
            each.sharing = max(each.sharing, len(together))
        self._selector.register(child.channel, selectors.EVENT_READ, (running, "message"))
        self._selector.register(child.status_fd, selectors.EVENT_READ, (running, "exit"))

    def _trained(self) -> dict[str, Any]:
        """What there is to score: all replicas of the winner that ended, and its training on train + validation."""
        now = self.rounds.last()
        assert now is not None
        runs, kept = now.to_score(self.study.max_attempts)
        return {
            "kept": kept,
            "trained": [
                {
                    "cfg": trial_config(self.study.document, run.params, seed=run.seed, paths=self.paths),
                    "folder": str(self.store / layout.confirm_folder(self.study.name, run.name)),
                    "epochs": run.epochs,
                }
                for run in runs
            ],
        }

    def _spawn(self, claim: Claim, payload: dict[str, Any], slot: Slot, log: Path) -> Child:
        target = f"dlsearch.search.trial_process:{'run_test' if claim.kind == TEST else 'run_trial'}"
        try:
            try:
                return self.server.spawn(target, payload, env=slot.env, log=log)
            except OSError:
                if self.server.alive:
                    raise
                self.server = self._revive()
                return self.server.spawn(target, payload, env=slot.env, log=log)
        except BaseException:
            self.study.release(claim)
            raise

    # -- listening -----------------------------------------------------------------------------------------------
    def _wait(self, timeout: float) -> None:
        ready = [key.data for key, _ in self._selector.select(timeout)]
        for running, what in ready:
            if what == "message":
                self._listen(running)
        for running, what in ready:
            if what == "exit":
                self._end(running)

    def _listen(self, running: _Running) -> None:
        while True:
            message = running.child.channel.receive()
            if message is None:
                self._selector.unregister(running.child.channel)
                return
            self._answer(running, message)
            if not running.child.channel.pending:
                return

    def _answer(self, running: _Running, message: dict[str, Any]) -> None:
        answer: dict[str, Any] | None = None
        if message["type"] == "report":
            metrics = message["metrics"]
            monitored = self.study.document["objectives"][0]
            value = metrics.get(monitored)
            prune = value is not None and self.study.report(running.claim, message["epoch"], value)
            running.progress = {
                "epoch": message["epoch"] + 1,
                "max_epochs": self.study.document["config"]["trainer"]["max_epochs"],
                "value": value,
            }
            answer = {"prune": bool(prune)}
        elif message["type"] == "unseal":
            claim = running.claim
            assert isinstance(claim, ConfirmClaim)
            running.ledger_row = self.study.ledger.opened("confirm", claim.finalist.trial_number, claim.seed)
            answer = {}
        elif message["type"] == "done":
            running.result = message["result"]
        if answer is not None:
            try:
                running.child.channel.send(answer)
            except OSError:
                return

    # -- ending --------------------------------------------------------------------------------------------------
    def _end(self, running: _Running) -> None:
        channel = running.child.channel
        if channel in self._selector.get_map():
            while running.result is None and (message := channel.receive()) is not None:
                self._answer(running, message)
            self._selector.unregister(channel)
        self._selector.unregister(running.child.status_fd)
        code = running.child.reap()
        channel.close()
        del self.running[running.slot.index]
        claim, result = running.claim, running.result
        crowded = self._cards is not None and result and self._cards.ended(running.slot.device, result, running.sharing)
        reason: str | None
        if crowded:
            why = f"out of memory beside {running.sharing - 1} on {running.slot.device}"
            state, reason, accepted = "interrupted", "interrupted", self.study.release(claim, error=why)
        elif result is not None:
            state, reason = result["state"], result.get("reason")
            if isinstance(claim, ConfirmClaim) and claim.kind == TEST:
                accepted = self.rounds.score(claim, result, running.ledger_row)
            else:
                accepted = self.study.finish(claim, result)
        elif running.killed_for == "timeout":
            epochs = int(running.progress.get("epoch", 0))
            failed = {"state": "failed", "reason": "timeout", "epochs": epochs, "seconds": self.trial_timeout}
            failed["error"] = f"deadline of {self.trial_timeout:g} s after {epochs} epochs"
            state, reason, accepted = "failed", "timeout", self.study.finish(claim, failed)
        elif self.stopping:
            state, reason, accepted = "interrupted", "interrupted", self.study.release(claim)
        else:
            died = f"killed by {_signal_name(-code)}" if code < 0 else f"exit status {code}"
            state, reason, accepted = "lost", "lost", self.study.lose(claim, died)
        if running.journal is not None:
            ended = (state, reason) if accepted else ("lost", "lost")
            run_journals.end(running.journal, claim.attempt, *ended)
        if claim.kind == TEST and accepted and state != "interrupted":
            self._close_round()

    def _close_round(self) -> None:
        """Once a round is over: what it showed goes to its runs, and of this machine's checkpoints one is kept."""
        now = self.rounds.close()
        if now is None:
            return
        folder = self.store / layout.confirm_folder(self.study.name)
        closed = folder / f"r{now.number}-closed"
        if closed.exists() or not folder.is_dir():
            return
        run_journals.close_round(self.study, self.store, now)
        kept = kept_folder(self.study, now)
        if kept is not None and not now.document["scored"]:
            return  # the same command scores again, and wants the winner's checkpoints
        for each in folder.glob(f"r{now.number}-*/ckpt"):
            if each.parent != self.store / str(kept):
                shutil.rmtree(each, ignore_errors=True)
            (each / "last.ckpt").unlink(missing_ok=True)
        closed.touch()

    # -- time ----------------------------------------------------------------------------------------------------
    def _keep_alive(self) -> None:
        now = time.monotonic()
        for running in self.running.values():
            timed = self.trial_timeout is not None and running.claim.kind != TEST and not running.killed_for
            if timed and now > running.started + (self.trial_timeout or 0.0):
                running.killed_for = "timeout"
                running.child.signal(signal.SIGKILL)
        if now - self._renewed > min(1.0, self.study.leases.lease_s / 3):
            self._renewed = now
            held = {r.claim.token: r.progress for r in self.running.values()}
            self.study.leases.renew(held, {token: progress for token, progress in held.items() if progress})
        if now - self._reaped > 5.0:
            self._reaped = now
            self._reap_local_dead()
            self.study.reap()

    def _reap_local_dead(self) -> None:
        """A worker of this machine that is dead needs no lease to run out."""
        for attempt in self.study.leases.live():
            if attempt.host == self.host and attempt.pid and not _alive(attempt.pid):
                self.study.reap(attempt.worker)

    def _signal_all(self, number: int) -> None:
        for running in self.running.values():
            running.child.signal(number)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
