"""One warm process and one good study for all tests of a worker of pytest's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.foreign import good
from tests.security.foreign.runner import Runner


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Runs commands; its sandbox is made anew by each test."""
    found = Runner(tmp_path_factory.mktemp("foreign"))
    try:
        good.make(found)
        yield found
    finally:
        found.stop()
