"""The command on processes that are warm already: on a fork server of trials, and, where asked, forked from one.

``python -m tests.e2e.warm SOCKET WORDS…`` differs from ``dlsearch WORDS…`` in that torch was
imported once for all studies of a test session, which saves ten seconds each. `forked` is the same
in a child of a process that has imported what commands import, which saves each of them seconds
more. Tests of how commands and fork servers begin and end use the plain command.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from typing import Any

from dlsearch.cli.main import command
from dlsearch.core.files.descriptor import Descriptor
from dlsearch.execution.processes.forkserver import ForkServer


def _on(socket: str) -> None:
    def start(_preload: Any, **_: Any) -> ForkServer:
        lifeline = Descriptor.open(os.devnull, os.O_RDONLY)
        # somebody else's server: it ends by another life line
        path, _, key = socket.partition("#")
        return ForkServer(path, lifeline, None, key)

    ForkServer.start = start  # type: ignore[method-assign, assignment]
    command()


def forked(_channel: Any, payload: dict[str, Any]) -> None:
    """A command as the leader of a process group, with the surroundings that a new process would have."""
    assert "tests.e2e.preload" in sys.modules, "a module that commands import late has another name"
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(payload["folder"])
    os.environ.clear()
    os.environ.update(payload["env"])
    sys.path.insert(0, "")
    sys.argv = ["dlsearch", *payload["words"]]
    try:
        _on(payload["socket"])
    finally:  # as the interpreter's own end does
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


if __name__ == "__main__":
    _on(sys.argv.pop(1))
