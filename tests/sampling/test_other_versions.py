"""A study is the same with a version of Optuna that is not compared.

It then uses public names of Optuna alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.storage.server import Server

ROOT = Path(__file__).resolve().parents[2]


def outcome(url: str, *version: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "tests" / "sampling" / "other_version.py"), url, *version]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.storm
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_study_is_the_same_with_a_version_that_nobody_has_compared(backend, tmp_path, request):
    if backend == "sqlite":
        urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("known", "unknown")]
    else:
        server: Server = request.getfixturevalue("postgres")
        urls = [server.database(name) for name in ("known_version", "unknown_version")]
    known, unknown = outcome(urls[0]), outcome(urls[1], "5.9.0")
    assert unknown == known
    assert known["counts"]["complete"] >= 2
    assert known["counts"]["pruned"] >= 2
