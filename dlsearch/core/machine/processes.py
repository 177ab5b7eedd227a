"""Which process is which, on a machine that may hold several PID name spaces (containers).

Names of hosts do not say it.

A process is known by the boot of its machine, its PID name space, its number there, and when it was
started: the number alone is another process in another name space, and a later one after it has
ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import uuid
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_PID_SPACE = _PROC / "self/ns/pid"
#: Fields of /proc/PID/stat behind the name, which may hold blanks and brackets: proc_pid_stat(5),
#: less the first two.
_STATE = 0
_STARTED = 19


class ProcessState(Enum):
    """What one process can see of another."""

    ALIVE = "alive"
    STOPPED = "stopped"  # by a signal: it lives, and does nothing until it is continued
    DEAD = "dead"
    HIDDEN = "hidden"  # in another PID name space of this machine
    ELSEWHERE = "elsewhere"  # on another machine, before this one's boot, or of no known identity


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, as no other is.

    Args:
        space: The boot of its machine, and the PID name space in which it has its number:
            ``boot/inode``.
        pid: Its number there.
        born: When it was started, as the system counts; empty where the system does not say.
    """

    space: str
    pid: int
    born: str

    @classmethod
    def of(cls, pid: int | None = None) -> ProcessIdentity:
        """The identity of a process of this PID name space; this process's by default."""
        number = os.getpid() if pid is None else pid
        return cls(_space(), number, _born(number))


def state_of(process: ProcessIdentity | None) -> ProcessState:
    """What can be seen of a process from this one."""
    if process is None:
        return ProcessState.ELSEWHERE
    here = _space()
    if process.space != here:
        same_boot = process.space.partition("/")[0] == here.partition("/")[0]
        return ProcessState.HIDDEN if same_boot else ProcessState.ELSEWHERE
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return ProcessState.DEAD
    except PermissionError:
        pass
    born = _born(process.pid)
    if process.born and born and born != process.born:
        return ProcessState.DEAD  # its number has gone to another
    state = _letter(process.pid)
    if state in ("Z", "X"):  # ended, and not collected by its parent
        return ProcessState.DEAD
    return ProcessState.STOPPED if state == "T" else ProcessState.ALIVE


def process_tag() -> str:
    """A word for names of files that are this process's alone, even in a shared folder."""
    own = ProcessIdentity.of()
    return f"{own.pid}-{hashlib.sha256(f'{own.space} {own.born}'.encode()).hexdigest()[:8]}"


def _space() -> str:
    with contextlib.suppress(OSError):
        return f"{_BOOT_ID.read_text().strip()}/{_PID_SPACE.stat().st_ino}"
    import psutil

    # No name spaces there. A clock that was set may move the time of the boot: then nobody is
    # recognised, and leases alone decide.
    return f"{uuid.getnode():x}-{int(psutil.boot_time())}/{sys.platform}"


def _stat(pid: int) -> list[str]:
    """The fields of a process's status behind its name.

    None where there is no /proc, or one of another name space.
    """
    if not isinstance(pid, int):  # as a database of somebody else's may have it
        return []
    try:
        if str((_PROC / "self").readlink()) != str(os.getpid()):
            return []
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _born(pid: int) -> str:
    fields = _stat(pid)
    if fields:
        return fields[_STARTED]
    if sys.platform == "linux":
        return ""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return ""


def _letter(pid: int) -> str:
    fields = _stat(pid)
    if fields:
        return fields[_STATE]
    if sys.platform == "linux":
        return ""
    import psutil

    letters = {psutil.STATUS_STOPPED: "T", psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_DEAD: "X"}
    try:
        return letters.get(psutil.Process(pid).status(), "")
    except psutil.Error:
        return ""
