r"""Standard output and standard error without secrets, and without what changes a terminal.

Imports nothing heavy.

A text is masked when its line is whole: a secret may come in two writes, or in twenty. A carriage
return ends a line too, so that a progress bar is seen in time. A line that is flushed before it
ends is written up to where a secret could have begun; the rest waits for what follows, for the end
of the stream, or for :data:`LONGEST` characters. What follows is masked together with what was
written of its line, so that ``password=`` is remembered.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from dlsearch.console.output import ReaderGoneError
from dlsearch.core import masking

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Of a line that does not end.
LONGEST = 1 << 16
#: Characters at the end of a line in which the beginning of a secret is looked for.
_TAIL = 4096
#: Lines of a private key that are left out, where its end does not come.
_KEY_LINES = 400
_OF_A_KEY = r"\s*(?:[A-Za-z0-9+/=]{0,100}|(?:Proc-Type|DEK-Info|Comment|Version): .{0,100})\s*"

#: What a progress bar and a table in colours need: colours, moves of the cursor, erasing. It
#: changes nothing else.
_HARMLESS_SEQUENCE = r"\x1b\[[0-9;]{0,20}[A-HJKm]|\x1b\[\?25[hl]"
#: Control characters, what turns a line around, what is not seen, and halves of surrogate pairs.
_CONTROLS = (
    r"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f"
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


@cache
def _control_pattern() -> re.Pattern[str]:
    return re.compile(f"(?P<kept>{_HARMLESS_SEQUENCE})|{_CONTROLS}")


def tame(text: str) -> str:
    r"""`text` as a terminal can be given it: only colours and moves of the cursor are kept.

    What a terminal does not show it may obey: the clipboard is set, a title, a link; an answer is
    typed for the user.
    """
    if text.isprintable():
        return text
    return _control_pattern().sub(_tame_match, text)


def _tame_match(match: re.Match[str]) -> str:
    """A harmless sequence as it is, a control character written out."""
    kept: str | None = match["kept"]
    return kept or escaped(match[0])


def escaped(character: str) -> str:
    r"""A character as Python writes it: ``\x1b``, ``\u202e``."""
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"


class MaskedStream(io.TextIOBase):
    """A text stream that writes to another one what is left of a text without its secrets.

    Safe in threads and forks.

    Args:
        inner: Gets what is written here, line by line.
        terminal: Whether somebody may look at it on a terminal: then it is tamed as well.
    """

    def __init__(self, inner: TextIO, *, terminal: bool = False) -> None:
        """Nothing is written yet."""
        self.inner = inner
        self._terminal = terminal
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._line = ""  # that has not ended
        self._written = ""  # of it, masked
        self._key_lines = 0  # that may still be left out of a private key which has begun
        self._bytes: _Bytes | None = None

    def write(self, text: str) -> int:
        """Write `text`; a line that is not whole waits."""
        with self._own_lock():
            whole = max(text.rfind("\n"), text.rfind("\r")) + 1  # characters of lines that end
            if whole:
                self._line += text[:whole]
                self._write_up_to(len(self._line))
                self._line = text[whole:]
            else:
                self._line += text
            if len(self._line) > LONGEST:
                self._write_beginning()
        return len(text)

    def flush(self) -> None:
        """Write what may be written of a line that is not whole, and flush the inner stream."""
        with self._own_lock():
            if self._line and not self._key_lines:
                self._write_up_to(_count_ready(self._line))
            self.inner.flush()

    def finish(self) -> None:
        """Write all that waits: nothing follows."""
        with self._own_lock():
            self._write_up_to(len(self._line))
            self._line = ""
            self._written = ""
            self.inner.flush()

    def close(self) -> None:
        """Write all that waits; the inner stream stays open."""
        with suppress(ValueError):  # it is closed already
            self.finish()

    def _own_lock(self) -> threading.RLock:
        """The lock; a new one in a child that was forked.

        What waits belongs to the parent, and so does the thread that holds the lock.
        """
        if self._process != os.getpid():
            self._lock = threading.RLock()
            self._process = os.getpid()
            self._line = ""
            self._written = ""
        return self._lock

    def _write_up_to(self, end: int) -> None:
        """Write the line up to `end`, but for what was written of it."""
        raw = self._line[:end]
        is_whole = raw.endswith(("\n", "\r"))
        if is_whole or self._key_lines:
            raw = self._without_keys(raw)
        masked = masking.mask_text(raw)
        new = masked
        if self._written:
            new = masked[_count_shared(masked, self._written) :]
        if new:
            self._written = masked
            self.inner.write(tame(new) if self._terminal else new)
        if is_whole:
            self._written = ""
            if not self._terminal:
                # a process that is killed says no more; a terminal's stream does so itself
                self.inner.flush()

    def _write_beginning(self) -> None:
        """Write a line that is too long to wait for, less what may begin a secret."""
        end = _count_ready(self._line)
        if len(self._line) - end > LONGEST // 2:
            end = len(self._line) - masking.longest_unfinished(self._line)
        self._write_up_to(end)
        self._line = self._line[end:]
        self._written = ""

    def _without_keys(self, text: str) -> str:
        """`text` without the lines of private keys that end in a later one."""
        if not self._key_lines and "PRIVATE KEY" not in text:
            return text
        lines = text.splitlines(keepends=True)
        return "".join(self._without_key(line) for line in lines)

    def _without_key(self, line: str) -> str:
        """A line, or what is left of it: it may be within a private key, or begin one."""
        if self._key_lines:
            return self._leave_out_of_key(line)
        begins = list(masking.PEM_BEGINS.finditer(line))
        if not begins:
            return line
        last = begins[-1]
        if masking.PEM_ENDS.search(line, last.end()) is not None:
            return line
        self._key_lines = _KEY_LINES
        before = line[: last.start()]
        ending = line[len(line.rstrip("\r\n")) :]
        return f"{before}{masking.MASK}{ending}"

    def _leave_out_of_key(self, line: str) -> str:
        """What is left of a line within a private key: nothing, until the key ends."""
        end = masking.PEM_ENDS.search(line)
        if end is None and re.fullmatch(_OF_A_KEY, line) is not None:
            self._key_lines -= 1
            return ""
        self._key_lines = 0
        if end is None:
            return line
        after = line[end.end() :]
        return after.lstrip("\r\n")

    def fileno(self) -> int:
        """Of the inner stream: what a program in C writes there is not masked."""
        return self.inner.fileno()

    def isatty(self) -> bool:
        """As the inner stream."""
        return self.inner.isatty()

    def writable(self) -> bool:
        """Always."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the inner stream."""
        return self.inner.encoding or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Of the inner stream."""
        return self.inner.errors

    @property
    def name(self) -> Any:
        """Of the inner stream."""
        return getattr(self.inner, "name", None)

    @property
    def buffer(self) -> io.RawIOBase:
        """For who writes bytes: they are masked as well."""
        if self._bytes is None:
            self._bytes = _Bytes(self)
        return self._bytes


class _Bytes(io.RawIOBase):
    """Bytes into a masked stream."""

    def __init__(self, stream: MaskedStream) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(stream.encoding)("backslashreplace")

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Write what is text so far."""
        raw = bytes(data)
        self._stream.write(self._decoder.decode(raw))
        return len(raw)

    def flush(self) -> None:
        """Flush the stream."""
        if not self.closed:
            self._stream.flush()


