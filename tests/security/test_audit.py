"""The audit of dependencies: the lock as it is passes; a pin that was changed, or taken over, does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AUDIT, LOCK = ROOT / ".ci/audit", ROOT / "requirements.lock"

pytestmark = pytest.mark.skipif(
    not AUDIT.is_file(), reason="the checks of a checkout are not in the archive"
)


def audit(lock: Path) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, str(AUDIT), "--lock", str(lock)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_the_environment_is_that_of_the_lock() -> None:
    code, said = audit(LOCK)
    assert code == 0, said
    assert re.search(r"audit: \d+ distributions are those of the lock", said)


@pytest.mark.parametrize(
    ("pattern", "replacement", "expected"),
    [
        (
            r"^pytorch-lightning==\S+",
            "pytorch-lightning==2.6.3",
            "in the lock is a malicious release",
        ),
        (r"^sqlalchemy==\S+", "sqlalchemy==1.0.0", "is installed, the lock has sqlalchemy==1.0.0"),
        (r"^rich==.*\n(    --hash.*\n?)+", "", "is installed, the lock has none"),
        (r"^rich==.*\n(    --hash.*\n?)+", "rich==13.9.4\n", "no pin with a hash: rich==13.9.4"),
    ],
    ids=["taken over", "another version", "not locked", "no hash"],
)
def test_what_was_changed_is_named(
    tmp_path: Path, pattern: str, replacement: str, expected: str
) -> None:
    changed = tmp_path / "requirements.lock"
    text, count = re.subn(pattern, replacement, LOCK.read_text(), flags=re.MULTILINE)
    assert count == 1
    changed.write_text(text)
    code, said = audit(changed)
    assert code == 1, said
    assert expected in said
