"""What tests of the search share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.search.server import Server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A PostgreSQL; each test has a database of its own."""
    server = Server(tmp_path_factory.mktemp("pg"))
    yield server
    server.close()
