"""Small versions of benchmarks/coverage.py: what is quoted covers as often as it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_coverage", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def test_what_is_quoted_of_few_seeds_covers_as_it_says(coverage: ModuleType) -> None:
    for n in (3, 5):
        for distribution in coverage.DISTRIBUTIONS:
            student, bootstrap = coverage.measure_means(distribution, n, 80)
            assert (student.interval, student.quoted) == ("Student's t", True)
            assert student.is_within, student
            assert not bootstrap.quoted
    assert bootstrap.coverage < 0.9, "which is why it is not quoted"


def test_intervals_of_test_accuracies_cover_as_they_say(coverage: ModuleType) -> None:
    rows = coverage.measure_proportions(0.92, 1000, 300)
    assert len(rows) == 4
    assert all(row.quoted and row.is_within for row in rows)


def test_a_row_that_covers_too_little_is_seen(coverage: ModuleType) -> None:
    row = coverage.Row("t", "3", "normal", 0.87, 2000, True)
    assert not row.is_within
    assert coverage.cells_of(row)[-1] == "**no**"
