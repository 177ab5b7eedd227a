"""A process that has imported what the commands need, and forks a child for each input: ``python -m`` this module.

It reads requests from its standard input, one JSON document a line, and answers each with another.
A child runs one command in the sandbox, under the audit hook. All that it starts is counted,
measured, and ended with it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parents[3]
PRELOADED = (
    "torch",
    "torch.export",
    "torchvision",
    "torchmetrics",
    "pytorch_lightning",
    "optuna",
    "optuna.storages",
    "hydra",
    "sklearn.datasets",
    "sklearn.model_selection",
    "matplotlib.pyplot",
    "sympy",
    "rich.live",
    "jinja2",
    "mlflow",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "alembic.command",
    "email.policy",
    "filelock",
    "git",
    "importlib_metadata",
    "omegaconf._impl",
    "optuna.storages._rdb.models",
    "sqlalchemy.dialects.sqlite",
    "torch.utils.serialization.config",
)
#: Floors of dlsearch that import only what is asked for: no command has all of them.
NOT_PRELOADED = ("dlsearch._hydra", "dlsearch.systems")
#: Processes that commands start, which are forked.
FORKED = ("dlsearch.execution.processes.forkserver", "dlsearch.tracking.mlflow.shipper")
POLL_S = 0.005
#: Every so many polls the processes are measured, which takes milliseconds itself.
POLLS_A_LOOK = 8
#: A command may wait for so many times the processor time that it may take: on a busy machine it
#: waits for other programs, and for the disk.
PATIENCE = 4
#: What a command started may go on for so long after it.
LEAVING_S = 3.0
CHEAP_MB = 200.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Import, then serve requests until standard input ends."""
    # PR_SET_CHILD_SUBREAPER: whoever loses its parent is still a child here
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    preload()
    requests = os.fdopen(os.dup(0), "r")
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    answers.write('{"ready": true}\n')
    answers.flush()
    for line in requests:
        answers.write(json.dumps(serve(json.loads(line))) + "\n")
        answers.flush()
    gc.unfreeze()  # libraries report leaks otherwise


def preload() -> None:
    """Import what commands import, and compose and draw once: their children begin with it."""
    import dlsearch

    for name in PRELOADED:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(dlsearch.__path__, "dlsearch."):
        if not module.name.startswith(NOT_PRELOADED) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("tests.e2e.preload")
    importlib.import_module("tests.security.foreign.audit")
    # the collector of a child leaves alone what it shares with this process
    gc.collect()
    gc.freeze()


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Run one request in a child and measure it."""
    own = _anonymous_mb("self")
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(request)
    tree = Tree(own)
    killed = None
    status = None
    polls = 0
    while status is None and killed is None:
        time.sleep(POLL_S)
        polls += 1
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
        if status is None and polls % POLLS_A_LOOK == 0:
            tree.look()
            passed_s = time.monotonic() - began
            killed = tree.exceeds(request["seconds"], request["memory_mb"], passed_s)
    deadline = time.monotonic() + LEAVING_S
    while killed is None and tree.look() and time.monotonic() < deadline:
        _reap()
        time.sleep(POLL_S)
    left = tree.kill()
    if status is None:
        status = signal.SIGKILL
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": round(tree.busy_s(), 3),
        "memory_mb": round(tree.peak_mb, 1),
        "killed": killed,
        "left": left,
    }


class Tree:
    """The processes that descend from this one.

    Args:
        own_mb: What this one has in its own memory, which a fork shares until it writes there.
    """

    def __init__(self, own_mb: float) -> None:
        self.own_mb = own_mb
        self.peak_mb = 0.0
        self._busy_s: dict[str, float] = {}

    def look(self) -> int:
        """Measure; returns how many there are."""
        found = []
        total = 0.0
        for pid in descendants():
            try:
                taken = _anonymous_mb(pid)
                self._busy_s[pid] = _busy_s(pid)
            except (OSError, IndexError, ValueError):
                continue
            found.append(pid)
            total += max(0.0, taken - self.own_mb)
        # what several share counts once; that takes longer to learn
        if total > CHEAP_MB and total > self.peak_mb:
            total = sum(map(_share_mb, ["self", *found])) - self.own_mb
        self.peak_mb = max(self.peak_mb, total)
        return len(found)

    def busy_s(self) -> float:
        """The processor time that all of them took until the last look."""
        return sum(self._busy_s.values())

    def exceeds(self, seconds: float, memory_mb: float, passed_s: float) -> str | None:
        """What limit was passed, if any: of memory, of processor time, or of all time, which is longer."""
        if self.peak_mb > memory_mb:
            return "memory"
        return "time" if self.busy_s() > seconds or passed_s > PATIENCE * seconds else None

    def kill(self) -> int:
        """End all that is left; how many that were."""
        count = 0
        while found := descendants():
            for pid in found:
                count += 1
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    count -= 1
            time.sleep(0.005)
            _reap()
        return count


def descendants() -> list[str]:
    """All processes below this one."""
    parents: dict[str, list[str]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            state, parent = text[text.rindex(")") + 2 :].split()[:2]
            if state != "Z":
                parents.setdefault(parent, []).append(entry)
    found: list[str] = []
    waiting = [str(os.getpid())]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _busy_s(pid: str) -> float:
    """The processor time of all its threads."""
    text = Path(f"/proc/{pid}/stat").read_text()
    words = text[text.rindex(")") + 2 :].split()
    return (int(words[11]) + int(words[12])) * TICK_S


def _anonymous_mb(pid: str) -> float:
    """Memory that is no file's."""
    words = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(words[1]) - int(words[2])) * PAGE_MB


