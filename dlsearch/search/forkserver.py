"""A warm process from which trials fork: torch and Lightning are imported once a machine, CUDA is never touched.

The server is started with :meth:`ForkServer.start`, imports its modules, and then forks a child for each request on
its Unix socket. A request carries a target (``module:function``), a JSON payload, environment variables, a log file,
and one end of a socket pair over which child and client exchange JSON messages; a second pipe brings the exit status.
The server ends when every process that holds the owner's end of its life line is gone, and a child dies with it.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.tracking import masking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux for SIGKILL when the parent dies; elsewhere the message socket's end tells a child."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Channel:
    """JSON messages over a stream socket, a line each."""

    def __init__(self, sock: socket.socket) -> None:
        """Wrap a connected socket."""
        self.sock = sock
        self._buffer = b""

    def fileno(self) -> int:
        """For selectors."""
        return self.sock.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message. Raises OSError when the other side is gone."""
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """Wait for one message; None when the other side is gone."""
        while b"\n" not in self._buffer:
            try:
                chunk = self.sock.recv(1 << 16)
            except OSError:
                return None
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))

    @property
    def pending(self) -> bool:
        """Whether a whole message was read already."""
        return b"\n" in self._buffer

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


class Child:
    """A forked child as its client sees it."""

    def __init__(self, pid: int, channel: Channel, status: int) -> None:
        """Made by :meth:`ForkServer.spawn`."""
        self.pid, self.channel, self._status = pid, channel, status
        self.exitcode: int | None = None

    @property
    def status_fd(self) -> int:
        """Readable when the child has ended."""
        return self._status

    def reap(self) -> int:
        """The exit status once `status_fd` is readable: negative for a signal, -9 when its server died with it."""
        if self.exitcode is None:
            raw = os.read(self._status, 64)
            self.exitcode = int(raw) if raw else -signal.SIGKILL
            os.close(self._status)
        return self.exitcode

    def close(self) -> None:
        """Let go of a child, dead or alive; a child that listens notices."""
        self.channel.close()
        if self.exitcode is None:
            with contextlib.suppress(OSError):
                os.close(self._status)

    def signal(self, number: int) -> None:
        """Send a signal, if it still lives."""
        if self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ServerGoneError(OSError):
    """The fork server has died, or died while it was asked."""


class ForkServer:
    """The client's handle. It survives a fork of its owner: the child may go on using it.

    Args:
        path: The server's socket.
        lifeline: The write end of the pipe whose closing ends the server.
        process: The server process, where this process started it.
    """

    def __init__(self, path: str, lifeline: int, process: subprocess.Popen[bytes] | None) -> None:
        """Made by :meth:`start`."""
        self.path, self._lifeline, self._process = path, lifeline, process

    @classmethod
    def start(cls, preload: Sequence[str], *, env: dict[str, str] | None = None) -> ForkServer:
        """Start a server that imports `preload`; returns at once, while it is still importing."""
        folder = tempfile.mkdtemp(prefix="dlsearch-")
        path = f"{folder}/fork.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(64)
        read, write = os.pipe()
        arguments = [sys.executable, "-m", __name__, str(listener.fileno()), str(read), path, *preload]
        process = subprocess.Popen(
            arguments, pass_fds=(listener.fileno(), read), env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL
        )
        listener.close()
        os.close(read)
        return cls(path, write, process)

    @property
    def alive(self) -> bool:
        """Whether it still listens."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(self.path)
        except OSError:
            return False
        return True

    def gone(self, patience_s: float = 1.0) -> bool:
        """Whether it has ended, or does so now: a killed process lets go of one connection after the other."""
        deadline = time.monotonic() + patience_s
        while alive := self.alive:
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        return not alive

    @property
    def importing(self) -> bool:
        """Whether it still imports: :meth:`spawn` would wait for it."""
        return not self._is_ready() and self._process is not None and self._process.poll() is None

    def _is_ready(self) -> bool:
        return Path(f"{self.path}.ready").exists()

    def or_another(self, revive: Callable[[], ForkServer]) -> ForkServer:
        """Itself, or what `revive` starts where it has died since it was ready."""
        return revive() if self._is_ready() and not self.alive else self

    def spawn(self, target: str, payload: dict[str, Any], *, env: dict[str, str], log: Path | None) -> Child:
        """Fork a child that runs ``target(channel, payload)``, its output going to `log`.

        Raises:
            ServerGoneError: The server is gone.
            OSError: It cannot fork.
        """
        ours, theirs = socket.socketpair()
        status_read, status_write = os.pipe()
        request = json.dumps({"target": target, "payload": payload, "env": env, "log": str(log) if log else None})
        answer, why = b"", None
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(self.path)
                fds = array.array("i", [theirs.fileno(), status_write])
                sock.sendmsg([b"r"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                sock.sendall(request.encode())
                sock.shutdown(socket.SHUT_WR)
                answer = sock.recv(32)
        except OSError as error:
            why = error
        finally:
            theirs.close()
            os.close(status_write)
            if not answer:
                ours.close()
                os.close(status_read)
        if not answer:
            if self.gone():
                raise ServerGoneError("the fork server died") from why
            raise why or OSError("the fork server cannot fork")
        return Child(int(answer), Channel(ours), status_read)

    def stop(self) -> None:
        """Let go of the life line, and wait for the end where this process is the parent."""
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        if self._process is not None:
            try:
                self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:  # still importing: it looks at its life line afterwards
                self._process.kill()
                self._process.wait()
        _tidy(self.path)


def _tidy(path: str) -> None:
    """Remove the socket's folder."""
    for name in (path, f"{path}.ready"):
        with contextlib.suppress(OSError):
            Path(name).unlink()
    with contextlib.suppress(OSError):
        Path(path).parent.rmdir()


