"""Signals that ask a training for its end."""

from __future__ import annotations

import signal
from typing import Any

from dlsearch.execution.processes.signals import (
    hears_hangups,
    ignore_further_hangups,
    interrupt_on_stop,
)


class StopRequests:
    """Signals that ask for the end, from a training's first step to the last row of its journal."""

    def __init__(self) -> None:
        """None has come."""
        self.received: list[int] = []

    def start_noting(self) -> None:
        """From now on signals are noted: Lightning would turn Ctrl-C into an exit with 1.

        A second one of the same kind interrupts as Python's own does.
        """
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hears_hangups():
            numbers.append(signal.SIGHUP)
        for number in numbers:
            signal.signal(number, self._note)

    def interrupt_again(self) -> None:
        """From now on each of them is Ctrl-C again."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt_on_stop()
        if signal.SIGHUP in self.received:
            ignore_further_hangups()

    def _note(self, number: int, _frame: Any) -> None:
        self.received.append(number)
        signal.signal(number, signal.default_int_handler)
        ignore_further_hangups()
