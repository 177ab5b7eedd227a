"""Studies run as a user runs them: processes, storage, training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlsearch.search.forkserver import ForkServer
from tests.e2e.running import FAST, Site

PRELOADED = [
    "dlsearch.train.fit", "dlsearch.search.trial_process", "dlsearch.data.image", "dlsearch.models.linear",
    "dlsearch.models.mlp", "dlsearch.tasks.supervised", "dlsearch.tasks.schedules", "torch.optim",
]  # fmt: skip


@pytest.fixture(scope="session")
def warm() -> Iterator[ForkServer]:
    """A fork server for the whole session."""
    server = ForkServer.start(PRELOADED, env=FAST)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, warm: ForkServer) -> Callable[..., Site]:
    """Makes sites; ``cold=True`` for one whose commands start their own fork server."""

    def make(name: str, *, cold: bool = False) -> Site:
        folder: Path = tmp_path_factory.mktemp(name)
        return Site(folder, None if cold else warm)

    return make
