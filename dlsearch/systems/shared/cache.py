"""Folders of decoded data that appear whole or not at all, whichever process makes them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def key_of(parts: Mapping[str, Any]) -> str:
    """A short name for what `parts` (JSON values) say."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`.

    A second process waits. The kernel lets go of it when its holder dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """Where the body fails, take back the empty ones among `folders` and their parents that were not there before."""
    made = {path for folder in folders for path in (folder, *folder.parents) if not path.exists()}
    try:
        yield
    except BaseException:
        for path in sorted(made, key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):  # something lies in it, or it was never made
                path.rmdir()
        raise


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill `folder`, once. It fills a folder beside it, which is then renamed.

    The lock saves the second process the work; the rename alone makes it safe, also where locks do
    not work (NFS).
    """
    if folder.is_dir():
        return
    lock = folder.parent / f".{folder.name}.lock"
    with no_empty_folders(folder.parent), locked(lock):
        if folder.is_dir():
            return
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            part.chmod(0o755)
            write(part)
            part.rename(folder)
        except BaseException as error:
            # else another process was first
            if not isinstance(error, OSError) or not folder.is_dir():
                # the rename keeps two writers apart where a third now makes another lock
                lock.unlink(missing_ok=True)
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    return json.loads(path.read_text())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON object, keys sorted."""
    path.write_text(json.dumps(value, sort_keys=True, indent=1))


def read_array(path: Path) -> NDArray[Any]:
    """An array mapped into memory: all processes share one copy, in the page cache.

    Copy-on-write, not read-only, because torch warns about tensors that it cannot write to.
    """
    return np.load(path, mmap_mode="c")
