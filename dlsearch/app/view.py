"""What a use case shows its user. A use case prints only through the view that it is given."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from dlsearch.console.terminal import say, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from dlsearch.records.status import Status

    #: Shows a status; its arguments: the status, the slots that serve, the seconds to go.
    ShowStatus = Callable[[Status, int | None, float | None], None]


class View(ABC):
    """Lines, and a table that is drawn again and again where the output can do that."""

    @property
    @abstractmethod
    def has_live_table(self) -> bool:
        """Whether a table shows how a study goes; else lines say it."""

    @abstractmethod
    def say(self, *lines: str) -> None:
        """Show lines."""

    @abstractmethod
    def warn(self, *lines: str) -> None:
        """Show lines that say what is wrong."""

    @abstractmethod
    def live_table(self) -> AbstractContextManager[ShowStatus]:
        """A table of a study, which stays until the context ends."""


class TerminalView(View):
    """A terminal, a pipe or a file.

    Args:
        out: Where to write; standard output, as it is at that moment, by default.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        """Nothing is written yet."""
        self._given = out

    @property
    def _out(self) -> TextIO:
        return self._given or sys.stdout

    @property
    def has_live_table(self) -> bool:
        """Whether it is a terminal."""
        return self._out.isatty()

    def say(self, *lines: str) -> None:
        """Write lines."""
        out = self._out
        say(*lines, to=out)
        out.flush()

    def warn(self, *lines: str) -> None:
        """Write lines to standard error, whatever the output is."""
        warn(*lines)

    @contextmanager
    def live_table(self) -> Iterator[ShowStatus]:
        """A table that is drawn in place, and erased in the end."""
        from rich.live import Live

        from dlsearch.app.study_table import study_table
        from dlsearch.console.terminal import console

        with Live(console=console(self._out), auto_refresh=False, transient=True) as live:

            def show(
                status: Status,
                total_slots: int | None,
                seconds_left: float | None,
            ) -> None:
                live.update(study_table(status, total_slots, seconds_left), refresh=True)

            yield show
