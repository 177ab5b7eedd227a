"""Text of a user's code, made fit for every place that it is written to. Imports nothing heavy.

An exception may carry any text: a NUL, which PostgreSQL refuses, half of a surrogate pair, which
UTF-8 cannot encode, control characters, which move a terminal's cursor, or fifty megabytes; and its
``__str__`` may raise. What comes from here can be written to a database, a journal, MLflow, a log
and a terminal.
"""

from __future__ import annotations

import math
import numbers
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from dlsearch.core.errors import ConfigError
from dlsearch.core.masking import mask_text

#: Of the one line that says why something failed.
MAX_LINE_CHARACTERS = 2_000
#: Of an exception's own words in it: the rest is for where it happened, and what was being done.
MAX_ERROR_CHARACTERS = 1_800
MAX_PLACE_CHARACTERS = 150
#: Of a traceback that is kept as a file: most of what is longer is one message.
MAX_TRACEBACK_CHARACTERS = 1_000_000
MAX_INTEGER_BITS = 4_096
NO_TEXT = "(its text cannot be made)"

#: Control characters but for the newline and the tab, what turns the line around, and halves of
#: surrogate pairs.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean_text(text: str) -> str:
    r"""`text` with every character that some sink refuses written out.

    NUL becomes ``\x00``, half of a surrogate pair ``\ud800``.
    """
    return _UNFIT.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def clean_line(
    text: str,
    limit: int = MAX_LINE_CHARACTERS,
    length: int | None = None,
) -> str:
    """`text` as one line of at most `limit` characters, clean; what was cut is said.

    Args:
        text: Of any kind and length.
        limit: As above.
        length: How long the text was, where this is its beginning.
    """
    length = len(text) if length is None else length
    line = clean_text(" ".join(text[: limit + 1].split()))
    if length <= limit and len(line) <= limit:
        return line
    note = f" … [{length:,} characters]"
    return line[: limit - len(note)] + note


def clean_value(value: Any) -> Any:
    """`value` as plain JSON that holds clean text alone: what JSON does not know becomes text.

    Args:
        value: Anything; mappings, sequences, text, numbers and None keep their kind, non-finite
            floats included.
    """
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, numbers.Integral):
        return _clean_integer(int(value))
    if isinstance(value, numbers.Real):  # NumPy's, say
        return float(value)
    if isinstance(value, Mapping):
        return {clean_text(text_of(name)): clean_value(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [clean_value(item) for item in value]
    return clean_line(text_of(value))


def _clean_integer(value: int) -> int | float:
    """An integer that Python can write and read again: see ``sys.set_int_max_str_digits``."""
    return (
        value if value.bit_length() <= MAX_INTEGER_BITS else (math.inf if value > 0 else -math.inf)
    )


def text_of(value: Any) -> str:
    """``str(value)``, also where that raises or gives no text."""
    try:
        return str(value)
    except Exception:
        return NO_TEXT


def line_of_error(error: BaseException) -> str:
    """An exception's type and the first line of its text.

    All of a ConfigError's, which speaks for itself.

    It is clean, masked, and of at most :data:`MAX_ERROR_CHARACTERS`.
    """
    beginning, length = _beginning_of_error(error)
    name = type(error).__name__
    said = name
    if isinstance(error, ConfigError):
        said = beginning
    elif length:
        said = f"{name}: {beginning}"
    return clean_line(
        said,
        MAX_ERROR_CHARACTERS,
        length=max(length, len(said)),
    )


def message_of_error(error: BaseException) -> str:
    """The same without the type; empty where the exception says nothing."""
    beginning, length = _beginning_of_error(error)
    return clean_line(beginning, MAX_ERROR_CHARACTERS, length=max(length, len(beginning)))


def _beginning_of_error(error: BaseException) -> tuple[str, int]:
    """What an exception says in its first line, masked, and how long that line is."""
    text = text_of(error).lstrip()
    first = text if isinstance(error, ConfigError) else text.partition("\n")[0]
    # more of it would be looked through for seconds
    return mask_text(first[: 2 * MAX_LINE_CHARACTERS]), len(first)


def place_of_error(error: BaseException, packages: Sequence[str] = ()) -> str | None:
    """``file:line`` of the innermost frame in the user's own code; None where there is none.

    Args:
        error: As it was caught; those that led to it are looked at where it has no such frame
            itself.
        packages: The user's, by name, where they are installed beside the libraries.
    """
    known = set(packages)
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        for frame, line in reversed(list(traceback.walk_tb(each.__traceback__))):
            if _is_of_user(frame, known):
                return frame_place(frame.f_code.co_filename, line)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return None


def _is_of_user(frame: FrameType, packages: set[str]) -> bool:
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    if package in packages:
        return True
    file = frame.f_code.co_filename
    if package == __name__.partition(".")[0] or file.startswith("<"):
        return False
    return not is_of_libraries(file)


def is_of_libraries(file: str) -> bool:
    """Whether a source file lies in Python's own library, or among what is installed."""
    paths = sysconfig.get_paths()
    return any(
        file.startswith(f"{paths[key]}{os.sep}")
        for key in ("stdlib", "platstdlib", "purelib", "platlib")
    )


def frame_place(file: str, line: int) -> str:
    """``file:line`` as it is shown."""
    return clean_line(f"{_short_path(file)}:{line}", MAX_PLACE_CHARACTERS)


def _short_path(file: str) -> str:
    """A path as it would be imported, or from where the command was typed.

    The folders above are nobody's business.
    """
    found = Path(file)
    for folder in (Path.cwd(), *sorted(map(Path, sys.path), key=lambda path: -len(path.parts))):
        if folder.is_absolute() and found.is_relative_to(folder):
            return str(found.relative_to(folder))
    return found.name


def traceback_of(error: BaseException) -> str:
    """An exception's traceback as a text file can hold it: encodable, masked and not too long."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # what it is made of raises when it is asked
        frames = "".join(traceback.format_tb(error.__traceback__))
        text = f"Traceback (most recent call last):\n{frames}{line_of_error(error)}\n"
    return _shorten(
        clean_text(mask_text(_shorten(text, 2 * MAX_TRACEBACK_CHARACTERS))),
        MAX_TRACEBACK_CHARACTERS,
    )


def _shorten(text: str, limit: int) -> str:
    """`text` in about `limit` characters: its beginning, where the frames are, and its end."""
    if len(text) <= limit:
        return text
    end = limit // 10
    return f"{text[: limit - end]}\n… [{len(text) - limit:,} characters left out]\n{text[-end:]}"
