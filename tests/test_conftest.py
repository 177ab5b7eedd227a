"""The suite's own rules: what a test leaves behind is an error, and what is left out is said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def outcome(folder: Path, body: str, *options: str, **env: str) -> str:
    """What pytest says about a file of tests that stands under our conftest and settings."""
    (folder / "test_it.py").write_text("import os, sys, threading, time, warnings, pytest\n" + body)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(folder),
        "-p",
    ]
    command += ["tests.conftest", "-p", "no:cacheprovider", *options, str(folder)]
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "DLSEARCH_"))
    } | env
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, env=environment, cwd=folder
    ).stdout


MARKED = """
def test_a(): pass

@pytest.mark.data
def test_b(): pass

@pytest.mark.gpu
def test_c(): pass

@pytest.mark.storm
def test_d(): pass
"""
GPU = Path("/dev/nvidia0").exists()


def test_what_cannot_run_or_takes_long_is_left_out_with_a_line_each(tmp_path: Path) -> None:
    text = outcome(tmp_path, MARKED)
    assert "1 left out: they need the data sets in DLSEARCH_DATA" in text
    assert ("1 left out: they need a CUDA device" in text) is not GPU
    assert "1 left out: storms, clusters and outages, which make test-storms runs" in text
    assert ("2 passed, 2 deselected" if GPU else "1 passed, 3 deselected") in text


def test_workers_of_xdist_leave_out_as_much(tmp_path: Path) -> None:
    text = outcome(tmp_path, MARKED, "-q", "-n", "1")
    assert "1 left out: they need the data sets in DLSEARCH_DATA" in text
    assert "1 left out: storms, clusters and outages" in text


def test_with_the_data_and_a_files_name_all_are_run(tmp_path: Path) -> None:
    text = outcome(tmp_path, MARKED, str(tmp_path / "test_it.py"), DLSEARCH_DATA=str(tmp_path))
    assert f"{3 + GPU} passed" in text


def test_what_takes_long_is_run_where_it_is_asked_for(tmp_path: Path) -> None:
    assert "1 passed, 3 deselected" in outcome(tmp_path, MARKED, "-m", "storm")


NOT_ALLOWED = {
    "threading.Thread(target=time.sleep, args=(5,), name='slow').start()": "outlive the test: ['slow']",
    "os.environ['DLSEARCH_X'] = '1'": "left its environment behind: ['DLSEARCH_X']",
    "os.close(os.dup(1) + 50)": "nothing was open any more",
    "os.chdir('/')": "changed the working directory",
    "warnings.warn('old', DeprecationWarning)": "DeprecationWarning: old",
}


@pytest.mark.storm
def test_what_is_not_allowed(tmp_path: Path) -> None:
    body = "".join(
        f"def test_{number}():\n  try: {line}\n  except OSError: pass\n\n"
        for number, line in enumerate(NOT_ALLOWED)
    )
    text = outcome(tmp_path, body, "-rfE", COLUMNS="300")
    for number, said in enumerate(NOT_ALLOWED.values()):
        (line,) = re.findall(rf"^(?:ERROR|FAILED) \S+::test_{number} - (.*)", text, re.MULTILINE)
        assert said in line, text


def test_an_unknown_marker_is_not_allowed(tmp_path: Path) -> None:
    text = outcome(tmp_path, "@pytest.mark.dta\ndef test_a(): pass")
    assert "'dta' not found in `markers`" in text


def test_each_test_starts_with_its_own_environment(tmp_path: Path) -> None:
    body = "def test_a(): os.environ['OTHER'] = '1'\n\ndef test_b(): assert 'OTHER' not in os.environ\n"
    body += "def test_c(): assert os.environ['OMP_NUM_THREADS'] == '1' and 'store' in os.environ['DLSEARCH_STORE']\n"
    assert "3 passed" in outcome(tmp_path, body)
