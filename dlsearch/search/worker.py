"""A worker: it serves one study with the slots of one machine, and supervises a process for every trial.

It knows no torch. Everything that a trial says arrives on a socket, every end of a process on a pipe, so that one
thread can wait for all of them; between events it renews its leases and reaps those of the dead.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.search.leases import Holder
from dlsearch.search.trial_config import trial_config
from dlsearch.tracking import layout, provenance
from dlsearch.tracking.journal import Journal
from dlsearch.tracking.masking import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

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
    journal: Path
    started: float
    result: dict[str, Any] | None = None
    ledger_row: int | None = None
    killed_for: str | None = None
    progress: dict[str, Any] = field(default_factory=dict)


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
    ) -> None:
        """Nothing is claimed before :meth:`run`."""
        self._owner = owner
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
                    return True
            elif not self.running:
                return False
            elif stopped_at is None:
                stopped_at = time.monotonic()
                self._signal_all(signal.SIGTERM)
            elif time.monotonic() > stopped_at + GRACE_S:
                self._signal_all(signal.SIGKILL)
            self._wait()
            self._keep_alive()

    # -- claiming and starting -----------------------------------------------------------------------------------
    def _fill(self) -> bool:
        """Give free slots work; True while other workers' trials are worth waiting for."""
        for slot in self.slots:
            if slot.index in self.running:
                continue
            holder = Holder(self.id, self.host, os.getpid(), slot.index, slot.device)
            claim = self.study.claim(holder, deadline=self.deadline, target=self.target)
            if claim is None and not self.running:
                claim = self.study.claim_confirmation(holder, deadline=self.deadline, target=self.target)
            if claim is None:
                break
            self._start(claim, slot)
        if self.running:
            return True
        return self.study.others_running()

    def _start(self, claim: Claim, slot: Slot) -> None:
        study = self.study
        confirm = claim.kind == "confirm"
        folder = self.store / layout.trial_folder(study.name, claim.number, confirm=confirm)
        folder.mkdir(parents=True, exist_ok=True)
        cfg = trial_config(study.document, claim.params, seed=claim.seed, paths=self.paths)
        OmegaConf.save(OmegaConf.create(mask(cfg)), folder / "config.yaml")
        journal_path = folder / f"journal.a{claim.attempt}.jsonl"
        self._open_journal(journal_path, claim, slot, folder)
        payload = {
            "cfg": cfg,
            "folder": str(folder),
            "journal": str(journal_path),
            "objectives": study.document["objectives"],
            "directions": study.directions,
            "threads": slot.threads,
            "confirm": confirm,
            "params": claim.params,
            "origin": provenance.origin(tuple(study.document["allow_targets"])),
        }
        child = self._spawn(claim, payload, slot, folder / f"worker.a{claim.attempt}.log")
        running = _Running(claim, slot, child, journal_path, time.monotonic())
        running.progress = {"epoch": 0, "max_epochs": study.document["config"]["trainer"]["max_epochs"], "value": None}
        self.running[slot.index] = running
        self._selector.register(child.channel, selectors.EVENT_READ, (running, "message"))
        self._selector.register(child.status_fd, selectors.EVENT_READ, (running, "exit"))

    def _spawn(self, claim: Claim, payload: dict[str, Any], slot: Slot, log: Path) -> Child:
        target = "dlsearch.search.trial_process:run_trial"
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

    def _open_journal(self, path: Path, claim: Claim, slot: Slot, folder: Path) -> None:
        document = self.study.document
        parent = layout.study_folder(self.study.name)
        if claim.kind == "confirm":
            parent = self._confirm_parent()
        journal = Journal(path)
        journal.open(
            "replicate" if claim.kind == "confirm" else "trial",
            layout.run_name(self.study.name, claim.number, claim.attempt, confirm=claim.kind == "confirm"),
            document["experiment"],
            f"{parent}/journal.jsonl",
            {
                **layout.study_tags(document),
                layout.TRIAL_NUMBER: str(claim.number),
                layout.TRIAL_ATTEMPT: str(claim.attempt),
                layout.TRIAL_STATE: "running",
                layout.TEST_EVALUATED: "false",
                layout.WORKER_ID: self.id,
                layout.WORKER_HOST: self.host,
                **({} if slot.device.startswith("cpu") else {layout.WORKER_GPU: slot.device}),
            },
        )
        journal.params({**{f"hp/{name}": value for name, value in claim.params.items()}})
        journal.artifact(folder / "config.yaml", "")
        for split, digest in document.get("data", {}).get("digests", {}).items():
            if split != "test" or claim.kind == "confirm":
                context = {"train": "train", "val": "validation", "test": "test"}[split]
                journal.dataset(document["data"]["name"], digest, context, document["data"]["name"])
        journal.close()

    def _confirm_parent(self) -> str:
        """The level-0 run of confirmations, opened once."""
        folder = f"{layout.study_folder(self.study.name)}/confirm"
        path = self.store / folder / "journal.jsonl"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            journal = Journal(path)
            document = self.study.document
            journal.open(
                "confirm", f"confirm:{self.study.name}", document["experiment"], None, layout.study_tags(document)
            )
            journal.close()
        return folder

    # -- listening -----------------------------------------------------------------------------------------------
    def _wait(self) -> None:
        for key, _ in self._selector.select(TICK_S if self.running else TICK_S / 2):
            running, what = key.data
            if what == "message":
                self._listen(running)
        for running in list(self.running.values()):
            if self._has_exited(running):
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
            running.ledger_row = self.study.ledger.opened(running.claim.kind, running.claim.number, running.claim.seed)
            answer = {}
        elif message["type"] == "done":
            running.result = message["result"]
        if answer is not None:
            try:
                running.child.channel.send(answer)
            except OSError:
                return

    def _has_exited(self, running: _Running) -> bool:
        poll = selectors.SelectSelector()
        poll.register(running.child.status_fd, selectors.EVENT_READ)
        return bool(poll.select(0))

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
        if result is not None:
            state, reason, accepted = result["state"], result.get("reason"), self.study.finish(claim, result)
            if accepted and claim.kind == "confirm":
                self._score(running, result)
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
        self._close_journal(running, state if accepted else "lost", reason if accepted else "lost")

    def _score(self, running: _Running, result: dict[str, Any]) -> None:
        test = result.get("test")
        if running.ledger_row is not None and test is not None:
            values = result.get("values") or [None]
            self.study.ledger.scored(running.ledger_row, {**test, "value": values[0]})

    def _close_journal(self, running: _Running, state: str, reason: str | None) -> None:
        claim = running.claim
        journal = Journal(running.journal)
        tags = {layout.TRIAL_STATE: state}
        if reason:
            tags[layout.TRIAL_FAIL_REASON] = reason
        if running.ledger_row is not None:
            tags[layout.TEST_EVALUATED] = "true"
            test = (running.result or {}).get("test") or {}
            journal.metrics(test.get("metrics", {}), (running.result or {}).get("best_step") or 0)
        journal.tags(tags)
        if (running.journal.parent / f"worker.a{claim.attempt}.log").is_file():
            journal.artifact(running.journal.parent / f"worker.a{claim.attempt}.log", "logs")
        if claim.kind == "confirm" and state == "complete":
            folder = running.journal.parent
            journal.model(folder / "ckpt" / "best.ckpt", folder / "config.yaml", "winner", {})
        journal.status(layout.status_of(state))
        journal.close()
        if claim.kind == "confirm":
            parent = Journal(self.store / self._confirm_parent() / "journal.jsonl")
            parent.status(layout.status_of(state))
            parent.close()

    # -- time ----------------------------------------------------------------------------------------------------
    def _keep_alive(self) -> None:
        now = time.monotonic()
        for running in self.running.values():
            if self.trial_timeout is not None and now > running.started + self.trial_timeout and not running.killed_for:
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
