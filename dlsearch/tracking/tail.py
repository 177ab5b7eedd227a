"""The journals of a store, and how far each has been sent. Imports no mlflow: the driver reads it too."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.tracking.journal import read, shipped_path

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEVELS = (("studies", 3), ("runs", 1))  # folder of the store, and how deep below it journals stand
_FRESH_S = 2.0  # a folder changed less than this before it was read may have changed again under the same time stamp
_FULL_EVERY_S = 1.0
_BLOCK = 1 << 16


def server_id(uri: str) -> str:
    """What a tracking server is called in a journal's notes; `uri` itself may hold a password."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


@dataclass
class Tail:
    """One journal, and how far it has been sent.

    Args:
        path: The journal.
        server: :func:`server_id` of where it is sent; notes about another server are void.
    """

    path: Path
    server: str
    run_id: str | None = None
    experiment_id: str | None = None
    kind: str = ""
    offset: int = 0
    creating: bool = False  # a run may exist that no note names
    ended: bool = False
    seen: int = -1  # size at the last complete read
    failures: int = 0
    retry_at: float = 0.0
    job: int | None = None  # a model on its way
    _kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, server: str) -> Tail:
        """With the notes that an earlier shipper left."""
        tail = cls(path, server)
        with suppress(OSError, ValueError):
            notes = json.loads(shipped_path(path).read_text())
            if notes.get("server") == server and notes["offset"] <= path.stat().st_size:
                tail.run_id, tail.experiment_id = notes["run_id"], notes["experiment_id"]
                tail.kind, tail.offset = notes["kind"], notes["offset"]
                tail.creating, tail.ended = notes["creating"], notes["ended"]
                tail._kept = tail._notes()
        return tail

    def commit(self, offset: int) -> None:
        """Note that everything before `offset` has been accepted."""
        self.offset = offset
        self.save()

    def save(self) -> None:
        """Write the notes, atomically."""
        notes = self._notes()
        if notes == self._kept:
            return
        target = shipped_path(self.path)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.write_text(json.dumps(notes))
        draft.replace(target)
        self._kept = notes

    def reset(self) -> None:
        """Begin again: the run is gone from the server."""
        self.run_id = self.experiment_id = self.job = None
        self.offset, self.seen, self.creating, self.ended = 0, -1, True, False
        self.save()

    def _notes(self) -> dict[str, Any]:
        names = ("server", "run_id", "experiment_id", "kind", "offset", "creating", "ended")
        return {name: getattr(self, name) for name in names}


def in_order(path: Path) -> tuple[int, Path]:
    """Parents first, then by number."""
    return len(path.parts), path


def discover(store: Path) -> Iterator[Path]:
    """Every journal of a store."""
    for top, depth in _LEVELS:
        for level in range(1, depth + 1):
            yield from store.glob(f"{top}/{'/'.join(['*'] * level)}/journal*.jsonl")


def backlog(store: Path, server: str) -> dict[Path, int]:
    """The journals with whole lines that `server` has not accepted, and the offset behind the last of them.

    A file that opens no run is left out: nothing of it can be sent.
    """
    found = {}
    for path in discover(store):
        end = _complete_size(path)
        if Tail.load(path, server).offset < end and any(row["row"] == "open" for row, _ in read(path, 0, _BLOCK)[0]):
            found[path] = end
    return found


def _complete_size(path: Path) -> int:
    """The offset behind the last newline."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end > 0:
                start = max(0, end - _BLOCK)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    return start + newline + 1
                end = start
    except FileNotFoundError:
        pass
    return 0


@dataclass
class _Folder:
    changed: int = -1
    read_at: float = 0.0
    journals: set[str] = field(default_factory=set)
    below: list[str] = field(default_factory=list)


class Discovery:
    """Finds new journals at the price of a few `stat` calls, however many finished ones there are.

    Folders whose journals have all ended are left out; a look at all of them costs at most a fiftieth of the time.
    """

    def __init__(self, store: Path) -> None:
        """Read nothing yet."""
        self._store = store
        self._folders: dict[str, _Folder] = {}
        self._settled: set[str] = set()
        self._next_full = 0.0

    def settle(self, path: Path) -> None:
        """Say that the journal at `path` has ended."""
        self._settled.add(str(path.parent))

    def wake(self, path: Path) -> None:
        """Say that the journal at `path` goes on."""
        self._settled.discard(str(path.parent))

    def scan(self, *, full: bool = False) -> tuple[list[Path], bool]:
        """New journals, and whether all folders were looked at."""
        full = full or time.monotonic() >= self._next_full
        started = time.monotonic()
        found: list[Path] = []
        for top, depth in _LEVELS:
            self._visit(str(self._store / top), depth, full, found)
        if full:
            took = time.monotonic() - started
            self._next_full = time.monotonic() + max(_FULL_EVERY_S, 50 * took)
        return sorted(found, key=in_order), full

    def _visit(self, folder: str, depth: int, full: bool, found: list[Path]) -> None:
        known = self._folders.setdefault(folder, _Folder())
        if not full and folder in self._settled:
            return
        try:
            changed = os.stat(folder).st_mtime_ns  # noqa: PTH116  # thousands of them: no Path for each
        except OSError:
            return
        if changed != known.changed or known.read_at - changed / 1e9 < _FRESH_S:
            known.changed, known.read_at = changed, time.time()
            self._read(folder, depth, known, found)
        for name in known.below if depth else ():
            self._visit(f"{folder}/{name}", depth - 1, full, found)

    def _read(self, folder: str, depth: int, known: _Folder, found: list[Path]) -> None:
        known.below = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("journal") and name.endswith(".jsonl"):
                        if name not in known.journals:
                            known.journals.add(name)
                            found.append(Path(folder, name))
                    elif depth and name not in ("ckpt", "report") and entry.is_dir(follow_symlinks=False):
                        known.below.append(name)
        except OSError:
            known.changed = -1


class StoreLock:
    """One shipper a store. The kernel gives the lock back when its holder dies, however it dies."""

    def __init__(self, store: Path) -> None:
        """Take nothing yet."""
        self._path = store / "shipper.lock"
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free."""
        if self._fd is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            self._fd = fd
        return True

    def release(self) -> None:
        """Give it back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
