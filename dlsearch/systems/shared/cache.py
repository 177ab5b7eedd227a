"""Folders of decoded data that appear whole or not at all, whichever process makes them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray


#: A JSON object as a file holds it: its reader knows its shape.
JsonObject: TypeAlias = dict[str, Any]

#: Hexadecimal digits of a folder's key.
_KEY_LENGTH = 12


def key_of(parts: Mapping[str, Any]) -> str:
    """A short name for what `parts` (JSON values) say."""
    text = json.dumps(parts, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return digest[:_KEY_LENGTH]


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
    """Where the body fails, take back those of `folders`, and of their parents, that are new."""
    new: set[Path] = set()
    for folder in folders:
        new.update(path for path in (folder, *folder.parents) if not path.exists())
    try:
        yield
    except BaseException:
        deepest_first = sorted(
            new,
            key=lambda path: len(path.parts),
            reverse=True,
        )
        for path in deepest_first:
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
            another_was_first = isinstance(error, OSError) and folder.is_dir()
            if not another_was_first:
                # the rename keeps two writers apart where a third now makes another lock
                lock.unlink(missing_ok=True)
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)


def read_json(path: Path) -> JsonObject:
    """A JSON object."""
    return json.loads(path.read_text())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON object, keys sorted."""
    text = json.dumps(value, sort_keys=True, indent=1)
    path.write_text(text)


def read_array(path: Path) -> NDArray[Any]:
    """An array mapped into memory: all processes share one copy, in the page cache.

    Copy-on-write, not read-only, because torch warns about tensors that it cannot write to.
    """
    return np.load(path, mmap_mode="c")
