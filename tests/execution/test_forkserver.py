"""The fork server: children run, answer, die and are reported truthfully."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from dlsearch.core.files.descriptor import Descriptor
from dlsearch.execution.processes.forkserver import ForkServer, ServerGoneError

CHILDREN = """
import os, time
def hello(channel, payload):
    channel.send({"pid": os.getpid(), "sum": payload["a"] + payload["b"], "env": os.environ["SLOT"]})
    print("to the log")
def echo(channel, payload):
    while (message := channel.receive()) is not None:
        channel.send({"echo": message})
def sleep(channel, payload):
    channel.send({})
    time.sleep(60)
def files(channel, payload):
    found = []
    for number in os.listdir("/proc/self/fd"):
        at = f"/proc/self/fd/{number}"
        if int(number) > 2 and os.path.lexists(at):  # that of listdir itself is closed by now
            found.append(os.readlink(at).partition(":")[0])
    channel.send({"found": found})
def fail(channel, payload):
    raise ValueError("no")
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "children.py").write_text(CHILDREN)
    server = ForkServer.start(
        ["children"],
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    server.children = []
    yield server
    for child in server.children:
        child.close()
    server.stop()


def open_numbers():
    """The descriptors of this process."""
    numbers = {int(each.name) for each in Path("/proc/self/fd").iterdir()}
    # without that of the look
    return {number for number in numbers if os.path.lexists(f"/proc/self/fd/{number}")}


def spawn(server, name, log=None, **payload):
    child = server.spawn(f"children:{name}", payload, env={"SLOT": "3"}, log=log)
    server.children.append(child)
    return child


def test_a_child_gets_payload_environment_and_log(server, tmp_path):
    child = spawn(server, "hello", tmp_path / "log", a=1, b=2)
    assert child.channel.receive() == {"pid": child.pid, "sum": 3, "env": "3"}
    assert child.reap() == 0
    assert (tmp_path / "log").read_text() == "to the log\n"


def test_a_conversation_keeps_its_messages_apart(server):
    child = spawn(server, "echo")
    for n in range(50):
        child.channel.send({"n": n, "text": "x" * n * 100})
    answers = [child.channel.receive() for _ in range(50)]
    assert [a["echo"]["n"] for a in answers] == list(range(50))
    child.channel.close()
    assert child.reap() == 0


def test_failure_and_signals_are_told(server, tmp_path):
    failed = spawn(server, "fail", tmp_path / "log")
    assert failed.channel.receive() is None
    assert failed.reap() == 1
    assert "ValueError: no" in (tmp_path / "log").read_text()
    killed = spawn(server, "sleep")
    assert killed.channel.receive() == {}
    killed.signal(signal.SIGKILL)
    assert killed.reap() == -signal.SIGKILL


def test_children_die_with_their_server(server):
    child = spawn(server, "sleep")
    child.channel.receive()
    os.kill(server._process.pid, signal.SIGKILL)
    assert child.reap() == -signal.SIGKILL
    assert not server.alive
    assert server.or_another(lambda: "another") == "another"
    with pytest.raises(ServerGoneError):
        spawn(server, "hello", a=1, b=1)
    for _ in range(100):
        if not Path(f"/proc/{child.pid}").exists():
            return
        time.sleep(0.02)
    pytest.fail("the child outlived its server")


def test_one_that_is_being_killed_is_gone_although_its_listener_closes_last(server, tmp_path):
    path = str(tmp_path / "dying.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        dying = ForkServer(path, None, None)
        assert dying.alive
        death = threading.Timer(0.2, listener.close)
        death.start()
        assert dying.gone()
        death.join()
    assert not server.gone(patience_s=0.1)


def test_stopping_leaves_nothing_behind(tmp_path):
    server = ForkServer.start(["json"])
    folder = Path(server.path).parent
    assert folder.is_dir()
    server.stop()
    assert not folder.exists()


def test_a_second_stop_leaves_a_strangers_file_alone(tmp_path):
    before = open_numbers()
    server = ForkServer.start(["json"])
    (lifeline,) = open_numbers() - before
    server.stop()
    assert lifeline not in open_numbers()
    with (tmp_path / "database").open("wb") as file:
        os.dup2(file.fileno(), lifeline)  # as the kernel does with what is opened next
    with Descriptor(lifeline) as stranger:
        server.stop()
        os.write(stranger.fileno(), b"whole")
    assert (tmp_path / "database").read_bytes() == b"whole"


def test_a_fork_of_the_owner_lets_go_of_its_own_share(server):
    """What a worker that was forked from the driver does to the server leaves the driver's alone."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            server.stop()
            server.stop()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    child = spawn(server, "hello", a=1, b=2)
    assert child.channel.receive()["sum"] == 3
    assert child.reap() == 0


def descriptors_of(pid):
    """By number, once the process has let go of the connections that it answered."""
    time.sleep(0.2)
    return {int(each.name): str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_server_that_cannot_fork_says_why_and_keeps_nothing(tmp_path):
    (tmp_path / "crowded.py").write_text(f"""
import errno, os
fork = os.fork
def crowded():
    if os.path.exists({str(tmp_path / "crowded")!r}):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = crowded
""")
    (tmp_path / "children.py").write_text(CHILDREN)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    server = ForkServer.start(["crowded", "children"], env={"PYTHONPATH": path})
    try:
        server.children = []
        child = spawn(server, "hello", a=1, b=2)
        assert child.channel.receive()["sum"] == 3
        assert child.reap() == 0
        child.close()
        (tmp_path / "crowded").touch()
        theirs, ours = descriptors_of(server._process.pid), open_numbers()
        for _ in range(20):
            with pytest.raises(
                OSError, match="the fork server cannot fork: Resource temporarily unavailable"
            ):
                spawn(server, "hello", a=1, b=2)
        (tmp_path / "crowded").unlink()
        assert descriptors_of(server._process.pid) == theirs
        assert open_numbers() == ours
        child = spawn(server, "hello", a=3, b=4)
        assert child.channel.receive()["sum"] == 7
        assert child.reap() == 0
        child.close()
    finally:
        server.stop()


def test_a_server_without_room_for_descriptors_says_so_and_keeps_nothing(server):
    other = spawn(server, "sleep")
    assert other.channel.receive() == {}
    pid = server._process.pid
    theirs, ours = descriptors_of(pid), open_numbers()
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    free = [number for number in range(100) if number not in theirs]
    # one for the connection, and one more
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[2], limits[1]))
    for _ in range(5):
        with pytest.raises(OSError, match="the fork server cannot fork: Too many open files"):
            spawn(server, "hello", a=1, b=2)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert descriptors_of(pid) == theirs
    assert open_numbers() == ours
    child = spawn(server, "hello", a=1, b=2)
    assert child.channel.receive()["sum"] == 3
    assert child.reap() == 0


def test_a_child_inherits_nothing_of_the_server(server):
    other = spawn(server, "sleep")
    assert other.channel.receive() == {}
    child = spawn(server, "files")
    assert child.channel.receive() == {"found": ["socket"]}
    assert child.reap() == 0
