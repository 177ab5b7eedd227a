"""Workers as tests make them: of a study in a database."""

from __future__ import annotations

from typing import Any

from dlsearch.execution.clients.database import DatabaseClient
from dlsearch.execution.clients.database_files import DatabaseFiles
from dlsearch.execution.processes.warm_server import WarmServer
from dlsearch.execution.worker import Worker, WorkerSettings


def worker_of_study(
    study: Any, store: Any, slots: Any, server: Any, *, cards: Any = None, **settings: Any
) -> Worker:
    """A worker of a study in a database; `server` forks its trials, and is started again as it is."""
    client = DatabaseClient(study)
    given = WorkerSettings(**{"patience_s": study.storage.patience_s, **settings})
    files = DatabaseFiles(client, store, {})
    servers = WarmServer(lambda: server, server)
    return Worker(client, files, slots, servers, settings=given, cards=cards)
