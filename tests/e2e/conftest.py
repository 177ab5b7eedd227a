"""Studies run as a user runs them: processes, storage, training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlsearch.execution.processes.forkserver import ForkServer
from tests.e2e.running import FAST, Site

PRELOADED = [
    "dlsearch.training.fit", "dlsearch.execution.trial_main", "dlsearch.systems.vision.data.image",
    "dlsearch.systems.basic.models.linear",
    "dlsearch.systems.basic.models.mlp", "dlsearch.systems.shared.supervised",
    "dlsearch.systems.shared.schedules", "torch.optim",
    "dlsearch.core.provenance", "dlsearch.core.machine.threads", "dlsearch.systems.shared.views", "dlsearch.training.inputs",
    "dlsearch.training.steps", "fsspec.implementations.chained", "omegaconf._impl",
]  # fmt: skip

#: What a command imports, but for what its trials do and for what only the service of the tracking
#: does.
COMMANDS = [
    "tests.e2e.warm", "hydra.main", "dlsearch.app.search", "dlsearch.execution.worker", "dlsearch.records.confirmation",
    "dlsearch.report.facts.command", "dlsearch.training.fit", "dlsearch.training.ensemble", "tests.e2e.preload",
]  # fmt: skip


@pytest.fixture(scope="session")
def warm() -> Iterator[ForkServer]:
    """A fork server for the whole session."""
    server = ForkServer.start(PRELOADED, env=FAST)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Where commands are forked that run to their end."""
    server = ForkServer.start(COMMANDS, env={**FAST, "PYTHONPATH": Site.path})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, warm: ForkServer, forks: ForkServer
) -> Callable[..., Site]:
    """Makes sites; ``cold=True`` for one whose commands are processes of their own, with their own fork server."""

    def make(name: str, *, cold: bool = False) -> Site:
        folder: Path = tmp_path_factory.mktemp(name)
        return Site(folder) if cold else Site(folder, warm, forks)

    return make
