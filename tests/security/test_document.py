"""The table in docs/security.md: a row for whatever can come from elsewhere, and in each row tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.security.foreign.inputs.base import THINGS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
ROWS = [row.strip("|").split("|") for row in re.findall(r"(?m)^\| .* \|$", TEXT)][1:]


def test_whatever_can_come_from_elsewhere_has_a_row() -> None:
    named = " ".join(row[0] for row in ROWS)
    other = {"study store": "store", "enqueue file": "study.enqueue"}
    assert [thing for thing in THINGS if other.get(thing, thing) not in named] == []


def test_every_row_and_rule_names_tests_that_are_there() -> None:
    assert all(re.search(r"`tests/[\w/.]+`", row[2]) for row in ROWS)
    paths = re.findall(r"`((?:tests|dlsearch)/[\w/.]+)`", TEXT)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []
