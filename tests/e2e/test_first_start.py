"""The first process of a study is killed at each statement that writes to the storage."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.first_start import killed

pytestmark = [pytest.mark.storm, pytest.mark.timeout(300)]


def test_the_next_start_finishes_the_storage_of_one_that_was_killed(tmp_path: Path) -> None:
    found = killed("storage", tmp_path)
    assert found["statements"] > 30
    assert [(ended, code) for ended, _, code in found["tries"]] == [(signal.SIGKILL, 0)] * found[
        "statements"
    ]
