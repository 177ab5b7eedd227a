"""The fork server of a worker, and another one where it has died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.execution.forkserver import ServerGoneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dlsearch.core.types import JsonObject
    from dlsearch.execution.forkserver import Child, ForkServer

#: Fork servers that die in a row before it is taken for more than bad luck.
MAX_DEATHS = 3


class WarmServer:
    """Forks processes for a worker.

    Args:
        start: Starts a fork server, also where one has died: the out-of-memory killer takes whom it
            likes.
        current: One that runs; None where there may be nothing to do.
    """

    def __init__(self, start: Callable[[], ForkServer], current: ForkServer | None = None) -> None:
        """Nothing is started yet."""
        self.start = start
        self.current = current
        self._deaths = 0  # in a row

    @property
    def is_alive(self) -> bool:
        """Whether there is one, and it listens."""
        return self.current is not None and self.current.alive

    @property
    def is_importing(self) -> bool:
        """Whether there is one, and a fork would wait for it."""
        return self.current is not None and self.current.importing

    @property
    def has_died_too_often(self) -> bool:
        """Whether so many have died in a row that it is more than bad luck."""
        return self._deaths >= MAX_DEATHS

    def replace_dead(self) -> None:
        """Start another where there was one, and it has died since it was ready."""
        if self.current is not None:
            self.current = self.current.or_another(self.start)

    def spawn(
        self,
        target: str,
        payload: JsonObject,
        *,
        env: Mapping[str, str],
        log: Path,
    ) -> Child:
        """Fork a child, see :meth:`dlsearch.execution.forkserver.ForkServer.spawn`.

        Raises:
            ServerGoneError: The server is gone; another one is started.
            OSError: It cannot fork, and says why.
        """
        if self.current is None:
            self.current = self.start()
        try:
            child = self.current.spawn(target, payload, env=dict(env), log=log)
        except ServerGoneError:
            self._deaths += 1
            self.current = self.start()
            raise
        self._deaths = 0
        return child
