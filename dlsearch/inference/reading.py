"""What all readers of files say where one cannot be read."""

from __future__ import annotations

#: Characters of another library's error that are repeated.
_MAX_CHARACTERS = 160


class NotReadable(ValueError):
    """One file cannot be an input; the others may."""


class NotRunError(ValueError):
    """A program asks for something that is not run, or its file holds no program."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its type's name where it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_MAX_CHARACTERS]
