"""One process at a time scores an ensemble of a study."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dlsearch.app.ensemble import alone
from dlsearch.core.errors import ConfigError

HOLDER = """
import sys
from pathlib import Path
from dlsearch.app.ensemble import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_one_is_refused_and_a_killed_one_holds_nothing(tmp_path):
    folder = tmp_path / "ensemble"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="another dlsearch ensemble"), alone(folder):
            pass
        holder.kill()
    with alone(folder):
        pass
    with alone(folder):
        pass


def test_its_lock_is_not_written_through_a_link(tmp_path):
    folder = tmp_path / "ensemble"
    folder.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (folder / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="lock"), alone(folder):
        pass
    assert victim.read_text() == "precious"