def _become(target: str, payload: dict[str, Any], channel: Channel, env: dict[str, str], log: str | None) -> int:
    """In the child: run the target. Returns its exit status."""
    os.environ.update(env)
    if log is not None:
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError:  # the disk is full, most likely
            return os.EX_IOERR
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    masking.learn_environment()
    masking.learn(payload)
    sys.stdout, sys.stderr = masking.MaskedStream(sys.stdout), masking.MaskedStream(sys.stderr)
    try:
        module, _, function = target.partition(":")
        getattr(importlib.import_module(module), function)(channel, payload)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    return 0


def _fork(connection: socket.socket, inherited: list[int], children: dict[int, int]) -> None:
    """Serve one request."""
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(2 * array.array("i").itemsize))
    if not ancillary:  # a probe
        return
    fds = array.array("i")
    fds.frombytes(ancillary[0][2])
    message_fd, status_fd = fds
    chunks = []
    while chunk := connection.recv(1 << 16):
        chunks.append(chunk)
    request = json.loads(b"".join(chunks))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            die_with_parent()
            gc.enable()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            connection.close()
            for fd in [*inherited, *children.values(), status_fd]:
                with contextlib.suppress(OSError):
                    os.close(fd)
            channel = Channel(socket.socket(fileno=message_fd))
            code = _become(request["target"], request["payload"], channel, request["env"], request["log"])
        finally:
            os._exit(code)
    os.close(message_fd)
    children[pid] = status_fd
    with contextlib.suppress(OSError):
        connection.sendall(str(pid).encode())


def _reap(children: dict[int, int]) -> None:
    """Pass on the exit status of every child that has ended."""
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        fd = children.pop(pid, None)
        if fd is not None:
            with contextlib.suppress(OSError):
                os.write(fd, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(fd)


def main(argv: Sequence[str]) -> None:
    """The server: import, then fork on request until the life line ends."""
    listener = socket.socket(fileno=int(argv[0]))
    lifeline = int(argv[1])
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach the whole group; the driver decides what they mean
        signal.signal(number, signal.SIG_IGN)
    gc.disable()  # a third of the imports' time would go into looking for garbage in modules that stay
    for name in argv[3:]:
        importlib.import_module(name)
    gc.freeze()  # what was imported stays shared with the children: no collection of theirs touches its pages
    with contextlib.suppress(OSError):  # its owner has tidied up already
        Path(f"{argv[2]}.ready").touch()
    wake_read, wake_write = os.pipe()
    for fd in (wake_read, wake_write):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}
    inherited = [listener.fileno(), lifeline, wake_read, wake_write]
    selector = selectors.DefaultSelector()
    for fd in (listener.fileno(), lifeline, wake_read):
        selector.register(fd, selectors.EVENT_READ)
    while True:
        ready = {key.fd for key, _ in selector.select()}
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(children)
        if lifeline in ready:
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _tidy(argv[2])  # its owner may have died without a chance to
            os._exit(0)  # tearing torch down takes a second, and there is nothing to save
        if listener.fileno() in ready:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError, ValueError):
                _fork(connection, [*inherited, selector.fileno()], children)


if __name__ == "__main__":
    main(sys.argv[1:])
