"""What a worker's process makes of signals, and what it leaves to the engine that started it.

SIGTERM has it give its trials back. So has the signal by which submitit says that a job of Slurm's is about to be
preempted, or to run out of time; once the trials are back, submitit has the job queued again.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TERMINATED = 128 + signal.SIGTERM


class Signals:
    """Within it, signals stop the worker; after it, whose they were has them back.

    Args:
        stop: Called by a signal, at any moment of the main thread.
        foreground: Whether Ctrl-C is meant for this process.
    """

    def __init__(self, stop: Callable[..., Any], *, foreground: bool) -> None:
        """Nothing is set yet."""
        self._stop, self._foreground = stop, foreground
        self._before: dict[int, Any] = {}
        self._got: int | None = None

    def __enter__(self) -> Signals:
        """Set them."""
        handlers: dict[int, Any] = {
            signal.SIGTERM: self._on,
            signal.SIGINT: self._on if self._foreground else signal.SIG_IGN,
        }
        preemption = _preemption()
        if preemption is not None:
            handlers[preemption] = self._on
        for number, handler in handlers.items():
            self._before[number] = signal.signal(number, handler)
        return self

    def _on(self, number: int, _frame: Any) -> None:
        self._got = number
        self._stop()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # set by C code, which Python cannot set again
                signal.signal(number, handler)

    def pass_on(self) -> None:
        """Leave to submitit what is submitit's: the signal that ended the service.

        The process ends here where the job is queued again, and where Slurm ended it: that is no result of the job's.
        """
        if self._got is None or "SUBMITIT_EXECUTOR" not in os.environ:
            return
        handler, code = self._before.get(self._got), TERMINATED
        if self._got == _preemption() and callable(handler):
            try:
                handler(self._got, None)
            except SystemExit as end:  # anything else is for submitit to hear: there is no further try
                code = end.code if isinstance(end.code, int) else 1
        elif self._got != signal.SIGTERM:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


def _preemption() -> int | None:
    """The signal by which submitit's jobs are told of their end; None in any other process."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}", None)
    return None if number is None else int(number)
