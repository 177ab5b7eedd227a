"""The driver's side of a rehearsal: it listens for as long as it may take."""

from __future__ import annotations

import select
import signal
import time
from typing import TYPE_CHECKING

from dlsearch.core.errors import ConfigError
from dlsearch.execution.rehearsal.messages import Sight

if TYPE_CHECKING:
    from dlsearch.execution.processes.forkserver import Child


def listen_to(child: Child, timeout_s: float) -> list[Sight]:
    """What the process of a rehearsal shows until it is through, or has died.

    Args:
        child: It has described the configurations already.
        timeout_s: After so many seconds it is killed.

    Raises:
        ConfigError: It cannot begin.
    """
    until = time.monotonic() + timeout_s
    sights: list[Sight] = []
    try:
        while _has_word(child, until):
            message = child.channel.receive()
            if not message:  # it is through, or has died
                return sights
            if "error" in message:
                raise ConfigError(*message["error"])
            sights.append(Sight.from_json(message))
    except BaseException:
        child.signal(signal.SIGKILL)
        raise
    child.signal(signal.SIGKILL)
    return sights


def _has_word(child: Child, until: float) -> bool:
    """Whether it says something, or dies, before the time is over."""
    if child.channel.pending:
        return True
    rest_s = max(0.0, until - time.monotonic())
    timeout_s = None if rest_s == float("inf") else rest_s
    return bool(select.select([child.channel.fileno()], [], [], timeout_s)[0])
