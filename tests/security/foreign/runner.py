"""Runs inputs in the sandbox: the client of :mod:`tests.security.foreign.warm`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.security.foreign.box import IGNORED, WATCHED, Box, changes
from tests.security.foreign.watch import Watch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SECONDS, MEMORY_MB = 10.0, 1024.0
START_S = 120.0
STORE = "work/mlruns"


@dataclass(frozen=True)
class Outcome:
    """What one command did.

    Args:
        code: Its exit status; -9 where it was ended for its time or its memory.
        out: Its standard output.
        err: Its standard error.
        acts: What it did outside: dictionaries with ``what`` (read, write, delete, execute,
            connect, unpickle, environment), ``event``, ``detail``, ``at``.
        seconds: Processor time of all its processes.
        memory_mb: At most, of all its processes, above the warm parent's.
        killed: ``time`` or ``memory``, where it passed that limit.
        left: Processes that it left behind.
    """

    code: int
    out: str
    err: str
    acts: list[dict[str, str]]
    seconds: float
    memory_mb: float
    killed: str | None
    left: int

    def what(self) -> set[str]:
        """The kinds of acts outside."""
        return {act["what"] for act in self.acts}


@dataclass
class Runner:
    """The warm process, and one sandbox, always at the same place.

    Args:
        base: The folder for the sandbox and for what is said.
        data: The data root, which may be read; none by default.
    """

    base: Path
    data: str | None = None
    _process: subprocess.Popen[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Nothing is started before it is needed."""
        self.box = Box(self.base / "box")
        self.good = self.base / "good"
        self.said = self.base / "said"
        self.said.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start the warm process, and wait until it has imported everything."""
        environment = {
            **os.environ,
            "MPLCONFIGDIR": str(self.said),
            "HYDRA_FULL_ERROR": "1",
            "TZ": "UTC",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.security.foreign.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        answer = self._answer(START_S)
        assert answer == {"ready": True}, answer

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait(30)
            self._process.stdout.close()
            self._process = None

    def run(
        self,
        words: list[str],
        *,
        writable: list[str] | None = None,
        environment: dict[str, str] | None = None,
        seconds: float = SECONDS,
        memory_mb: float = MEMORY_MB,
        call: str | None = None,
        watched: bool = True,
    ) -> Outcome:
        """Run ``dlsearch`` with `words` in the sandbox as it is now.

        Args:
            words: Of the command line.
            writable: Folders that the command may write, relative to the sandbox; the store by
                default.
            environment: More environment variables.
            seconds: How much processor time it may take; it may last longer than that, on a machine
                that has other things to do.
            memory_mb: How much it may take.
            call: Instead of a command ``module:function``, called with the sandbox's folder.
            watched: Whether the marker files are watched and compared, too.
        """
        writable = [STORE, *(writable or [])]
        log = self.said / "acts.jsonl"
        log.write_text("")
        readable = [
            str(ROOT),
            *_repository(),
            sys.prefix,
            sys.base_prefix,
            str(self.said),
            *([self.data] if self.data else []),
        ]
        rules = {
            "box": str(self.box.root),
            "readable": readable,
            "writable": writable,
            "log": str(log),
        }
        home = str(self.box.home)
        given = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "XDG_CONFIG_HOME": f"{home}/.config",
            "XDG_CACHE_HOME": f"{home}/.cache",
            "TMPDIR": str(self.box.root / "tmp"),
            "DLSEARCH_DATA": self.data or str(self.box.root / "data"),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MPLBACKEND": "Agg",
            "MPLCONFIGDIR": str(self.said),
            "PYTHONPATH": str(HERE / "hook"),
            "FOREIGN_RULES": json.dumps(rules),
            "HYDRA_FULL_ERROR": "1",
            "COLUMNS": "200",
            **(environment or {}),
        }
        request = {
            "words": words,
            "environment": given,
            "out": str(self.said / "out"),
            "err": str(self.said / "err"),
            "seconds": seconds,
            "memory_mb": memory_mb,
            "call": call,
            **rules,
        }
        before = self.box.state(writable) if watched else {}
        watch = Watch(self.box.root, WATCHED, IGNORED) if watched else None
        answer = self._ask(request, 8 * seconds + 30)
        acts = [json.loads(line) for line in log.read_text().splitlines()]
        if watch is not None:
            acts += watch.seen()
            watch.close()
            acts += changes(before, self.box.state(writable))
        out, err = (
            (self.said / name).read_text(errors="surrogateescape") for name in ("out", "err")
        )
        return Outcome(out=out, err=err, acts=acts, **answer)

    def _ask(self, request: dict[str, Any], patience_s: float) -> dict[str, Any]:
        if self._process is None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer(patience_s)

    def _answer(self, patience_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        timer = threading.Timer(patience_s, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()
        if not line:
            self._process = None
            raise RuntimeError("the warm process died, or did not answer")
        return json.loads(line)


def _repository() -> list[str]:
    """The folder of git's own files, where the checkout is a work tree beside another one."""
    link = ROOT / ".git"
    return [str(Path(link.read_text().split()[1]).parents[1])] if link.is_file() else []
