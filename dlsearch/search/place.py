"""Where a study's storage is, and whether it can be ours; known without SQLAlchemy, before anything slow begins."""

from __future__ import annotations

import math
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.compose import seconds
from dlsearch.config.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

OURS = {"studies", "dlsearch_version", "dlsearch_alembic_version"}


#: File systems of several machines, which share neither memory maps nor, all of them, locks; with or without ``fuse.``.
NETWORK = {
    "9p", "acfs", "afp_osxfuse", "afpfs", "afs", "beegfs", "ceph", "ceph-fuse", "cephfs", "cifs", "coda", "davfs",
    "davfs2", "gcsfuse", "gfs", "gfs2", "glusterfs", "goofys", "gpfs", "juicefs", "lustre", "mfs", "moosefs",
    "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "quobyte", "rclone", "s3fs", "seaweedfs", "smb3",
    "smbfs", "smbnetfs", "sshfs", "wekafs",
}  # fmt: skip


def mask(url: str) -> str:
    """The URL without its user and password."""
    return re.sub(r"//[^/@]*@", "//", url)


def storage_of(store: Path, study: Mapping[str, Any]) -> str:
    """The URL of the storage that the section ``study`` of a config names; looks where it lies.

    Raises:
        ConfigError: It is no URL of a database that can hold a study, or SQLite's file would lie on a network.
    """
    url = storage_url(store, study["storage"])
    if not study["storage_on_network_fs"]:
        refuse_network(url)
    return url


def patience(study: Mapping[str, Any]) -> float:
    """Seconds that the section ``study`` of a config has the database waited for.

    Raises:
        ConfigError: It is no duration.
    """
    found = seconds(study["storage_patience"], "study.storage_patience")
    return math.inf if found is None else found


def storage_url(store: Path, url: str | None) -> str:
    """The configured URL, or SQLite in the store.

    Raises:
        ConfigError: It is no URL of a database that can hold a study.
    """
    if url is None:
        return f"sqlite:///{store.resolve() / 'dlsearch.db'}"
    if not url.startswith(("sqlite:///", "postgresql://", "postgresql+")):
        hint = "sqlite:///… or postgresql+psycopg://…"
        raise ConfigError("study.storage", f"expected a database URL, got {mask(url)!r}", hint)
    return url


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for a server's."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def exists(url: str) -> bool:
    """Whether opening would create nothing."""
    path = sqlite_path(url)
    return path is None or path.is_file()


def filesystem(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the file system that holds `path`, or will; None where the machine does not say.

    Args:
        path: It need not exist: its nearest parent that does decides.
        mounts: The kernel's list, as proc(5) describes it.
    """
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    path = path.resolve()
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    found, longest = None, -1
    for line in lines:
        fields, _, rest = line.partition(" - ")
        at = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4]))
        # Of mounts at one point, the last covers the others.
        if path.is_relative_to(at) and len(at.parts) >= longest:
            found, longest = rest.split(" ")[0], len(at.parts)
    return found


def refuse_network(url: str, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Refuse SQLite where machines share a file system. Reads only.

    Raises:
        ConfigError: Its file lies, or would lie, on one.
    """
    path = sqlite_path(url)
    kind = None if path is None else filesystem(path, mounts)
    if kind is not None and (
        kind in NETWORK or kind.startswith(("nfs", "smb")) or kind.removeprefix("fuse.") in NETWORK
    ):
        raise ConfigError(
            "study.storage",
            f"{path} lies on a network file system ({kind}), where SQLite's write-ahead log cannot work: its -shm file"
            " is shared memory",
            "PostgreSQL, study.storage=postgresql+psycopg://…, or a local folder, paths.store=…; see docs/failures.md",
        )


def refuse_foreign(url: str, tables: set[str]) -> None:
    """Refuse a database by its tables.

    Raises:
        ConfigError: It is another program's.
    """
    if {"experiments", "runs"} <= tables:
        raise ConfigError("study.storage", f"{mask(url)} is MLflow's database", "give the search its own")
    if tables and not tables & OURS:
        raise ConfigError("study.storage", f"{mask(url)} holds another program's tables", "name a new file")


def check_storage(url: str) -> None:
    """Refuse an existing file that is not ours. Reads only.

    Raises:
        ConfigError: It is no database, or another program's.
    """
    path = sqlite_path(url)
    if path is None or not path.is_file():
        return
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ConfigError("study.storage", f"cannot open {mask(url)}: {error}") from error
    refuse_foreign(url, tables)
