"""Zip archives whose members are stored as they are: no file stands for more bytes than it has.

torch writes its checkpoints and programs so. A member that is compressed, or shares its bytes with
another, may expand a thousandfold, and torch would read it all. Imports no torch.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

#: A network has fewer tensors.
MAX_MEMBERS = 100_000


class NotStoredError(ValueError):
    """An archive is none, or holds more than it is large."""


def open_stored(path: Path) -> zipfile.ZipFile:
    """Open an archive for reading.

    Raises:
        NotStoredError: It is none, or one of its members is compressed, or there are too many.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, IndexError) as error:
        raise NotStoredError(f"is no zip archive: {error}") from error
    try:
        _check(archive.infolist(), size)
    except NotStoredError:
        archive.close()
        raise
    return archive


def check_stored(path: Path) -> None:
    """Check that no file of an archive is larger than its share of it.

    What is no zip archive passes.

    Raises:
        NotStoredError: See :func:`open_stored`.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
    except (zipfile.BadZipFile, ValueError) as error:
        raise NotStoredError(f"is no zip archive: {error}") from error
    open_stored(path).close()


def _check(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise NotStoredError(f"holds more than {MAX_MEMBERS:,} files")
    # two readers may take two different ones
    if len({each.filename for each in members}) < len(members):
        raise NotStoredError("holds one name twice")
    packed = next(
        (
            m
            for m in members
            if m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size
        ),
        None,
    )
    if packed is not None:
        raise NotStoredError(
            f"holds {packed.filename[:100]!r} compressed, which torch never writes"
        )
    total = sum(each.file_size for each in members)
    if total > size:
        raise NotStoredError(f"holds {total:,} bytes in {size:,}")
