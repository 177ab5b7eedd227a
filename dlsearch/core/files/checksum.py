"""Checkpoints that hold their own digest, so that a file that was cut or changed is noticed.

A checkpoint is a zip archive, and its digest is the archive's comment: one file, so that one rename
puts both in place and a hard link carries both. The digest covers all bytes before the comment, the
field with the comment's length included; every cut and every flipped bit therefore shows.

A file of weights is a ``safetensors`` file. Its digest stands in the metadata of its header, and
covers the whole file with zeros in its own place. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from pathlib import Path

from dlsearch.core.files.stored import NotStoredError, check_stored

_WORD = b"dlsearch sha256 "
_COMMENT = len(_WORD) + 64
_END = b"PK\x05\x06"
_END_BYTES = 22  # of a zip archive: its end record, which has the comment's length last

#: How the name of a file of weights ends.
TENSORS = ".safetensors"
#: The entry in its metadata that is ours: JSON, of which the digest is one value.
METADATA = "dlsearch"
#: The key of the digest in that JSON.
SHA256 = "sha256"
#: Bytes of a header, at most: safetensors reads no more either.
_MAX_HEADER = 100_000_000
_DIGITS = 64


class Damaged(ValueError):
    """A checkpoint is not what was written."""


def seal(path: Path) -> str:
    """Write the digest of a zip archive without comment into it, and all of it to the disk.

    Returns:
        The digest.

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
    return digest


def sealed_digest(path: Path) -> str | None:
    """The digest that a zip archive holds, as it stands there; None where it holds none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _COMMENT))
        comment = file.read()
    if not comment.startswith(_WORD):
        return None
    return comment[len(_WORD) :].decode(errors="replace")


def check(path: Path) -> None:
    """Compare a checkpoint, or a file of weights, with its digest.

    A checkpoint without, as earlier versions and Lightning write it, with its CRCs.

    Raises:
        Damaged: It is not what was written, or would be larger in memory than on the disk.
        OSError: It cannot be read.
    """
    if path.suffix == TENSORS:
        _check_tensors(path)
        return
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


# -- files of weights ------------------------------------------------------------------------------
def seal_tensors(path: Path, placeholder: str) -> None:
    """Write the digest of a file of weights in the place of `placeholder`, and all to the disk.

    Args:
        path: A ``safetensors`` file whose metadata hold `placeholder` as the digest.
        placeholder: 64 characters that occur nowhere else in the header.

    Raises:
        OSError: The disk is full, or the like.
    """
    with path.open("r+b") as file:
        at = _place_in_header(path, file.fileno(), placeholder)
        digest = _digest_without(file.fileno(), at)
        file.seek(at)
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())


def _check_tensors(path: Path) -> None:
    """Compare a file of weights with the digest in its header.

    Raises:
        Damaged: It is not what was written.
    """
    with path.open("rb") as file:
        header = _read_header(path, file.fileno())
        try:
            wanted = json.loads(json.loads(header)["__metadata__"][METADATA])[SHA256]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Damaged(f"{path} is damaged: its header holds no digest of it") from error
        if not isinstance(wanted, str) or len(wanted) != _DIGITS:
            raise Damaged(f"{path} is damaged: its header holds no digest of it")
        at = _place_in_header(path, file.fileno(), wanted)
        if _digest_without(file.fileno(), at) != wanted:
            raise Damaged(f"{path} is damaged: its content is not what its sha256 was taken of")


def _read_header(path: Path, fd: int) -> bytes:
    size = os.fstat(fd).st_size
    first = os.pread(fd, 8, 0)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > min(_MAX_HEADER, size - 8):
        raise Damaged(f"{path} is damaged: it was cut short, or is no file of weights")
    return os.pread(fd, length, 8)


def _place_in_header(path: Path, fd: int, digits: str) -> int:
    """Where a digest stands in a file of weights."""
    header = _read_header(path, fd)
    if header.count(digits.encode()) != 1:
        raise Damaged(f"{path} is damaged: its header does not hold its digest once")
    return 8 + header.index(digits.encode())


def _digest_without(fd: int, at: int) -> str:
    """sha256 of a file with zeros in the place of its digest."""
    before = os.pread(fd, at, 0) + b"0" * _DIGITS
    return _digest(fd, os.fstat(fd).st_size, before)


def _digest(fd: int, size: int, before: bytes = b"") -> str:
    """sha256 of the first `size` bytes, of which `before` takes the place of the first ones."""
    found = hashlib.sha256(before)
    at = len(before)
    while at < size and (block := os.pread(fd, min(1 << 20, size - at), at)):
        found.update(block)
        at += len(block)
    return found.hexdigest()
