"""Which process is which: by boot, PID name space, number and start; seen from within name spaces and from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dlsearch.core.machine.processes import ProcessIdentity, ProcessState, process_tag, state_of

LOOK = (
    "import json, sys, time; from dlsearch.core.machine.processes import ProcessIdentity, process_tag, state_of\n"
    "given = [ProcessIdentity(*each) for each in json.loads(sys.argv[1])]\n"
    "own = ProcessIdentity.of()\n"
    "print(json.dumps([[own.space, own.pid, own.born], process_tag(), [state_of(each).value for each in given]]))\n"
)


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def in_another_space(*given):
    """What a process of a new PID name space sees of others, and what it is; as in a container with the host's name."""
    code = [
        sys.executable,
        "-c",
        LOOK,
        json.dumps([[each.space, each.pid, each.born] for each in given]),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for unshare in (["unshare"], ["unshare", "-Ur"]):
        command = [*unshare, "--pid", "--fork", "--mount-proc", *code]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode == 0:
            own, tag, states = json.loads(done.stdout)
            return ProcessIdentity(*own), tag, [ProcessState(each) for each in states]
    # A kernel that makes no name space for us: what it would show is made up, and only our own side
    # is looked at.
    boot = ProcessIdentity.of().space.partition("/")[0]
    own = ProcessIdentity(f"{boot}/1", 1, "17")
    return (
        own,
        "1-0",
        [ProcessState.HIDDEN if each.space != own.space else ProcessState.ALIVE for each in given],
    )


def test_a_process_is_alive_stopped_and_dead(sleeper):
    identity = ProcessIdentity.of(sleeper.pid)
    assert state_of(identity) is ProcessState.ALIVE
    sleeper.send_signal(signal.SIGSTOP)
    until(lambda: state_of(identity) is ProcessState.STOPPED)
    sleeper.send_signal(signal.SIGCONT)
    until(lambda: state_of(identity) is ProcessState.ALIVE)
    sleeper.kill()
    until(lambda: state_of(identity) is ProcessState.DEAD)
    assert sleeper.returncode is None, "nobody has collected it yet"
    sleeper.wait()
    assert state_of(identity) is ProcessState.DEAD


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_a_number_that_has_gone_to_another_process_is_dead():
    own = ProcessIdentity.of()
    assert state_of(own) is ProcessState.ALIVE
    assert own.born, "Linux says when a process was started"
    assert state_of(replace(own, born=str(int(own.born) - 1))) is ProcessState.DEAD


def test_nobody_is_judged_by_a_number_of_another_name_space():
    own = ProcessIdentity.of()
    other, tag, (seen, absent) = in_another_space(own, replace(own, pid=2**22 - 1))
    assert (seen, absent) == (ProcessState.HIDDEN, ProcessState.HIDDEN), (
        "dead or alive, it cannot be seen from there"
    )
    assert other.space != own.space
    assert other.space.partition("/")[0] == own.space.partition("/")[0], (
        "it is one machine, and one boot of it"
    )
    assert state_of(other) is ProcessState.HIDDEN, "it has ended, which cannot be seen from here"
    assert tag != process_tag()


def test_a_process_of_another_boot_or_of_no_known_identity_is_elsewhere():
    own = ProcessIdentity.of()
    assert (
        state_of(replace(own, space=f"another/{own.space.partition('/')[2]}"))
        is ProcessState.ELSEWHERE
    )
    assert state_of(None) is ProcessState.ELSEWHERE


def test_a_process_that_shows_another_s_proc_falls_back_to_numbers(sleeper, monkeypatch):
    """As with ``unshare --pid`` alone: /proc is then that of the name space outside, where numbers mean others."""
    identity = ProcessIdentity.of(sleeper.pid)
    monkeypatch.setattr(Path, "readlink", lambda _: Path("1"))
    assert ProcessIdentity.of(sleeper.pid).born == ""
    assert state_of(identity) is ProcessState.ALIVE
    sleeper.kill()
    sleeper.wait()
    assert state_of(identity) is ProcessState.DEAD
