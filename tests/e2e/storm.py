"""A study in a storm: its processes are killed and stopped, and its servers fail, by a schedule that a seed draws.

The storm acts from outside: it finds processes by what the system says of them, and the study by
its database. What came of the study is judged by :mod:`tests.e2e.aftermath`.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import sqlalchemy as sa

#: Who is killed, in parts of a hundred kills.
SHARES = {"trial": 52, "worker": 20, "driver": 12, "fork server": 8, "shipper": 8}
STOP, TERM, TICK_S = "stop", "preempted trial", 0.1
_LOG = re.compile(r"/t(\d+)/worker\.a(\d+)\.log$")
_ENDED = ("COMPLETE", "PRUNED", "FAIL")


@dataclass
class Blow:
    """Something that was done.

    Args:
        kind: A kind of process that was killed, :data:`STOP`, :data:`TERM`, or a server's failure.
        at: When (``time.time()``).
        until: When it was over.
        workers: Process ids of the workers that it hit.
        attempts: Ids of the attempts that were live then and that it hit.
    """

    kind: str
    at: float
    until: float = 0.0
    workers: set[int] = field(default_factory=set)
    attempts: set[int] = field(default_factory=set)


@dataclass
class Seen:
    """What was seen from outside while it lasted.

    Args:
        blows: All that was done, in order.
        ends: When an attempt was first seen not to run any more, by id.
        finished: What each trial had come to when it was first seen finished, by number.
        codes: Exit statuses of commands that nobody killed.
        seconds: How long it took.
    """

    blows: list[Blow] = field(default_factory=list)
    ends: dict[int, float] = field(default_factory=dict)
    finished: dict[int, tuple[str, float | None]] = field(default_factory=dict)
    codes: list[tuple[str, int]] = field(default_factory=list)
    seconds: float = 0.0


def shares(kills: int) -> list[str]:
    """Kinds of so many kills, by :data:`SHARES`."""
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(kills * share / 100))][
        :kills
    ]
    return kinds + ["trial"] * (kills - len(kinds))


def plan(rng: random.Random, trials: int, kinds: Sequence[str]) -> list[tuple[float, str]]:
    """What is done once so many trials are finished: ``(finished, kind)``, in order.

    Args:
        rng: Draws the order, and the times.
        trials: The study's total.
        kinds: Of processes to kill, :data:`STOP`, :data:`TERM`, and of servers' failures.
    """
    shuffled = rng.sample(kinds, len(kinds))
    return list(zip(sorted(rng.uniform(0.02, 0.85) * trials for _ in kinds), shuffled, strict=True))


@dataclass
class Command:
    """A command that is started again whenever it ends before the study does."""

    name: str
    words: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    due: float = 0.0
    killed: bool = False


class Storm:
    """One study, the commands that serve it, and what is done to them.

    Args:
        folder: Where commands start and what they say is kept.
        entry: The words before a command's own.
        driver: The driver's words.
        workers: The words of each ``dlsearch worker`` beside it.
        url: The study's storage, reached without anything in between.
        study: The study's name.
        seed: Draws what is done, and when.
        events: From :func:`plan`.
        lease_s: How long a silent worker keeps its trials.
        failures: What makes a server fail, by kind: called, it returns the seconds until what it
            returns with them is to be called.
        env: Beside this process's environment.
        roots: Processes that fork trials and are nobody's children here.
    """

    def __init__(
        self,
        folder: Path,
        entry: Sequence[str],
        driver: Sequence[str],
        workers: Sequence[Sequence[str]],
        *,
        url: str,
        study: str,
        seed: int,
        events: Sequence[tuple[float, str]],
        lease_s: float,
        failures: Mapping[str, Callable[[random.Random], tuple[float, Callable[[], None]]]]
        | None = None,
        env: Mapping[str, str] | None = None,
        roots: Iterable[int] = (),
    ) -> None:
        self.folder, self.entry, self.study, self.lease_s = folder, list(entry), study, lease_s
        self.driver = Command("driver", driver)
        self.workers = [Command(f"worker {n}", words) for n, words in enumerate(workers, 1)]
        self.events, self.failures = list(events), failures or {}
        self.rng, self.env, self.roots = random.Random(seed), dict(env or {}), list(roots)
        self.seen = Seen()
        self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        self._stopped: dict[int, tuple[float, Blow]] = {}  # process → when it goes on
        self._failing: list[tuple[float, Callable[[], None], Blow]] = []
        self._known: set[int] = set()  # attempts that were seen running
        self._watched = 0.0

    # -- the whole of it -----------------------------------------------------------------------------------------
    def run(self, deadline_s: float) -> Seen:
        """Until the driver's command has done all it had to do.

        Raises:
            TimeoutError: It has not after `deadline_s`.
        """
        started = time.monotonic()
        try:
            while not self._over():
                if time.monotonic() > started + deadline_s:
                    raise TimeoutError(
                        f"the study was not finished after {deadline_s:.0f} s; see {self.folder}"
                    )
                self._serve()
                self._look()
                self._act()
                time.sleep(TICK_S)
            self._calm()
            self._leave(60.0)
        finally:
            self._calm()
            for command in (self.driver, *self.workers):
                _end(command.process)
            self._engine.dispose()
        self.seen.seconds = time.monotonic() - started
        return self.seen

    def _over(self) -> bool:
        process = self.driver.process
        return process is not None and process.poll() == 0

    def _serve(self) -> None:
        """Start what is not running and is due; note what ended by itself."""
        for command in (self.driver, *self.workers):
            if command.process is None:
                if time.time() >= command.due and (command is self.driver or self.seen.finished):
                    command.process, command.killed = self._start(command), False
            elif (code := command.process.poll()) is not None and not (
                command is self.driver and code == 0
            ):
                if not command.killed and code:
                    self.seen.codes.append((command.name, code))
                command.process, command.due = None, time.time() + self.rng.uniform(0.0, 1.0)

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        with (self.folder / f"{command.name}.log".replace(" ", "-")).open("ab") as log:
            return subprocess.Popen(
                [*self.entry, *command.words], cwd=self.folder, env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _calm(self) -> None:
        """Have all go on that was stopped, and all servers be there again."""
        for pid, (_, blow) in self._stopped.items():
            _signal(pid, signal.SIGCONT)
            blow.until = time.time()
        for _, undo, blow in self._failing:
            undo()
            blow.until = time.time()
        self._stopped, self._failing = {}, []

    def _leave(self, patience: float) -> None:
        """The workers find out by themselves that nothing is left to do."""
        until = time.monotonic() + patience
        for command in self.workers:
            if command.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = command.process.wait(max(0.1, until - time.monotonic()))
                    if code and not command.killed:
                        self.seen.codes.append((command.name, code))
        self._look(force=True)

    # -- looking -------------------------------------------------------------------------------------------------
    def _live(self) -> dict[int, tuple[int, int, int | None]]:
        """Attempts that run: number, attempt, and their worker's process."""
        query = "SELECT id, number, attempt, pid FROM dlsearch_attempt WHERE state = 'running' AND study = :study"
        with self._engine.connect() as connection:
            return {
                id_: (number, attempt, pid)
                for id_, number, attempt, pid in connection.execute(
                    sa.text(query), {"study": self.study}
                )
            }

    def _look(self, *, force: bool = False) -> None:
        if time.monotonic() < self._watched + 2 * TICK_S and not force:
            return
        self._watched = time.monotonic()
        query = (
            "SELECT number, CAST(state AS VARCHAR(9)), value FROM trials JOIN studies USING (study_id) "
            "LEFT JOIN trial_values USING (trial_id) WHERE study_name = :study"
        )
        try:
            live = self._live()
            with self._engine.connect() as connection:
                found = connection.execute(sa.text(query), {"study": self.study}).all()
        except sa.exc.SQLAlchemyError:  # there is no database yet, or not now
            return
        now = time.time()
        for each in self._known - live.keys():
            self.seen.ends.setdefault(each, now)
        self._known |= live.keys()
        for number, state, value in found:
            if state in _ENDED:
                self.seen.finished.setdefault(number, (state, value))

    def _trials(self, *commands: Command) -> dict[int, tuple[int, int]]:
        """Processes of trials, below `commands` or the roots: number and attempt."""
        found = {}
        for pid in [*self.roots, *(c.process.pid for c in commands if c.process is not None)]:
            for child in _children(pid):
                with contextlib.suppress(OSError):
                    if mark := _LOG.search(os.readlink(f"/proc/{child.pid}/fd/1")):  # noqa: PTH115
                        found[child.pid] = int(mark[1]), int(mark[2])
        return found

    def _helpers(self, command: Command, module: str) -> list[int]:
        return [
            c.pid
            for c in _children(command.process.pid if command.process else 0)
            if module in _words(c)
        ]

    def _serving(self, command: Command) -> list[int]:
        """The processes of a command that hold attempts: itself, or, of the driver, its worker."""
        if command.process is None or command.process.poll() is not None:
            return []
        mine = {command.process.pid, *(child.pid for child in _children(command.process.pid))}
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            return sorted(mine & {pid for _, _, pid in self._live().values() if pid is not None})
        return []

    # -- acting --------------------------------------------------------------------------------------------------
    def _act(self) -> None:
        now = time.time()
        for pid, (until, blow) in list(self._stopped.items()):
            if now >= until:
                _signal(pid, signal.SIGCONT)
                blow.until = now
                del self._stopped[pid]
        for each in [each for each in self._failing if now >= each[0]]:
            each[1]()
            each[2].until = time.time()
            self._failing.remove(each)
        # What finds nobody to hit waits for its turn, and lets others go first.
        for event in [event for event in self.events if event[0] <= len(self.seen.finished)]:
            if self._strike(event[1]):
                self.events.remove(event)
                return

    def _strike(self, kind: str) -> bool:
        """Do it, if there is somebody to do it to."""
        if kind in self.failures:
            if self._failing:
                return False  # one at a time
            blow = Blow(kind, time.time())
            seconds, undo = self.failures[kind](self.rng)
            self.seen.blows.append(blow)
            self._failing.append((time.time() + seconds, undo, blow))
            return True
        commands = [
            c for c in (self.driver, *self.workers) if c.process is not None and not c.killed
        ]
        commands = [
            c for c in commands if c.process.pid not in self._stopped and c.process.poll() is None
        ]  # type: ignore[union-attr]
        self.rng.shuffle(commands)
        if kind in ("trial", TERM):
            return self._hit_trial(kind, commands)
        if kind == "driver":
            return self.driver in commands and self._kill(
                kind, self.driver, self.driver.process.pid
            )  # type: ignore[union-attr]
        for command in commands:
            serving = [pid for pid in self._serving(command) if pid not in self._stopped]
            if kind == "shipper" and (
                found := self._helpers(command, "dlsearch.tracking.mlflow.shipper")
            ):
                return self._kill(kind, None, found[0])
            if (
                kind == "fork server"
                and serving
                and (found := self._helpers(command, "dlsearch.execution.processes.forkserver"))
            ):
                return self._kill(kind, command, found[0])
            if kind == "worker" and serving:
                return self._kill(kind, command, serving[0])
            if kind == STOP and serving:
                return self._stop(serving[0])
        return False

    def _hit_trial(self, kind: str, commands: list[Command]) -> bool:
        """Kill one, or tell it to end; of those that are to go on from a checkpoint, one that has such."""
        found = sorted(self._trials(*commands).items())
        if kind == TERM:
            found = [(pid, which) for pid, which in found if self._last_checkpoint(pid).is_file()]
        if not found:
            return False
        pid, which = self.rng.choice(found)
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            hit = {id_ for id_, (*both, _) in self._live().items() if tuple(both) == which}
            if hit and _signal(pid, signal.SIGTERM if kind == TERM else signal.SIGKILL):
                self.seen.blows.append(Blow(kind, time.time(), time.time(), set(), hit))
                return True
        return False

    @staticmethod
    def _last_checkpoint(pid: int) -> Path:
        with contextlib.suppress(OSError):
            return Path(os.readlink(f"/proc/{pid}/fd/1")).parent / "ckpt" / "last.ckpt"  # noqa: PTH115
        return Path(os.devnull, "none")

    def _kill(self, kind: str, command: Command | None, pid: int) -> bool:
        serving = set(self._serving(command)) if command is not None else set()
        before = self._held_by(serving)
        if command is not None and command.process is not None and command.process.pid == pid:
            command.killed = True
        at = time.time()
        if not _signal(pid, signal.SIGKILL):
            return False
        self.seen.blows.append(Blow(kind, at, at, serving, before | self._held_by(serving)))
        return True

    def _stop(self, pid: int) -> bool:
        if not _signal(pid, signal.SIGSTOP):
            return False
        blow = Blow(STOP, time.time(), 0.0, {pid}, self._held_by({pid}))
        self.seen.blows.append(blow)
        self._stopped[pid] = time.time() + self.lease_s + self.rng.uniform(2.0, 4.0), blow
        return True

    def _held_by(self, workers: set[int]) -> set[int]:
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            return {id_ for id_, (_, _, pid) in self._live().items() if pid in workers}
        return set()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _end(process: subprocess.Popen[bytes] | None) -> None:
    """Nothing is left of a command, nor of what it started."""
    if process is None:
        return
    for each in [
        *_children(process.pid),
        *([psutil.Process(process.pid)] if process.poll() is None else []),
    ]:
        with contextlib.suppress(psutil.Error):
            each.kill()
    process.wait(10)
