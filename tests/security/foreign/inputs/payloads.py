"""Pickles and archives that act when they are loaded."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.security.foreign.inputs.base import SHELL


class _Touch:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (SHELL,))


def pickled() -> bytes:
    """A pickle that runs a command."""
    return pickle.dumps(_Touch())


def archive(**members: bytes) -> bytes:
    """A zip file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


def torch_pickled() -> bytes:
    """What ``torch.save`` would have written, with a pickle that runs a command."""
    return archive(**{"x/data.pkl": pickled(), "x/byteorder": b"little", "x/version": b"3\n"})


def rewrite(
    path: Path, change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED
) -> None:
    """Change the members of an archive in place."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)


def zeros(size: int) -> bytes:
    """A zip file with one member of so many zeros, which compress well."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file,
        file.open("x", "w") as member,
    ):
        block = bytes(1 << 20)
        for _ in range(size >> 20):
            member.write(block)
    return stream.getvalue()
