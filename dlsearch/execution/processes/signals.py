"""What commands and workers make of signals.

And what a worker leaves to the engine that started it.

SIGTERM, which schedulers send, and SIGHUP, which a terminal sends that closes, are Ctrl-C to a
command, and have a worker give its trials back. So has the signal by which submitit says that a job
of Slurm's is about to be preempted, or to run out of time; once the trials are back, submitit has
the job queued again.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from dlsearch.console.streams import finish_output

if TYPE_CHECKING:
    from collections.abc import Callable

TERMINATED = 128 + signal.SIGTERM


def hears_hangups() -> bool:
    """Whether SIGHUP means anything to this process.

    Not where it was ignored when the process began (nohup).
    """
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def ignore_further_hangups(*_: Any) -> None:
    """The shell tells its jobs that the terminal closes, and so does the kernel.

    One of them is enough.
    """
    if hears_hangups():
        # not SIG_IGN, which processes that are started would inherit
        signal.signal(signal.SIGHUP, lambda *_: None)


def _interrupt(_number: int, _frame: Any) -> None:
    ignore_further_hangups()
    raise KeyboardInterrupt


def interrupt_on_stop() -> None:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)
    if hears_hangups():
        signal.signal(signal.SIGHUP, _interrupt)


class Signals:
    """Within it, signals stop the worker; after it, whose they were has them back.

    Args:
        stop: Called by a signal, at any moment of the main thread.
        foreground: Whether Ctrl-C is meant for this process.
    """

    def __init__(self, stop: Callable[..., Any], *, foreground: bool) -> None:
        """Nothing is set yet."""
        self._stop = stop
        self._foreground = foreground
        self._before: dict[int, Any] = {}
        self._got: int | None = None

    def __enter__(self) -> Signals:
        """Set them."""
        handlers: dict[int, Any] = {
            signal.SIGTERM: self._on,
            signal.SIGINT: self._on if self._foreground else signal.SIG_IGN,
        }
        if hears_hangups():
            handlers[signal.SIGHUP] = self._on
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
        if self._got == signal.SIGHUP:
            ignore_further_hangups()

    def pass_on(self) -> None:
        """Leave to submitit what is submitit's: the signal that ended the service.

        The process ends here where the job is queued again, and where Slurm ended it: that is no
        result of the job's.
        """
        if self._got is None or "SUBMITIT_EXECUTOR" not in os.environ:
            return
        handler = self._before.get(self._got)
        code = TERMINATED
        if self._got == _preemption() and callable(handler):
            try:
                handler(self._got, None)
            # anything else is for submitit to hear: there is no further try
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        elif self._got != signal.SIGTERM:
            return
        finish_output()
        os._exit(code & 0xFF)


def _preemption() -> int | None:
    """The signal by which submitit's jobs are told of their end; None in any other process."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    number = getattr(
        signal,
        f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}",
        None,
    )
    return None if number is None else int(number)
