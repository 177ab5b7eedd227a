"""Doing something again after it failed, and waiting until something is so.

Imports nothing heavy.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: A larger power of two than any cap needs; it keeps the product finite however often one failed.
_MAX_DOUBLINGS = 30


@dataclass(frozen=True)
class Backoff:
    """Pauses that double from one failure to the next, up to a cap.

    Args:
        first_s: The pause after the first failure, seconds.
        cap_s: The longest pause, seconds.
        jitter: The share of a pause that is left to chance, from 0 to 1, so that many who failed at
            once do not all come back at once.
    """

    first_s: float
    cap_s: float
    jitter: float = 0.0

    def pause_after(self, failures: int) -> float:
        """How long to pause after so many failures in a row, seconds; 0 where there was none."""
        if failures < 1:
            return 0.0
        doublings = min(failures - 1, _MAX_DOUBLINGS)
        longest = min(self.cap_s, self.first_s * 2**doublings)
        return longest * random.uniform(1.0 - self.jitter, 1.0)


def retry(
    action: Callable[[], T],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    tries: int,
    backoff: Backoff,
) -> T:
    """The result of `action`, which is called again after each error of the kinds in `on`.

    Args:
        action: Something that is safe to repeat.
        on: The kinds of errors after which it may succeed.
        tries: How often it is called, from 1.
        backoff: The pauses in between.

    Raises:
        Exception: What the last call raised, or an error of another kind.
    """
    for failures in range(1, tries):
        try:
            return action()
        except on:
            time.sleep(backoff.pause_after(failures))
    return action()


def wait_until(
    condition: Callable[[], bool],
    *,
    timeout_s: float,
    poll_s: float,
) -> bool:
    """Wait until `condition` is true; False where it was not within `timeout_s`.

    Args:
        condition: It is asked at once, and then every `poll_s`.
        timeout_s: How long to wait, seconds.
        poll_s: Seconds between two questions.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True
