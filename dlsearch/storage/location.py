"""Where a study's storage is, and whether dlsearch may use it.

All of this is known without SQLAlchemy, before anything slow begins.
"""

from __future__ import annotations

import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dlsearch.config.compose import seconds
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import check_root, plain
from dlsearch.core.files.sqlite_url import PREFIX, sqlite_file, sqlite_url
from dlsearch.storage.gated_sqlite import connect
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Tables of which a database of dlsearch has one at least.
OURS = {"studies", "dlsearch_version", "dlsearch_alembic_version"}
_MLFLOW_TABLES = {"experiments", "runs"}
#: Seconds to wait for another connection's lock.
_BUSY_SECONDS = 60
#: User and password of a URL.
_CREDENTIALS = re.compile(r"//[^/@]*@")
#: An escaped character in the kernel's list of mounts.
_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNTS = Path("/proc/self/mountinfo")

#: File systems of several machines, with or without ``fuse.``: they share no memory maps, and some
#: of them no locks.
NETWORK = {
    "9p",
    "acfs",
    "afp_osxfuse",
    "afpfs",
    "afs",
    "beegfs",
    "ceph",
    "ceph-fuse",
    "cephfs",
    "cifs",
    "coda",
    "davfs",
    "davfs2",
    "gcsfuse",
    "gfs",
    "gfs2",
    "glusterfs",
    "goofys",
    "gpfs",
    "juicefs",
    "lustre",
    "mfs",
    "moosefs",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "panfs",
    "pvfs2",
    "quobyte",
    "rclone",
    "s3fs",
    "seaweedfs",
    "smb3",
    "smbfs",
    "smbnetfs",
    "sshfs",
    "wekafs",
}


def check_folders(store: Path, study: str) -> None:
    """Check the folders of a study, and those of all studies, before a worker writes to them.

    A worker checks a trial's folder when it begins with the trial.

    Raises:
        OutsideError: One holds a link out of it, or something that is neither a file nor a folder.
    """
    check_root(store)
    study_folder = layout.study_folder(study)
    own_folders = (
        study_folder,
        layout.confirm_folder(study),
        layout.pending_folder(study),
        f"{study_folder}/ensemble",
        f"{study_folder}/report",
    )
    for folder in own_folders:
        plain(store, folder, deep=False)
    for folder in ("cache", "weights"):
        plain(store, folder)


def mask(url: str) -> str:
    """The URL without its user and password."""
    return _CREDENTIALS.sub("//", url)


def storage_of(store: Path, study: Mapping[str, Any]) -> str:
    """The URL of the storage that the section ``study`` of a config names.

    Raises:
        ConfigError: It is no URL of a database that can hold a study, or SQLite's file would be on
            a network file system.
    """
    url = storage_url(store, study["storage"])
    if not study["storage_on_network_fs"]:
        refuse_network(url)
    return url


def patience(study: Mapping[str, Any]) -> float:
    """For how long an outage is waited out by the section ``study`` of a config, seconds.

    Raises:
        ConfigError: It is no duration.
    """
    patience_s = seconds(study["storage_patience"], "study.storage_patience")
    if patience_s is None:
        return math.inf
    return patience_s


def storage_url(store: Path, url: str | None) -> str:
    """The configured URL, or SQLite in the store.

    Raises:
        ConfigError: It is no URL of a database that can hold a study.
    """
    if url is None:
        return sqlite_url(store.resolve() / "dlsearch.db")
    if not url.startswith((PREFIX, "postgresql://", "postgresql+")):
        hint = "sqlite:///… or postgresql+psycopg://…"
        raise ConfigError("study.storage", f"expected a database URL, got {mask(url)!r}", hint)
    return url


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for a server's."""
    return sqlite_file(url)


def exists(url: str) -> bool:
    """Whether opening would create nothing."""
    path = sqlite_path(url)
    return path is None or path.is_file()


def filesystem(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system that holds `path`, or will; None where it is not known.

    Args:
        path: It need not exist: its nearest parent that does decides.
        mounts: The kernel's list, as proc(5) describes it.
    """
    existing = path.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    existing = existing.resolve()
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    found = None
    longest = -1
    for line in lines:
        mount_point, kind = _read_mount(line)
        length = len(mount_point.parts)
        # Of mounts at one point, the last covers the others.
        if existing.is_relative_to(mount_point) and length >= longest:
            found = kind
            longest = length
    return found


def _read_mount(line: str) -> tuple[Path, str]:
    """Mount point and file system of one line of the kernel's list."""
    before, _, after = line.partition(" - ")
    escaped = before.split(" ")[4]
    mount_point = _OCTAL.sub(_unescape_octal, escaped)
    kind = after.split(" ")[0]
    return Path(mount_point), kind


def _unescape_octal(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], base=8))


def _is_network(kind: str) -> bool:
    """Whether a file system is one of several machines."""
    if kind in NETWORK or kind.startswith(("nfs", "smb")):
        return True
    return kind.removeprefix("fuse.") in NETWORK


def refuse_network(url: str, mounts: Path = _MOUNTS) -> None:
    """Refuse SQLite where machines share a file system. Reads only.

    Raises:
        ConfigError: Its file is, or would be, on one.
    """
    path = sqlite_path(url)
    if path is None:
        return
    kind = filesystem(path, mounts)
    if kind is not None and _is_network(kind):
        raise ConfigError(
            "study.storage",
            f"{path} lies on a network file system ({kind}), where SQLite's write-ahead log cannot"
            " work: its -shm file is shared memory",
            "PostgreSQL, study.storage=postgresql+psycopg://…, or a local folder, paths.store=…;"
            " see docs/failures.md",
        )


def refuse_foreign(url: str, tables: set[str]) -> None:
    """Refuse a database by its tables.

    Raises:
        ConfigError: It is another program's.
    """
    if tables >= _MLFLOW_TABLES:
        raise ConfigError(
            "study.storage",
            f"{mask(url)} is MLflow's database",
            "give the search its own",
        )
    if tables and not tables & OURS:
        raise ConfigError(
            "study.storage",
            f"{mask(url)} holds another program's tables",
            "name a new file",
        )


def check_storage(url: str) -> None:
    """Refuse an existing file that is not ours. Reads only.

    Raises:
        ConfigError: It is no database, or another program's.
    """
    path = sqlite_path(url)
    if path is None or not path.is_file():
        return
    try:
        tables = _read_sqlite_tables(path)
    except sqlite3.Error as error:
        raise ConfigError("study.storage", f"cannot open {mask(url)}: {error}") from error
    refuse_foreign(url, tables)


def _read_sqlite_tables(path: Path) -> set[str]:
    """The names of a SQLite database's tables."""
    uri = f"file:{quote(str(path))}?mode=ro"
    with closing(connect(uri, uri=True, timeout=_BUSY_SECONDS)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        return {row[0] for row in rows}
