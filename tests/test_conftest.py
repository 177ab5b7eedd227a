"""The suite's own rules: what a test leaves behind is an error, and what is left out is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def outcome(folder: Path, body: str, *options: str, **env: str) -> str:
    """What pytest says about a file of tests that stands under our conftest and settings."""
    (folder / "test_it.py").write_text("import os, sys, threading, time, warnings, pytest\n" + body)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p"]
    command += ["tests.conftest", "-p", "no:cacheprovider", *options, str(folder)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "DLSEARCH_"))} | env
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=folder).stdout


def test_tests_without_their_data_are_left_out_with_a_line(tmp_path: Path) -> None:
    body = "def test_a(): pass\n\n@pytest.mark.data\ndef test_b(): pass\n"
    text = outcome(tmp_path, body)
    assert "1 left out: they need DLSEARCH_DATA, or a GPU" in text
    assert "1 passed, 1 deselected" in text
    assert "1 left out" in outcome(tmp_path, body, "-q", "-n", "1")
    assert "2 passed" in outcome(tmp_path, body, DLSEARCH_DATA=str(tmp_path))


def test_what_takes_long_is_left_out_with_a_line_unless_it_is_asked_for(tmp_path: Path) -> None:
    body = "def test_a(): pass\n\n@pytest.mark.storm\ndef test_b(): pass\n"
    text = outcome(tmp_path, body)
    assert "1 left out: storms, clusters and outages, which make test-storms runs" in text
    assert "1 passed, 1 deselected" in text
    assert "1 passed, 1 deselected" in outcome(tmp_path, body, "-m", "storm")
    assert "2 passed" in outcome(tmp_path, body, str(tmp_path / "test_it.py"))


@pytest.mark.parametrize(("body", "said"), [
    ("def test_a(): threading.Thread(target=time.sleep, args=(5,), name='slow').start()", "outlive the test: ['slow']"),
    ("def test_a(): os.environ['DLSEARCH_X'] = '1'", "left its environment behind: ['DLSEARCH_X']"),
    ("def test_a(): os.chdir('/')", "changed the working directory"),
    ("def test_a(): warnings.warn('old', DeprecationWarning)", "DeprecationWarning: old"),
    ("@pytest.mark.dta\ndef test_a(): pass", "'dta' not found in `markers`"),
])  # fmt: skip
def test_what_is_not_allowed(tmp_path: Path, body: str, said: str) -> None:
    assert said in outcome(tmp_path, body)


def test_each_test_starts_with_its_own_environment(tmp_path: Path) -> None:
    body = "def test_a(): os.environ['OTHER'] = '1'\n\ndef test_b(): assert 'OTHER' not in os.environ\n"
    body += "def test_c(): assert os.environ['OMP_NUM_THREADS'] == '1' and 'store' in os.environ['DLSEARCH_STORE']\n"
    assert "3 passed" in outcome(tmp_path, body)