@cache
def _open_patterns() -> tuple[re.Pattern[str], ...]:
    """Patterns of the end of a text that may go on.

    A token, an address, a private key, or a sequence for the terminal.
    """
    beginnings = "|".join(map(re.escape, masking.BEGINNINGS))
    patterns = (
        r"\b(?:[Bb]earer|[Bb]asic)[ \t+%20]*[\w.~+/=%\-]*$|-{1,5}(?:B?E?G?I?|BEGIN.*)$",
        r"://[^\s/\"'<>]*$",
        rf"(?<![A-Za-z0-9])(?:{beginnings})[\w.+/=\-]*$",
        r"\x1b(?:\[[0-9;?]{0,20})?$",
    )
    return tuple(re.compile(pattern) for pattern in patterns)


def _count_ready(text: str) -> int:
    """How many characters of a line can be written.

    Nothing that follows makes a secret of a part of them.
    """
    unfinished = masking.longest_unfinished(text)
    begun = _count_begun(text)
    end = len(text) - max(unfinished, begun)
    tail = text[-_TAIL:]
    tail_begins = len(text) - len(tail)
    for pattern in _open_patterns():
        found = pattern.search(tail)
        if found is not None:
            end = min(end, tail_begins + found.start())
    return end


def _count_shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    if one.startswith(other):
        return len(other)
    for at, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return at
    return len(one)


def _count_begun(text: str) -> int:
    """How many characters at the end may begin a token of a service, which is not known."""
    longest = max(map(len, masking.BEGINNINGS))
    for size in range(min(len(text), longest), 0, -1):
        before = text[-size - 1 : -size]
        if before.isalnum():  # it is within a word
            continue
        end = text[-size:]
        if any(beginning.startswith(end) for beginning in masking.BEGINNINGS):
            return size
    return 0


@contextmanager
def masked_output(*, terminal: bool = True) -> Iterator[None]:
    """Within it, what the process writes to its standard streams is masked, and fit for a terminal.

    It nests.
    """
    before = sys.stdout, sys.stderr
    put_in_place(terminal=terminal)
    try:
        yield
    finally:
        for name, stream in zip(("stdout", "stderr"), before, strict=True):
            now = getattr(sys, name)
            if now is not stream and isinstance(now, MaskedStream):
                _finish_stream(now)
                _redirect_handlers(now, stream)
                setattr(sys, name, stream)


def put_in_place(*, terminal: bool = False) -> None:
    """Mask what the process writes to its standard streams from now on.

    A second time changes nothing.

    The handlers of loggers that were made before, by the libraries that a fork server imports,
    follow.

    Args:
        terminal: Whether somebody may look at them on a terminal.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, MaskedStream):
            continue
        masked = MaskedStream(stream, terminal=terminal)
        # another may have taken the place of Python's own since
        for old in (stream, getattr(sys, f"__{name}__")):
            _redirect_handlers(old, masked)
        setattr(sys, name, masked)


def finish_output() -> None:
    """Write all that waits in the standard streams: the process ends."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, MaskedStream):
            _finish_stream(stream)
        elif stream is not None:
            with suppress(Exception):
                stream.flush()


def _finish_stream(stream: MaskedStream) -> None:
    with suppress(OSError, ValueError, ReaderGoneError):
        stream.finish()


def _redirect_handlers(old: Any, new: Any) -> None:
    """Let the handlers of all loggers that write to `old` write to `new`."""
    logging = sys.modules.get("logging")
    if logging is None:
        return
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        handlers = getattr(logger, "handlers", ())
        for handler in handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)
