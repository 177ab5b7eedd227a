"""Commands as processes, and what they left in the storage."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from dlsearch.execution.processes.forkserver import ForkServer

ROOT = Path(__file__).resolve().parents[2]

#: Compiled modules are kept, whatever the surroundings say: imports are most of what a small study
#: costs.
FAST = {"PYTHONDONTWRITEBYTECODE": ""}

#: The log of an attempt's process.
_LOG = re.compile(r"worker\.a\d+\.log$")

#: The smallest trial that trains: a softmax regression on 64 digits for one epoch. What one batch
#: tells of it beforehand is known: tests/execution/test_rehearsal.py is about that.
TINY = [
    "model=linear", "space.model.dropout=null", "space.data.batch_size=null", "data.batch_size=32",
    "data.train_size=64", "data.val_size=64", "trainer.max_epochs=1", "trainer.accelerator=cpu", "study.finalize=false",
    "tracking.enabled=false", "tracking.system_metrics_s=null", "study.rehearsal=false",
]  # fmt: skip


class Site:
    """A place where commands run: a store, and a warm fork server or none.

    Args:
        folder: Where commands start; the store is ``folder/store``.
        warm: A warm fork server, which saves each study its ten seconds of imports.
        forks: Another one, of which commands that run to their end are forked.
    """

    #: The interpreter, and what its path is beside its own packages.
    python, path = sys.executable, f"{ROOT / 'tests/strict'}:{ROOT}:{ROOT / 'dlsearch/_hydra'}"

    def __init__(
        self, folder: Path, warm: ForkServer | None = None, forks: ForkServer | None = None
    ) -> None:
        self.folder, self.store, self.warm, self.forks = folder, folder / "store", warm, forks

    def start(
        self, *words: str, env: dict[str, str] | None = None, **streams: Any
    ) -> subprocess.Popen[str]:
        """Start a command as the leader of a process group, its output in one file, or as `Popen` is told."""
        entry = ["-c", "from dlsearch.cli.main import command; command()"]
        if self.warm is not None:
            entry = ["-m", "tests.e2e.warm", f"{self.warm.path}#{self.warm.key}"]
        with self.log.open("w") as log:
            streams = {
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": subprocess.STDOUT,
            } | streams
            return subprocess.Popen(
                [self.python, *entry, *words], cwd=self.folder, env=self._env(env), start_new_session=True, text=True,
                **streams,
            )  # fmt: skip

    def _env(self, env: dict[str, str] | None) -> dict[str, str]:
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "DLSEARCH_"))
        }
        return (
            inherited
            | {**FAST, "PYTHONPATH": self.path, "DLSEARCH_STORE": str(self.store)}
            | (env or {})
        )

    @property
    def log(self) -> Path:
        """What the last command said."""
        return self.folder / "said.txt"

    def run(
        self, *words: str, code: int = 0, timeout: float = 120, env: dict[str, str] | None = None
    ) -> str:
        """Run a command to its end; what it said. Its exit code must be `code`."""
        # which a process reads when it begins
        if self.forks is not None and "PYTHONPATH" not in (env or {}):
            ended = self._forked(words, timeout, env)
        else:
            with self.running(*words, env=env) as process:
                ended = process.wait(timeout)
        said = self.log.read_text()
        assert ended == code, said
        return said

    def _forked(self, words: Sequence[str], timeout: float, env: dict[str, str] | None) -> int:
        assert self.forks is not None
        assert self.warm is not None, "a command that is forked needs a warm server for its trials"
        self.log.write_text("")
        payload = {
            "words": words, "folder": str(self.folder), "env": self._env(env), "socket": f"{self.warm.path}#{self.warm.key}",
        }  # fmt: skip
        child = self.forks.spawn("tests.e2e.warm:forked", payload, env={}, log=self.log)
        try:
            if not select.select([child.status_fd], [], [], timeout)[0]:
                os.killpg(child.pid, signal.SIGKILL)
                raise TimeoutError(
                    f"{' '.join(words)}: not done after {timeout} s: {self.log.read_text()}"
                )
            return child.reap()
        finally:
            child.close()

    @contextmanager
    def running(
        self, *words: str, env: dict[str, str] | None = None, **streams: Any
    ) -> Iterator[subprocess.Popen[str]]:
        """A command while it runs; nothing of it is left afterwards."""
        process = self.start(*words, env=env, **streams)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)

    def json(self, *words: str) -> Any:
        """What a verb says with ``--json``."""
        return json.loads(self.run(*words, "--json"))

    def rows(
        self, query: str, *values: Any, database: str = "dlsearch.db"
    ) -> list[tuple[Any, ...]]:
        """Rows of the study's storage, or of MLflow's, read while others write."""
        path = self.store / database
        if not path.is_file():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def states(self) -> Counter[str]:
        """How many of Optuna's trials are in which state."""
        return Counter(state for (state,) in self.rows("SELECT state FROM trials"))

    def finished(self) -> dict[int, float]:
        """Complete trials and their values."""
        return dict(
            self.rows(
                "SELECT number, value FROM trials JOIN trial_values USING (trial_id) WHERE state='COMPLETE'"
            )
        )

    def attempts(self) -> dict[int, list[str]]:
        """The states of each trial's attempts, in order."""
        found: dict[int, list[str]] = {}
        for number, state in self.rows(
            "SELECT number, state FROM dlsearch_attempt WHERE kind='trial' ORDER BY id"
        ):
            found.setdefault(number, []).append(state)
        return found


def until(condition: Callable[[], Any], timeout: float = 60, poll: float = 0.01) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(poll)
    return found


def trials_below(pid: int) -> list[psutil.Process]:
    """The processes of attempts that `pid`, or a sealed server that it forked, has forked: each has its own log."""
    found: list[psutil.Process] = []
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(OSError):
                if _LOG.search(os.readlink(f"/proc/{child.pid}/fd/1")):  # noqa: PTH115
                    found.append(child)
    return found


def new_child(pid: int, timeout: float = 60) -> psutil.Process:
    """The next attempt below `pid`, a moment after its process was forked."""
    before = {child.pid for child in trials_below(pid)}
    return until(
        lambda: next((c for c in trials_below(pid) if c.pid not in before), None),
        timeout,
        0.002,
    )


def exactly(site: Site, n_trials: int) -> None:
    """The study has exactly so many trials, numbered from 0, all of them complete."""
    numbers = [number for (number,) in site.rows("SELECT number FROM trials ORDER BY number")]
    assert numbers == list(range(n_trials))
    assert site.states() == {"COMPLETE": n_trials}
    assert not site.rows("SELECT * FROM dlsearch_attempt WHERE state='running'")


def recalled(site: Site, *words: str) -> None:
    """Ctrl-C to a driver whose worker no signal reaches: the trial is given back, and the same command goes on."""
    live = "SELECT 1 FROM dlsearch_attempt WHERE state = 'running' AND progress IS NOT NULL"
    with site.running(*words) as process:
        until(lambda: site.rows(live), 150)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, site.log.read_text()
    said = site.log.read_text()
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert site.states() == {"WAITING": 1}
    ends = "SELECT state, reason FROM dlsearch_attempt ORDER BY id"
    assert site.rows(ends) == [("interrupted", "interrupted")]
    site.run(*words, timeout=200)
    exactly(site, 1)
    assert site.rows(ends) == [("interrupted", "interrupted"), ("complete", None)]
