"""How the doctor says what is wrong."""

from __future__ import annotations

from dlsearch.doctor.models import Problem


class Problems(list[Problem]):
    """What would hurt a study, and what to do about it."""

    def say(self, what: str, hint: str) -> None:
        """Add one."""
        self.append(Problem(what, hint))


def first_line(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def format_size(count: float | None) -> str:
    """Bytes, for a person."""
    return "unknown" if count is None else f"{count / (1 << 30):.1f} GiB"
