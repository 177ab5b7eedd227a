"""Why something failed: the first cause, and where in the user's code. Imports nothing heavy."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.core.text import (
    MAX_ERROR_CHARACTERS,
    clean_line,
    frame_place,
    is_of_libraries,
    line_of_error,
    message_of_error,
    place_of_error,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlsearch.core.types import JsonObject

#: What torch says of an exception in a process of its DataLoader, before that process's traceback.
_IN_LOADER = re.compile(r"Caught \w+ in (DataLoader worker process \d+)")
_TRACEBACK_FRAME = re.compile(r'^  File "(.+)", line (\d+), in ', re.MULTILINE)
#: What Lightning runs while an exception is on its way out: hooks that may raise another.
_CLEARING_UP = ("_interrupt", "_teardown")
#: Where our own nets, tasks and data lie.
_SYSTEMS = "dlsearch.systems"


@dataclass(frozen=True)
class FailureCause:
    """Why an attempt failed.

    Args:
        type: The exception's; ``nan`` or ``inf`` of a training that diverged.
        message: What it says, in a line; masked.
        place: ``file:line`` of the user's code; None where nothing is known of it.
    """

    type: str
    message: str
    place: str | None = None

    @property
    def line(self) -> str:
        """``ValueError: bad shape (my.py:12)``; a ConfigError's message speaks for itself."""
        words = self.message or self.type
        if self.message and self.type != ConfigError.__name__:
            words = f"{self.type}: {self.message}"
        return words if self.place is None else f"{words} ({self.place})"

    def is_like(self, other: FailureCause) -> bool:
        """Whether both are of one type and place; without a place, of one message."""
        if self.place is None and self.message != other.message:
            return False
        return (self.type, self.place) == (other.type, other.place)

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, found: Mapping[str, Any] | None) -> FailureCause | None:
        """The cause that plain JSON describes; None where it describes none."""
        if not isinstance(found, dict) or not isinstance(found.get("type"), str):
            return None
        place = found.get("place")
        return cls(
            clean_line(found["type"]),
            clean_line(text_of(found.get("message") or "")),
            None if place is None else clean_line(text_of(place)),
        )


#: What a process may have met that gave up the test set by :mod:`dlsearch.core.machine.landlock`.
_MADE_AFTER = (
    "what is made in a folder above the data after the test set was sealed cannot be read back:"
    " make it below the trial's folder, or study.seal=audit"
)


def find_cause(
    error: BaseException,
    packages: Sequence[str] = (),
    *,
    is_sealed: bool = False,
) -> FailureCause:
    """The first cause of a failure.

    Args:
        error: As it was caught.
        packages: The user's, by name, where they are installed beside the libraries.
        is_sealed: Whether the kernel keeps the process from the test set, and with it from what was
            made later in the folders above.
    """
    first = _first_of(error)
    in_loader = _find_in_loader(first)
    if in_loader is not None:
        return in_loader
    place = place_of_error(first, packages)
    if place is None and not isinstance(first, ConfigError):
        place = _innermost_place(first)
    message = message_of_error(first)
    if isinstance(first, PermissionError) and is_sealed:
        message = f"{message} ({_MADE_AFTER})"
    source = first.__cause__
    if source is not None and not isinstance(first, ConfigError):
        message = clean_line(f"{message}, from {line_of_error(source)}", MAX_ERROR_CHARACTERS)
    return FailureCause(type(first).__name__, message, place)


def _first_of(error: BaseException) -> BaseException:
    """The exception that was there before Lightning cleared up, and a hook raised another."""
    first = error
    seen = {id(error)}
    while first.__context__ is not None and _was_raised_clearing_up(first):
        first = first.__context__
        if id(first) in seen:
            return error
        seen.add(id(first))
    return first


def _was_raised_clearing_up(error: BaseException) -> bool:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        is_lightning = package in ("pytorch_lightning", "lightning")
        if is_lightning and frame.f_code.co_name in _CLEARING_UP:
            return True
    return False


def _find_in_loader(error: BaseException) -> FailureCause | None:
    """The cause of an exception that a process of a DataLoader sent as text."""
    text = text_of(error)
    found = _IN_LOADER.match(text)
    if found is None:
        return None
    last = text.strip().splitlines()[-1]
    name, _, message = last.partition(": ")
    place = None
    for file, line in reversed(_TRACEBACK_FRAME.findall(text)):
        if not is_of_libraries(file) and f"/{__name__.partition('.')[0]}/" not in file:
            place = frame_place(file, int(line))
            break
    message = clean_line(f"{message} [{found[1]}]", MAX_ERROR_CHARACTERS)
    return FailureCause(clean_line(name.rpartition(".")[2]), message, place)


def _innermost_place(error: BaseException) -> str | None:
    """The innermost frame of our own nets, tasks and data; of any code where there is none."""
    frames = list(traceback.walk_tb(error.__traceback__))
    for frame, line in reversed(frames):
        if str(frame.f_globals.get("__name__")).startswith(_SYSTEMS):
            return frame_place(frame.f_code.co_filename, line)
    if not frames:
        return None
    frame, line = frames[-1]
    file = frame.f_code.co_filename
    return frame_place(file, line) if Path(file).is_absolute() else None
