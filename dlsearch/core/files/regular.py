"""Opening plain files, through no link, where others may have made the names or the neighbours.

Opening a pipe would hang, a link would lead elsewhere. Which folders lie on the way is
looked at before (:mod:`dlsearch.core.files.inside`). Imports nothing heavy.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.core.bounded import parse_json
from dlsearch.core.files.descriptor import Descriptor

if TYPE_CHECKING:
    from io import BufferedReader

#: What a note of dlsearch's own may be long; nothing larger is read as one.
MOST = 64 << 20
_DEVICES = Path(os.devnull).parent


def open_regular(path: Path) -> BufferedReader:
    """Open a plain file to read it.

    Raises:
        FileNotFoundError: There is none.
        OSError: It is a link, a folder, a pipe, a socket or a device; or it cannot be read.
    """
    with Descriptor.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as opened:
        _expect_regular(opened, path)
        return os.fdopen(opened.detach(), "rb")


def read_text(path: Path, most: int = MOST, *, errors: str = "strict") -> str:
    """The text of a small plain file.

    Args:
        path: The file.
        most: Bytes that it may have.
        errors: As of `bytes.decode`.

    Raises:
        FileNotFoundError: There is none.
        OSError: As :func:`open_regular`; or it has more than `most` bytes.
        ValueError: It is no UTF-8.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB", str(path))
    return content.decode("utf-8", errors)


def read_json(path: Path, most: int = MOST) -> Any:
    """What the JSON in a plain file stands for, within the bounds of :mod:`dlsearch.core.bounded`.

    Raises:
        OSError: As :func:`open_regular`; or it has more than `most` bytes.
        ValueError: It is no JSON, or too deep.
    """
    return parse_json(read_text(path, most), str(path), most)


def open_to_append(
    path: Path,
    *,
    also_read: bool = False,
    mode: int = 0o644,
) -> Descriptor:
    """Open a plain file to write behind its end.

    It is made where it is missing. What lies in ``/dev`` may be a device.

    Raises:
        OSError: It is a link, a folder, a pipe, a socket or another device, or has a second name,
            under which it may be a file of somebody's elsewhere.
    """
    access = os.O_RDWR if also_read else os.O_WRONLY
    opened = Descriptor.open(
        path,
        access | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK,
        mode,
    )
    try:
        if path.parent != _DEVICES:
            _expect_regular(opened, path)
            if os.fstat(opened.fileno()).st_nlink > 1:
                raise OSError(
                    errno.EMLINK,
                    "has a second name, and is not written to (a copy has one)",
                    str(path),
                )
    except BaseException:
        opened.close()
        raise
    return opened


def write_text(
    path: Path,
    text: str,
    *,
    errors: str = "strict",
    sync: bool = False,
) -> None:
    """Make a file of this content.

    What had its name, a link included, loses the name and is not written to.

    Args:
        path: The file.
        text: Its content.
        errors: As of `str.encode`.
        sync: Have it on the disk when this returns.

    Raises:
        OSError: The disk is full, or the like.
    """
    path.unlink(missing_ok=True)
    with Descriptor.open(
        path,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW,
        0o666,
    ) as opened:
        descriptor = opened.detach()
    with os.fdopen(
        descriptor,
        "w",
        encoding="utf-8",
        errors=errors,
    ) as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _expect_regular(opened: Descriptor, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        raise OSError(errno.EINVAL, "is no plain file", str(path))
