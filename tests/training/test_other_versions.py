"""With a version of Lightning that nobody has compared, a training is the same in Lightning's own loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def outcome(folder: Path, parts: int, *version: str) -> dict[str, Any]:
    folder.mkdir()
    command = [
        sys.executable,
        str(ROOT / "tests" / "training" / "other_version.py"),
        str(folder),
        str(parts),
        *version,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.storm
@pytest.mark.parametrize("parts", [1, 2])
def test_a_training_is_the_same_with_a_version_that_nobody_has_compared(parts, tmp_path):
    known, unknown = (
        outcome(tmp_path / "known", parts),
        outcome(tmp_path / "unknown", parts, "2.9.0"),
    )
    assert known.pop("loop") == "LeanEpochLoop"
    assert unknown.pop("loop") == "_TrainingEpochLoop"
    assert unknown == known
    assert known["rows"]
