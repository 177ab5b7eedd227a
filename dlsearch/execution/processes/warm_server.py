"""The fork server of a worker, and another one where it has died."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.core.machine import landlock
from dlsearch.execution.processes.confinement import key_of_data
from dlsearch.execution.processes.forkserver import SealedServer, ServerGoneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dlsearch.core.types import ConfigTree, JsonObject
    from dlsearch.execution.processes.forkserver import Child, ForkServer

#: Fork servers that die in a row before it is taken for more than bad luck.
MAX_DEATHS = 3


@dataclass(frozen=True)
class SealedStart:
    """What a server is started with whose trials cannot reach the test set.

    Args:
        config: Of a trial of the study.
        preload: Modules that its trials import.
    """

    config: ConfigTree
    preload: Sequence[str]


class WarmServer:
    """Forks processes for a worker: those that train from a server that has given up the test set.

    Args:
        start: Starts a fork server, also where one has died: the out-of-memory killer takes whom it
            likes.
        current: One that runs; None where there may be nothing to do.
        sealed: Of the server for those that train; None where each of them gives up the test set
            itself.
    """

    def __init__(
        self,
        start: Callable[[], ForkServer],
        current: ForkServer | None = None,
        sealed: SealedStart | None = None,
    ) -> None:
        """Nothing is started yet."""
        self.start = start
        self.current = current
        self._sealed_start = sealed if landlock.abi() else None
        self._sealed_key = None if sealed is None else key_of_data(sealed.config)
        self._sealed: SealedServer | None = None
        self._deaths = 0  # in a row

    @property
    def is_alive(self) -> bool:
        """Whether there is one, and it listens."""
        return self.current is not None and self.current.alive

    @property
    def is_importing(self) -> bool:
        """Whether there is one, and a fork would wait for it."""
        if self.current is not None and self.current.importing:
            return True
        return self._sealed is not None and self._sealed.importing

    @property
    def has_died_too_often(self) -> bool:
        """Whether so many have died in a row that it is more than bad luck."""
        return self._deaths >= MAX_DEATHS

    def replace_dead(self) -> None:
        """Start another where there was one, and it has died since it was ready."""
        if self.current is None:
            return
        self.current = self.current.or_another(self.start)
        if not self.current.importing:
            with suppress(OSError):  # a trial is refused likewise, and says so
                self._start_sealed(self.current)

    def _start_sealed(self, server: ForkServer) -> None:
        """Start the server for those that train, where there is none or it has died."""
        if self._sealed_start is None:
            return
        if self._sealed is not None:
            if self._sealed.has_failed:  # each trial tries for itself, and says what fails
                self._sealed_start = None
            if self._sealed.importing or self._sealed.alive:
                return
            self._sealed.stop()
            self._sealed = None
        if self._sealed_start is not None:
            self._sealed = SealedServer.start_from(
                server,
                self._sealed_start.config,
                self._sealed_start.preload,
            )

    def stop(self) -> None:
        """Let go of the server for those that train."""
        if self._sealed is not None:
            self._sealed.stop()
            self._sealed = None

    def spawn(
        self,
        target: str,
        payload: JsonObject,
        *,
        env: Mapping[str, str],
        log: Path,
        config: ConfigTree | None = None,
    ) -> Child:
        """Fork a child, see :meth:`dlsearch.execution.processes.forkserver.ForkServer.spawn`.

        Args:
            target: As there.
            payload: As there.
            env: As there.
            log: As there.
            config: Of a training; None for a process that may reach the test set.

        Raises:
            ServerGoneError: The server is gone; another one is started.
            OSError: It cannot fork, and says why.
        """
        if self.current is None:
            self.current = self.start()
        try:
            server = self._server_for(config, self.current)
            child = server.spawn(target, payload, env=dict(env), log=log)
        except ServerGoneError:
            self._deaths += 1
            if not self.current.importing and not self.current.alive:
                self.current = self.start()
            raise
        self._deaths = 0
        return child

    def _server_for(self, config: ConfigTree | None, server: ForkServer) -> ForkServer:
        """Whose child a process is to be."""
        if config is None or self._sealed_start is None:
            return server
        if key_of_data(config) != self._sealed_key:
            return server  # other data: it gives up its own test set
        self._start_sealed(server)
        return self._sealed or server
