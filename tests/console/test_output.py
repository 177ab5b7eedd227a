"""Standard output that outlasts its readers, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlsearch.console.output import PLAINER

START = "import os, sys\nfrom dlsearch.console.output import outlast_readers, ReaderGoneError\n"


def run(body: str, *options: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", START + body]
    return subprocess.run(command, text=True, timeout=60, cwd=Path(__file__).parents[2], **streams)


def without_reader(body: str, *options: str) -> subprocess.CompletedProcess[str]:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        return run(body, *options, stdout=out, stderr=subprocess.PIPE)


@pytest.mark.parametrize("options", [[], ["-u"]])
@pytest.mark.parametrize("size", [1, 100_000])
def test_what_nobody_reads_is_dropped_to_the_interpreters_last_flush(
    options: list[str], size: int
) -> None:
    ended = without_reader(
        f"outlast_readers()\nprint('x' * {size})\nprint('y')\nsys.exit(5)", *options
    )
    assert (ended.returncode, ended.stderr) == (5, "")


def test_all_that_writes_to_it_is_spared() -> None:
    body = """
outlast_readers()
import logging
from rich.console import Console
logging.basicConfig(stream=sys.stdout)
logging.warning("a library")
print("a line", flush=True)
Console().print("a table")
sys.stdout.buffer.write(b"bytes")
sys.stdout.flush()
os.system("echo a program")
"""
    assert (ended := without_reader(body)).returncode == 0
    assert ended.stderr == ""


def test_who_only_writes_is_told_once() -> None:
    body = """
outlast_readers(ends=True)
try:
    print("x", flush=True)
except ReaderGoneError:
    print("y", flush=True)
    sys.exit(7)
"""
    assert (ended := without_reader(body)).returncode == 7
    assert ended.stderr == ""


def test_standard_error_too() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        ended = run(
            "outlast_readers()\nsys.stderr.write('x' * 100_000)\nprint('told')",
            stdout=subprocess.PIPE,
            stderr=out,
        )
    assert (ended.returncode, ended.stdout) == (0, "told\n")


def test_on_a_full_disk_only_what_does_not_fit_is_dropped(tmp_path: Path) -> None:
    body = """
outlast_readers()
import resource
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
print("fits", flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (5, limit[1]))
print("does not", flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
print("fits again", flush=True)
"""
    with (tmp_path / "log").open("w") as log:
        assert run(body, stdout=log).returncode == 0
    assert (tmp_path / "log").read_text() == "fits\nfits again\n"


def test_it_is_the_same_stream_otherwise() -> None:
    body = """
before = [sys.stdout.encoding, sys.stdout.fileno(), sys.stdout.isatty(), sys.stdout.line_buffering]
print("first")
outlast_readers()
stream = sys.stdout
outlast_readers()
assert stream is sys.stdout
after = [sys.stdout.encoding, sys.stdout.fileno(), sys.stdout.isatty(), sys.stdout.line_buffering]
assert after == before and sys.stdout.name == "<stdout>", (before, after)
print("then ü")
"""
    ended = run(
        body,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert (ended.stdout, ended.stderr) == ("first\nthen ü\n", "")


def test_a_stream_that_somebody_put_in_its_place_stays() -> None:
    body = "import io\nsys.stdout = mine = io.StringIO()\noutlast_readers()\nsys.exit(sys.stdout is not mine)"
    assert run(body).returncode == 0


def test_what_was_closed_at_the_start_is_no_place_for_other_files(tmp_path: Path) -> None:
    body = f"""
outlast_readers()
print("nowhere")
sys.stderr.write("nowhere")
with open({str(tmp_path / "database")!r}, "w") as file:
    os.system("echo a program")
    file.write(str(file.fileno()))
"""
    assert run(body, preexec_fn=lambda: os.closerange(0, 3)).returncode == 0
    assert int((tmp_path / "database").read_text()) > 2


def test_what_an_encoding_lacks_is_written_plainer() -> None:
    text = "next: a · b – c … ±1 ≤ 2 ─│ ● é"
    assert text.encode("ascii", PLAINER) == rb"next: a - b - c ... +-1 <= 2 -| * \xe9"
    assert "é ·".encode("latin-1", PLAINER) == b"\xe9 \xb7"
    assert "\udce4".encode("utf-8", PLAINER) == rb"\udce4"
