"""The fork server: children run, answer, die and are reported truthfully."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from dlsearch.search.forkserver import ForkServer, ServerGoneError

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
def fail(channel, payload):
    raise ValueError("no")
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "children.py").write_text(CHILDREN)
    server = ForkServer.start(
        ["children"], env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    )
    server.children = []
    yield server
    for child in server.children:
        child.close()
    server.stop()


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
        dying = ForkServer(path, -1, None)
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