def _share_mb(pid: str) -> float:
    """Its part of that memory, where several processes share it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next(
        int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss_Anon:")
    )


_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_EXECUTE = inspect.signature(subprocess.Popen._execute_child)


class Forked(subprocess.Popen):  # type: ignore[type-arg]
    """A process of ours, ``python -m dlsearch.…``, forked from this one instead: it has imported everything already."""

    def _execute_child(self, *given: Any, **named: Any) -> None:
        bound = _EXECUTE.bind(self, *given, **named).arguments
        words = bound["args"]
        module = _module(words)
        if module not in FORKED:
            super()._execute_child(*given, **named)
            return
        sys.audit("subprocess.Popen", words[0], words, bound["cwd"], bound["env"])
        self.pid = os.fork()
        if self.pid == 0:
            _become(module, words[words.index(module) :], bound)
        self._child_created = True
        self._close_pipe_fds(*(bound[each] for each in _PIPES))


def _module(words: Any) -> str:
    """The module that a command line starts Python with; nothing where it is another program."""
    if not isinstance(words, list) or words[:1] != [sys.executable] or "-m" not in words[:4]:
        return ""
    return words[words.index("-m") + 1]


def _become(module: str, words: list[str], bound: dict[str, Any]) -> None:
    """In the child: be the process that Python with `module` as its program would have been."""
    code = 1
    try:
        for number, name in ((0, "p2cread"), (1, "c2pwrite"), (2, "errwrite")):
            if bound[name] not in (-1, number):
                os.dup2(bound[name], number)
        kept = {0, 1, 2, *bound["pass_fds"]}
        for entry in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # the folder's own is gone by now
                if int(entry) not in kept and not os.readlink(f"/proc/self/fd/{entry}").endswith(
                    "acts.jsonl"
                ):
                    os.close(int(entry))
        if bound["start_new_session"]:
            os.setsid()
        if bound["env"] is not None:
            os.environ.clear()
            os.environ.update(bound["env"])
        if bound["cwd"] is not None:
            os.chdir(bound["cwd"])
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.argv = words
        if module in sys.modules:
            del sys.modules[module]  # it is to be the program, and not what others have imported
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def _child(request: dict[str, Any]) -> None:
    code = 70
    try:
        code = _run(request)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                code = code or 71
        os._exit(code)


def _run(request: dict[str, Any]) -> int:
    box = Path(request["box"])
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(box / "work")
    for number, name in ((1, request["out"]), (2, request["err"])):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    import tempfile

    tempfile.tempdir = None
    sys.argv = ["dlsearch", *request["words"]]
    sys.path[:] = [each for each in sys.path if each not in ("", os.getcwd())]
    from tests.security.foreign.audit import Rules, install

    subprocess.Popen = Forked  # type: ignore[misc]
    install(Rules(request["box"], request["readable"], request["writable"]), request["log"])
    if request["call"] is not None:
        module, name = request["call"].split(":")
        getattr(importlib.import_module(module), name)(box)
        return 0
    from dlsearch.cli.main import command

    try:
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
