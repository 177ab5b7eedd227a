"""The command on a fork server that is warm already: ``python -m tests.e2e.warm SOCKET WORDS…``.

What differs from ``dlsearch WORDS…`` is that torch was imported once for all studies of a test session, which saves
ten seconds each. Tests of the fork server's own life use the plain command.
"""

from __future__ import annotations

import sys
from typing import Any

from dlsearch.cli import command
from dlsearch.search.forkserver import ForkServer


class SharedForkServer(ForkServer):
    """Somebody else's server: not ours to stop."""

    def stop(self) -> None:
        """Leave it."""


if __name__ == "__main__":
    socket = sys.argv.pop(1)

    def start(_preload: Any, **_: Any) -> ForkServer:
        return SharedForkServer(socket, -1, None)

    ForkServer.start = start  # type: ignore[method-assign, assignment]
    command()
