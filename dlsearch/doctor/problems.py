"""How the doctor says what is wrong."""

from __future__ import annotations


class Problems(list[dict[str, str]]):
    """What would hurt a study, and what to do about it."""

    def say(self, what: str, hint: str) -> None:
        """Add one."""
        self.append({"what": what, "hint": hint})


def first_line(error: BaseException) -> str:
    """An error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def size(count: float | None) -> str:
    """Bytes, for a person."""
    return "unknown" if count is None else f"{count / (1 << 30):.1f} GiB"
