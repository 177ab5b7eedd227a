"""A secret of this user, by which the checkpoints are known that this user's trainings wrote.

A training's checkpoint holds whatever the user's module put into it, and reading that back runs
code that the file names. So a checkpoint is read back so only where a digest of it was recorded
under this key (:mod:`dlsearch.training.state.resume_record`). The key lies in the user's own
folder, not in the store: a store may be somebody else's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from pathlib import Path

from dlsearch.core.files.descriptor import Descriptor
from dlsearch.core.machine.processes import process_tag

_NAME = "resume.key"
_BYTES = 32


def resume_key() -> str:
    """The key, made where there is none yet.

    Where this user has no folder to keep it in, it lives as long as this process: what another one
    wrote is read back as plain values alone.
    """
    try:
        path = _state_folder() / _NAME
        return _read(path) or _make(path) or _make_passing_key()
    except (OSError, RuntimeError):  # no home, or one that takes no file
        return _make_passing_key()


@functools.cache
def _make_passing_key() -> str:
    return secrets.token_hex(_BYTES)


def _state_folder() -> Path:
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given)
    if not base.is_absolute():
        base = Path.home() / ".local" / "state"
    return base / "dlsearch"


def _read(path: Path) -> str:
    """The key at `path`; empty where there is none, or where somebody else may have written it."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        found = os.fstat(file.fileno())
        is_private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        key = file.read(4 * _BYTES).decode("ascii", errors="replace").strip()
        if is_private and len(key) == 2 * _BYTES:
            return key
    return ""


def _make(path: Path) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{_NAME}.part{process_tag()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with Descriptor.open(draft, flags, 0o600) as opened:
        os.write(opened.fileno(), secrets.token_hex(_BYTES).encode())
    try:
        os.link(draft, path)  # the first of several processes makes it
    except FileExistsError:
        if not _read(path):
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return _read(path)
