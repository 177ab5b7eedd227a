"""Studies as a worker knows them: in a database, in memory, and over a wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlsearch.execution.clients.database import DatabaseClient
    from dlsearch.execution.clients.in_memory import InMemoryClient
    from dlsearch.execution.clients.loopback import LoopbackClient
    from dlsearch.study.client import StudyClient

    _IMPLEMENTATIONS: tuple[type[StudyClient], ...] = (  # the type checker compares them
        DatabaseClient,
        InMemoryClient,
        LoopbackClient,
    )
