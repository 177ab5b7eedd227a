"""Standard output and standard error that outlast their readers. Imports nothing heavy.

A search goes on when the pipe or the terminal that it writes to is gone, or the disk behind its log
is full; what it says is dropped then. That is done here, below Python's text streams, once for all
who write: a table, a log line, a library, the interpreter's own last flush.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.core.files.disk import FULL

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: The error handler of streams that cannot say every character: of a C locale, say.
PLAINER = "dlsearch.plainer"
_PLAINER = {
    "·": "-",
    "•": "*",
    "●": "*",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "…": "...",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "±": "+-",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
}

STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


class ReaderGoneError(Exception):
    """Nobody reads the standard output any more.

    No OSError: libraries have their own ways with those.
    """


class _Lasting(io.FileIO):
    """Writes to a standard descriptor, and never fails for want of a reader.

    Args:
        number: The descriptor. It stays the process's own.
        ends: Whether the first write without a reader raises ReaderGoneError: there is nothing to
            do but to write.
    """

    def __init__(self, number: int, *, ends: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._ends = ends

    def write(self, data: ReadableBuffer) -> int:
        """Write what can be written; what cannot counts as written."""
        try:
            return super().write(data)
        except OSError as error:
            # of a full disk only these bytes are dropped: there may be room again
            if error.errno not in FULL:
                drop_all_output(self.fileno())
            if self._ends and isinstance(error, BrokenPipeError):
                self._ends = False
                raise ReaderGoneError from None
            return memoryview(data).nbytes


def _make_plainer(error: UnicodeError) -> tuple[str, int]:
    """Write what a stream's encoding does not have in characters that all have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = ""
    for character in error.object[error.start : error.end]:
        if "\u2500" <= character <= "\u257f":  # lines of tables
            plain += "|" if character in "│┃║" else "-"
        else:
            plain += _PLAINER.get(character) or ascii(character)[1:-1]
    return plain, error.end


codecs.register_error(PLAINER, _make_plainer)


def drop_all_output(number: int) -> None:
    """Have a standard descriptor lead nowhere, in this process and in its later children."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), number)


def outlast_readers(*, ends: bool = False) -> None:
    """Let the process's standard output and standard error outlast their readers.

    A second time changes nothing.

    A stream that somebody else has put in their place stays.

    Args:
        ends: Whether a ReaderGoneError is to say when nobody reads the standard output any more:
            for who only writes.
    """
    _open_what_is_closed()
    for name, number in STANDARD.items():
        if name == "stdin":
            continue
        stream = getattr(sys, name)
        if stream is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # for good
            setattr(sys, name, nowhere)
        elif _writes_to(stream, number):
            is_end = ends and name == "stdout"
            lasting = _make_lasting(stream, name, number, ends=is_end)
            setattr(sys, name, lasting)


def _open_what_is_closed() -> None:
    """Open the standard descriptors that are closed.

    Otherwise the next file, a database say, would be the standard output of children.
    """
    for number in STANDARD.values():
        try:
            os.fstat(number)
        except OSError:
            # for good, and the lowest that is free: this one
            opened = os.open(os.devnull, os.O_RDWR)  # noqa: TID251
            os.set_inheritable(opened, True)


def _writes_to(stream: object, number: int) -> bool:
    """Whether it is what Python itself put there."""
    if type(stream) is not io.TextIOWrapper:
        return False
    raw = getattr(stream.buffer, "raw", stream.buffer)
    return type(raw) is io.FileIO and raw.fileno() == number


def _make_lasting(
    stream: io.TextIOWrapper,
    name: str,
    number: int,
    *,
    ends: bool,
) -> io.TextIOWrapper:
    """What Python would have made of the descriptor, on another ground."""
    with suppress(OSError):
        stream.flush()
    raw = _Lasting(number, ends=ends)
    raw.name = f"<{name}>"
    unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    buffer = raw if unbuffered else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=PLAINER,
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
