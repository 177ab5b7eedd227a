"""The journals of a store, and how far each has been sent.

Imports no mlflow: the driver reads it too.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING

from dlsearch.core.files.locks import exclusive_lock
from dlsearch.core.files.regular import open_regular, read_json, write_text
from dlsearch.core.machine.processes import process_tag
from dlsearch.tracking.journal import opens, read, shipped_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from filelock import FileLock

_LEVELS = (("studies", 3), ("runs", 1))  # folder of the store, and how deep below it journals stand
# a folder changed less than this before it was read may have changed again under the same time
# stamp
_FRESH_S = 2.0
_FULL_EVERY_S = 1.0
_WITHOUT_JOURNALS = ("ckpt", "report")
_BLOCK = 1 << 16
MAX_NOTES = 100_000


def server_id(uri: str) -> str:
    """What a tracking server is called in a journal's notes; `uri` itself may hold a password."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Notes:
    """What is kept beside a journal, as JSON.

    Args:
        server: :func:`server_id` of where it is sent.
        run_id: MLflow's run; None before there is one.
        experiment_id: That run's experiment.
        kind: What the run is of.
        offset: Everything before it has been accepted.
        creating: Whether a run may exist that no note names.
        ended: Whether the run has ended.
    """

    server: str
    run_id: str | None
    experiment_id: str | None
    kind: str
    offset: int
    creating: bool
    ended: bool

    @classmethod
    def read(cls, path: Path) -> Notes:
        """What :meth:`Tail.save` wrote.

        Raises:
            OSError: It cannot be read.
            ValueError: It is something else.
        """
        found = read_json(path, MAX_NOTES)
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        for name, kind in _KINDS_OF_NOTES.items():
            if not isinstance(found.get(name), kind):
                raise ValueError(f"{name} is something else")
        return cls(**{name: found[name] for name in _KINDS_OF_NOTES})


_KINDS_OF_NOTES: dict[str, type | UnionType] = {
    "server": str,
    "run_id": str | None,
    "experiment_id": str | None,
    "kind": str,
    "offset": int,
    "creating": bool,
    "ended": bool,
}


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
    _kept: Notes | None = None

    @classmethod
    def load(cls, path: Path, server: str) -> Tail:
        """With the notes that an earlier shipper left."""
        tail = cls(path, server)
        with suppress(OSError, ValueError):
            notes = Notes.read(shipped_path(path))
            if notes.server == server and notes.offset <= path.stat().st_size:
                tail.run_id = notes.run_id
                tail.experiment_id = notes.experiment_id
                tail.kind = notes.kind
                tail.offset = notes.offset
                tail.creating = notes.creating
                tail.ended = notes.ended
                tail._kept = notes
        return tail

    def commit(self, offset: int) -> None:
        """Note that everything before `offset` has been accepted."""
        self.offset = offset
        self.save()

    def save(self) -> None:
        """Write the notes, atomically."""
        notes = self._make_notes()
        if notes == self._kept:
            return
        target = shipped_path(self.path)
        draft = target.with_name(f".{target.name}.{process_tag()}")
        write_text(draft, json.dumps(vars(notes)))
        draft.replace(target)
        self._kept = notes

    def reset(self) -> None:
        """Begin again: the run is gone from the server."""
        self.run_id = self.experiment_id = self.job = None
        self.offset = 0
        self.seen = -1
        self.creating = True
        self.ended = False
        self.save()

    def _make_notes(self) -> Notes:
        return Notes(
            server=self.server,
            run_id=self.run_id,
            experiment_id=self.experiment_id,
            kind=self.kind,
            offset=self.offset,
            creating=self.creating,
            ended=self.ended,
        )


def in_order(path: Path) -> tuple[int, Path]:
    """Parents first, then by number."""
    return len(path.parts), path


def discover(store: Path) -> Iterator[Path]:
    """Every journal of a store; none behind a symbolic link."""
    yield from Discovery(store).scan(full=True)[0]


def backlog(
    store: Path,
    server: str,
    wanted: Callable[[Path], bool] | None = None,
) -> dict[Path, int]:
    """The journals with whole lines that `server` has not accepted, and where the last one ends.

    A file that opens no run is left out: nothing of it can be sent.

    Args:
        store: The store.
        server: As :func:`server_id` names it.
        wanted: Which journals count; all by default.
    """
    found: dict[Path, int] = {}
    for path in discover(store):
        if wanted is not None and not wanted(path):
            continue
        end = _complete_size(path)
        if Tail.load(path, server).offset < end and _opens_a_run(path):
            found[path] = end
    return found


def _opens_a_run(path: Path) -> bool:
    first_rows, _ = read(path, 0, _BLOCK)
    return any(opens(row) for row, _ in first_rows)


def pending_rows(
    store: Path,
    server: str,
    wanted: Callable[[Path], bool] | None = None,
) -> int:
    """How many rows `server` has not accepted."""
    count = 0
    for path, end in backlog(store, server, wanted).items():
        begin = Tail.load(path, server).offset
        rows, _ = read(path, begin, end - begin)
        count += len(rows)
    return count


def _complete_size(path: Path) -> int:
    """The offset behind the last newline."""
    try:
        with open_regular(path) as file:
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

    Folders whose journals have all ended are left out; a look at all of them costs at most a
    fiftieth of the time.
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
        started = time.monotonic()
        full = full or started >= self._next_full
        found: list[Path] = []
        for top, depth in _LEVELS:
            folder = str(self._store / top)
            self._visit_folder(folder, depth, full, found)
        if full:
            ended = time.monotonic()
            took = ended - started
            self._next_full = ended + max(_FULL_EVERY_S, 50 * took)
        found.sort(key=in_order)
        return found, full

    def _visit_folder(
        self,
        folder: str,
        depth: int,
        full: bool,
        found: list[Path],
    ) -> None:
        known = self._folders.setdefault(folder, _Folder())
        if not full and folder in self._settled:
            return
        try:
            found_now = os.lstat(folder)  # thousands of them: no Path for each
        except OSError:
            return
        if not stat.S_ISDIR(found_now.st_mode):  # a link leads out of the store
            return
        changed = found_now.st_mtime_ns
        if changed != known.changed or known.read_at - changed / 1e9 < _FRESH_S:
            known.changed = changed
            known.read_at = time.time()
            self._read_folder(folder, depth, known, found)
        for name in known.below if depth else ():
            self._visit_folder(f"{folder}/{name}", depth - 1, full, found)

    def _read_folder(
        self,
        folder: str,
        depth: int,
        known: _Folder,
        found: list[Path],
    ) -> None:
        known.below = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("journal") and name.endswith(".jsonl"):
                        if name not in known.journals and entry.is_file(follow_symlinks=False):
                            known.journals.add(name)
                            found.append(Path(folder, name))
                    elif not depth or name in _WITHOUT_JOURNALS:
                        continue
                    elif entry.is_dir(follow_symlinks=False):
                        known.below.append(name)
        except OSError:
            known.changed = -1


class StoreLock:
    """The lock that lets one shipper at a time serve a store.

    The kernel releases it when its holder dies, however it dies.

    Args:
        store: The store; its folder is made when the lock is acquired.
    """

    def __init__(self, store: Path) -> None:
        """Acquire nothing yet."""
        self._path = store / "shipper.lock"
        self._lock: FileLock | None = None

    def acquire(self) -> bool:
        """Acquire the lock if it is free. Whether this process holds it now.

        Raises:
            OSError: The lock file is a symbolic link, or the file system has no such locks.
        """
        if self._lock is not None:
            return True
        from filelock import Timeout

        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = exclusive_lock(self._path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self._lock = lock
        return True

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
