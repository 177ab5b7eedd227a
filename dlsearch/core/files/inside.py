"""Paths that were read from data: below the store and through no symbolic link, or refused.

A store may come from somebody else: its databases, journals and notes name files, and its folders
may hold links. What they name is looked at here before it is opened, written or removed. The store
itself is the user's word: it may be a symbolic link, or lie below one.

Between the check and the use a folder can be swapped by anybody who may write to the store;
files are therefore opened without following a link as well
(:mod:`dlsearch.core.files.regular`).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    import sqlite3

#: What dlsearch itself makes in the root of a store: folders, and files by the beginnings of their
#: names.
_FOLDERS = ("studies", "runs", "artifacts", "look", "cache", "weights")
_FILES = ("dlsearch.db", "mlflow.db", "shipper.", "ui-", ".room.")
#: SQLite's names for what it keeps beside a database while it writes, and how that ends where it
#: names another file.
_JOURNALS = ("dlsearch.db-journal", "mlflow.db-journal")
_MAGIC = bytes.fromhex("d9d505f920a163d7")


class OutsideError(ConfigError):
    """A path that was read from data leads out of the store, or to no plain file or folder."""


def inside(store: Path, path: str | Path) -> Path:
    """A path that was read from data, if it lies below the store and passes through no link.

    Args:
        store: The store's folder; it may be a symbolic link itself.
        path: Absolute, or relative to the store. It need not exist.

    Returns:
        The path below `store`, without ``..``.

    Raises:
        OutsideError: It leads elsewhere, through a symbolic link, or to a pipe, a socket or a
            device.
    """
    relative = Path(_relative(store, path))
    at = os.fspath(store)
    for part in relative.parts:
        at = os.path.join(at, part)  # noqa: PTH118  # thousands of them: no Path for each
        try:
            mode = os.lstat(at).st_mode
        except (FileNotFoundError, NotADirectoryError):
            break
        except OSError as error:
            raise OutsideError(
                "paths.store", f"{_shown(at)} cannot be looked at: {error.strerror}"
            ) from error
        _check(at, mode)
    return Path(store, relative)


def is_inside(store: Path, path: str | Path) -> bool:
    """Whether :func:`inside` takes a path."""
    try:
        inside(store, path)
    except OutsideError:
        return False
    return True


def is_below(store: Path, path: str | Path) -> bool:
    """Whether a path is written as one below the store, whatever it passes through."""
    try:
        _relative(store, path)
    except OutsideError:
        return False
    return True


def plain(store: Path, path: str | Path, *, deep: bool = True) -> Path:
    """A folder of the store that files are written to, looked at with all that is in it.

    Args:
        store: The store's folder.
        path: The folder; it need not exist.
        deep: Whether the folders below it are looked at, too.

    Returns:
        As :func:`inside` does.

    Raises:
        OutsideError: As there; or it holds a link out of it, a pipe, a socket or a device. A link
            that stays within the folder, as some callbacks make one, is none of these.
    """
    folder = inside(store, path)
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return folder
    except OSError as error:
        raise OutsideError(
            "paths.store", f"{folder} cannot be looked at: {error.strerror}"
        ) from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if deep:
                plain(store, entry.path)
        elif entry.is_symlink():
            if not Path(entry.path).resolve().is_relative_to(folder.resolve()):
                _refuse_link(entry.path)
        elif not entry.is_file(follow_symlinks=False):
            _refuse_special(entry.path)
    return folder


def check_root(store: Path) -> None:
    """Check what dlsearch keeps in the root of a store: databases, logs, locks and folders.

    Raises:
        OutsideError: Something of it is a symbolic link, a pipe, a socket or a device; or SQLite's
            journal names another file, which SQLite would remove.
    """
    try:
        entries = list(os.scandir(store))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutsideError(
            "paths.store", f"{store} cannot be looked at: {error.strerror}"
        ) from error
    for entry in entries:
        if entry.name not in _FOLDERS and not entry.name.startswith(_FILES):
            continue
        if entry.is_symlink():
            _refuse_link(entry.path)
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            _refuse_special(entry.path)
        if entry.name in _JOURNALS:
            _check_journal(Path(entry.path))


def check_database(path: Path) -> None:
    """Look at what SQLite keeps beside a database file before it is opened.

    Raises:
        OutsideError: It is a link, a pipe, a socket or a device, or a journal that names another
            file.
    """
    for suffix in ("-wal", "-shm", "-journal"):
        beside = path.with_name(f"{path.name}{suffix}")
        try:
            mode = beside.lstat().st_mode
        except OSError:
            continue
        _check(str(beside), mode)
        if suffix == "-journal":
            _check_journal(beside)


def check_schema(connection: sqlite3.Connection, *, triggers: bool = True) -> None:
    """Refuse programs in a SQLite database.

    A view can go on for ever, and a trigger acts when a row is written.

    Args:
        connection: To it.
        triggers: Whether they count. MLflow makes one itself; where it has files is looked at after
            each row.

    Raises:
        OutsideError: It holds one.
    """
    kinds = "'view', 'trigger'" if triggers else "'view'"
    found = connection.execute(
        f"SELECT type, name FROM sqlite_master WHERE type IN ({kinds})"
    ).fetchone()
    if found is not None:
        shown = f"a database in it holds the {found[0]} {_short(str(found[1]))}, which is a program"
        raise OutsideError(
            "paths.store",
            shown,
            "dlsearch makes none: do not open this store",
        )


def _relative(store: Path, path: str | Path) -> str:
    text = os.fspath(path)
    if not isinstance(text, str) or "\0" in text:
        raise OutsideError("paths.store", f"expected a path below {store}, got {text!r}")
    given = os.path.abspath(store)  # noqa: PTH100  # as given: links stay
    real = os.path.realpath(store)
    if not os.path.isabs(text) and text.startswith(os.path.join(store, "")):  # noqa: PTH117,PTH118
        text = os.path.abspath(text)  # noqa: PTH100
    whole = os.path.normpath(os.path.join(given, text))  # noqa: PTH118
    for root in (given, real):
        below = os.path.join(root, "")  # noqa: PTH118
        if whole.startswith(below) and whole != below:
            return whole.removeprefix(below)
    raise OutsideError(
        "paths.store",
        f"{_short(text)} leads out of the store {store}",
        "nothing was read or written",
    )


def _check(at: str, mode: int) -> None:
    if stat.S_ISLNK(mode):
        _refuse_link(at)
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        _refuse_special(at)


def _refuse_link(path: str) -> None:
    raise OutsideError(
        "paths.store",
        f"{_shown(path)} is a symbolic link, and none is followed in a store",
        "put what it names in its place",
    )


def _refuse_special(path: str) -> None:
    raise OutsideError(
        "paths.store",
        f"{_shown(path)} is neither a file nor a folder, and is not opened",
        "remove it",
    )


def _check_journal(path: Path) -> None:
    """Refuse a rollback journal that names a super-journal.

    SQLite would remove the file of that name, wherever it is.

    Only a transaction over several databases leaves one, and there is none here.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(_MAGIC)))
        if file.read() == _MAGIC:
            shown = f"{path} names another file, which SQLite would remove"
            raise OutsideError(
                "paths.store",
                shown,
                "dlsearch leaves no such journal: do not open this store",
            )


def _short(text: str) -> str:
    return repr(text if len(text) < 120 else f"{text[:120]}…")


def _shown(path: str) -> str:
    """A path for a line of text: what its names hold was written by others."""
    return "".join(each if each.isprintable() else "?" for each in path)
