"""Checkpoints that hold their own digest, so that a file that was cut or changed is noticed.

A checkpoint is a zip archive, and its digest is the archive's comment: one file, so that one rename
puts both in place and a hard link carries both. The digest covers all bytes before the comment, the
field with the comment's length included; every cut and every flipped bit therefore shows. Imports
no torch.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from pathlib import Path

from dlsearch.core.files.stored import NotStoredError, check_stored

_WORD = b"dlsearch sha256 "
_COMMENT = len(_WORD) + 64
_END = b"PK\x05\x06"
_END_BYTES = 22  # of a zip archive: its end record, which has the comment's length last


class Damaged(ValueError):
    """A checkpoint is not what was written."""


def seal(path: Path) -> None:
    """Write the digest of a zip archive without comment into it, and all of it to the disk.

    Raises:
        ValueError: `path` is no such archive.
        OSError: The disk is full, or the like.
    """
    with path.open("r+b") as file:
        end = file.seek(-_END_BYTES, os.SEEK_END)
        record = file.read()
        if record[:4] != _END or record[-2:] != b"\0\0":
            raise ValueError(f"{path} is no zip archive without a comment")
        file.seek(end + _END_BYTES - 2)
        file.write(struct.pack("<H", _COMMENT))
        file.flush()
        digest = _digest(file.fileno(), end + _END_BYTES)
        file.seek(0, os.SEEK_END)
        file.write(_WORD + digest.encode())
        file.flush()
        os.fsync(file.fileno())


def check(path: Path) -> None:
    """Compare a checkpoint with its digest.

    One without, as earlier versions and Lightning write it, with its CRCs.

    Raises:
        Damaged: It is not what was written, or would be larger in memory than on the disk.
        OSError: It cannot be read.
    """
    try:
        check_stored(path)
    except NotStoredError as error:
        raise Damaged(f"{path} {error}") from error
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        covered = size - _COMMENT
        file.seek(max(0, covered))
        comment = file.read()
        if covered > _END_BYTES and comment.startswith(_WORD):
            if _digest(file.fileno(), covered).encode() != comment[len(_WORD) :]:
                raise Damaged(f"{path} is damaged: its content is not what its sha256 was taken of")
            return
        file.seek(max(0, size - _END_BYTES))
        record = file.read()
        if record[:4] != _END or record[-2:] != b"\0\0":
            raise Damaged(
                f"{path} is damaged: it was cut short or changed at its end ({size} bytes)"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error) as error:
        raise Damaged(f"{path} is damaged: {error}") from error
    if wrong is not None:
        raise Damaged(f"{path} is damaged: {wrong} in it has another checksum")


def _digest(fd: int, size: int) -> str:
    """sha256 of the first `size` bytes."""
    found = hashlib.sha256()
    at = 0
    while at < size and (block := os.pread(fd, min(1 << 20, size - at), at)):
        found.update(block)
        at += len(block)
    return found.hexdigest()
