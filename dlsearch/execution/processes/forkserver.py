"""A warm process from which trials fork.

Torch and Lightning are imported once a machine, CUDA is never touched.

The server is started with :meth:`ForkServer.start`, imports its modules, and then forks a child for
each request on its Unix socket. A request carries a target (``module:function``), a JSON payload,
environment variables, a log file, and one end of a socket pair over which child and client exchange
JSON messages; a second pipe brings the exit status. The server ends when every process that holds
the owner's end of its life line is gone, and a child dies with it.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import gc
import hashlib
import importlib
import itertools
import json
import os
import secrets
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dlsearch.console import streams
from dlsearch.console.output import outlast_readers
from dlsearch.core import masking, permission
from dlsearch.core.files.descriptor import Descriptor
from dlsearch.core.files.regular import open_to_append
from dlsearch.core.machine import landlock
from dlsearch.core.retry import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dlsearch.core.types import ConfigTree, JsonObject

#: The environment variable that names a server's own folder for temporary files.
SCRATCH = "DLSEARCH_SCRATCH"
_PR_SET_PDEATHSIG = 1
_STOPS = (signal.SIGTERM, signal.SIGHUP)
#: Of the key that comes with a request.
_KEY_BYTES = 32
# descriptors that come with a request: a socket for messages, a pipe for the exit status
_PASSED = 2
_REFUSAL = "cannot fork: "
#: This module, which is ``__main__`` in a server.
_MODULE = "dlsearch.execution.processes.forkserver"
_numbers = itertools.count()
#: Between two looks whether a server that seems to die has died.
_POLL_S = 0.01


@dataclass(frozen=True)
class ForkRequest:
    """What a child is to be.

    Args:
        target: What it runs, as ``module:function``.
        payload: What that is given.
        env: Environment variables of its own.
        log: Where its output goes; None leaves it where the server's goes.
        granted: Packages whose targets it may build.
        folders: Folders that it may read.
    """

    target: str
    payload: JsonObject
    env: dict[str, str]
    log: str | None
    granted: list[str]
    folders: list[str]

    def encode(self) -> bytes:
        """As it is sent."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def decode(cls, sent: bytes) -> ForkRequest:
        """The request that arrived."""
        return cls(**json.loads(sent))


def die_with_parent() -> None:
    """Ask Linux for SIGKILL when the parent dies.

    Elsewhere the message socket's end tells a child.
    """
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

    def send(self, message: JsonObject) -> None:
        """Send one message. Raises OSError when the other side is gone."""
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> JsonObject | None:
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

    def __init__(
        self,
        pid: int,
        channel: Channel,
        status: Descriptor,
    ) -> None:
        """Made by :meth:`ForkServer.spawn`.

        `status` brings the exit status, and is the child's from now on.
        """
        self.pid = pid
        self.channel = channel
        self._status = status
        self.exitcode: int | None = None

    @property
    def status_fd(self) -> int:
        """Readable when the child has ended."""
        return self._status.fileno()

    def reap(self) -> int:
        """The exit status once `status_fd` is readable.

        Negative for a signal, -9 when its server died with it.
        """
        if self.exitcode is None:
            raw = os.read(self._status.fileno(), 64)
            self.exitcode = int(raw) if raw else -signal.SIGKILL
            self._status.close()
        return self.exitcode

    def forget_status(self) -> Channel:
        """For who is content with the end of the channel, which it returns."""
        self._status.close()
        return self.channel

    def close(self) -> None:
        """Let go of a child, dead or alive; a child that listens notices."""
        self.channel.close()
        self._status.close()

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
        lifeline: The write end of the pipe whose closing ends the server; None for somebody else's
            server.
        process: The server process, where this process started it.
        key: What the server wants to see before it forks. Its children do not know it, so that what
            a trial runs cannot have itself a process forked that sees more than it does.
    """

    def __init__(
        self,
        path: str,
        lifeline: Descriptor | None,
        process: subprocess.Popen[bytes] | None,
        key: str = "",
    ) -> None:
        """Made by :meth:`start`."""
        self.path = path
        self.key = key
        self._lifeline = lifeline
        self._process = process
        self._starter = os.getpid()

    @classmethod
    def start(cls, preload: Sequence[str], *, env: dict[str, str] | None = None) -> ForkServer:
        """Start a server that imports `preload`; returns at once, while it is still importing."""
        folder = tempfile.mkdtemp(prefix="dlsearch-")
        path = f"{folder}/fork.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(64)
        read, write = Descriptor.pipe()
        passed = (listener.fileno(), read.fileno())
        # -P: no file of the working folder takes the place of a module; an admitted package is
        # found there all the same
        admitted = json.dumps(permission.granted())
        key = secrets.token_hex(_KEY_BYTES // 2)
        arguments = [
            sys.executable,
            "-P",
            "-m",
            __name__,
            *map(str, passed),
            path,
            admitted,
            hashlib.sha256(key.encode()).hexdigest(),
            *preload,
        ]
        try:
            process = subprocess.Popen(
                arguments,
                pass_fds=passed,
                env={**os.environ, **(env or {}), SCRATCH: f"{folder}/tmp"},
                stdin=subprocess.DEVNULL,
            )
        except BaseException:
            write.close()
            _tidy(path)
            raise
        finally:
            listener.close()
            read.close()
        return cls(path, write, process, key)

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
        """Whether it has ended, or does so now.

        A killed process lets go of one connection after the other.
        """
        return wait_until(
            lambda: not self.alive,
            timeout_s=patience_s,
            poll_s=_POLL_S,
        )

    @property
    def importing(self) -> bool:
        """Whether it still imports: :meth:`spawn` would wait for it."""
        return not self._is_ready() and self._process is not None and self._process.poll() is None

    def _is_ready(self) -> bool:
        return Path(f"{self.path}.ready").exists()

    def or_another(self, revive: Callable[[], ForkServer]) -> ForkServer:
        """Itself, or what `revive` starts where it has died since it was ready."""
        return revive() if self._is_ready() and not self.alive else self

    def spawn(
        self,
        target: str,
        payload: JsonObject,
        *,
        env: dict[str, str],
        log: Path | None,
    ) -> Child:
        """Fork a child that runs ``target(channel, payload)``, its output going to `log`.

        Raises:
            ServerGoneError: The server is gone.
            OSError: It cannot fork, and says why.
        """
        request = ForkRequest(
            target=target,
            payload=payload,
            env=env,
            log=None if log is None else str(log),
            granted=list(permission.granted()),
            folders=[str(folder) for folder in permission.folders()],
        ).encode()
        ours, theirs = socket.socketpair()
        status_read, status_write = Descriptor.pipe()
        pid: int | None = None
        answer = b""
        why: OSError | None = None
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(self.path)
                fds = array.array("i", [theirs.fileno(), status_write.fileno()])
                sent = self.key.encode().ljust(_KEY_BYTES)
                sock.sendmsg([sent], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                sock.sendall(request)
                sock.shutdown(socket.SHUT_WR)
                while chunk := sock.recv(1 << 12):
                    answer += chunk
            if not answer.startswith(_REFUSAL.encode()):
                pid = int(answer) if answer else None
        except OSError as error:
            why = error
        finally:
            theirs.close()
            status_write.close()
            if pid is None:
                ours.close()
                status_read.close()
        if answer and pid is None:
            raise OSError(f"the fork server {answer.decode()}")
        if pid is None:
            if self.gone():
                raise ServerGoneError("the fork server died") from why
            raise why or OSError("the fork server cannot fork")
        return Child(pid, Channel(ours), status_read)

    def stop(self) -> None:
        """Let go of the life line, and wait for the end where this process is the parent.

        A second time does nothing.

        In a process that was forked from the parent it lets go of that process's share of the life
        line alone.
        """
        if self._lifeline is None or self._lifeline.closed:
            return
        self._lifeline.close()
        # the server, and its socket, are still the parent's
        if self._process is None or os.getpid() != self._starter:
            return
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
    folder = Path(path).parent
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    for left in folder.glob(f"{Path(path).name}.*"):  # of servers that were forked from this one
        with contextlib.suppress(OSError):
            left.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _become(request: ForkRequest, channel: Channel) -> int:
    """In the child: run the target. Returns its exit status."""
    os.environ.update(request.env)
    if request.log is not None:
        try:
            output = open_to_append(Path(request.log))
        except OSError:  # the disk is full, most likely
            return os.EX_IOERR
        with output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
    else:  # it says what it has to say where the command does
        outlast_readers()
    masking.learn_environment()
    masking.learn(request.payload)
    streams.put_in_place(terminal=request.log is None)
    try:
        module, _, function = request.target.partition(":")
        run = getattr(importlib.import_module(module), function)
        run(channel, request.payload)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        streams.finish_output()
    return 0


class _Closable(Protocol):
    def close(self) -> None: ...


def _fork(
    connection: socket.socket,
    inherited: Sequence[_Closable],
    reset: Sequence[int],
    children: dict[int, Descriptor],
    lock: str,
) -> None:
    """Serve one request.

    Args:
        connection: To the client.
        inherited: What is the server's alone, and no business of a child.
        reset: Signals that the server handles or ignores, and a child does not.
        children: The pipes for the exit statuses, by process; the new child's is added.
        lock: Digest of the key that the request must have; empty where anybody may ask.
    """
    received, is_owner = _receive_descriptors(connection, lock)
    if not received:  # a probe
        return
    with contextlib.ExitStack() as unless_forked:
        for each in received:
            unless_forked.enter_context(each)
        chunks = []
        while chunk := connection.recv(1 << 16):
            chunks.append(chunk)
        if len(received) != _PASSED:
            _answer(connection, f"{_REFUSAL}{os.strerror(errno.EMFILE)}")
            return
        if not is_owner:
            _answer(connection, f"{_REFUSAL}{os.strerror(errno.EACCES)}")
            return
        messages, status = received
        request = ForkRequest.decode(b"".join(chunks))
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory
            _answer(connection, f"{_REFUSAL}{error.strerror or error}")
            return
        if pid == 0:
            code = 1
            try:
                die_with_parent()
                gc.enable()
                signal.set_wakeup_fd(-1)
                for number in reset:
                    signal.signal(number, signal.SIG_DFL)
                for other in (connection, *inherited, *children.values(), status):
                    other.close()
                channel = Channel(socket.socket(fileno=messages.detach()))
                permission.grant(request.granted, map(Path, request.folders))
                code = _become(request, channel)
            finally:
                os._exit(code)
        children[pid] = status
        unless_forked.pop_all()
        messages.close()
    _answer(connection, str(pid))


def _receive_descriptors(connection: socket.socket, lock: str) -> tuple[list[Descriptor], bool]:
    """What came with a request, and whether its key was right.

    Fewer descriptors than were sent where this process has no room for more.
    """
    key = bytearray(_KEY_BYTES)
    _, ancillary, _, _ = connection.recvmsg_into(
        [key], socket.CMSG_SPACE(_PASSED * array.array("i").itemsize)
    )
    is_owner = not lock or hashlib.sha256(key).hexdigest() == lock
    key[:] = bytes(_KEY_BYTES)  # a child has a copy of this memory
    numbers = array.array("i")
    for _, _, data in ancillary:
        numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return [Descriptor(number) for number in numbers], is_owner


def _answer(connection: socket.socket, words: str) -> None:
    with contextlib.suppress(OSError):  # the client has died
        connection.sendall(words.encode())


def _reap(children: dict[int, Descriptor]) -> None:
    """Pass on the exit status of every child that has ended."""
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        pipe = children.pop(pid, None)
        if pipe is not None:
            with pipe, contextlib.suppress(OSError):  # nobody waits for it any more
                os.write(pipe.fileno(), str(os.waitstatus_to_exitcode(status)).encode())


def is_of_user(module: str) -> bool:
    """Whether a module belongs to a package that the user has admitted."""
    return any(f"{module}.".startswith(f"{package}.") for package in permission.granted())


def import_modules(names: Iterable[str]) -> None:
    """Import what trials need.

    A module of the user's may be missing or fail: the trial that needs it says so in one line.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit):
            if name.startswith(("dlsearch.training.", "dlsearch.execution.")):
                raise


def main(argv: Sequence[str]) -> None:
    """The server: import, then fork on request until the life line ends."""
    listener = socket.socket(fileno=int(argv[0]))
    lifeline = Descriptor(int(argv[1]))
    # they may reach the whole group; the driver decides what they mean
    reset = _ignore_stops()
    # a third of the imports' time would go into looking for garbage in modules that stay
    gc.disable()
    permission.grant(json.loads(argv[3]))
    # only a process that has given up the test set runs the user's code
    import_modules(name for name in argv[5:] if not (landlock.abi() and is_of_user(name)))
    serve(listener, lifeline, path=argv[2], lock=argv[4], reset=reset)
    _tidy(argv[2])  # its owner may have died without a chance to
    os._exit(0)  # tearing torch down takes a second, and there is nothing to save


def _ignore_stops() -> list[int]:
    """Have signals ignored that the driver judges; those that a child gets back."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in (signal.SIGINT, *_STOPS):
        signal.signal(number, signal.SIG_IGN)
    reset: list[int] = [signal.SIGCHLD, signal.SIGTERM]
    if not nohup:
        reset.append(signal.SIGHUP)
    return reset


def serve(
    listener: socket.socket,
    lifeline: Descriptor,
    *,
    path: str,
    lock: str,
    reset: Sequence[int],
) -> None:
    """Fork on request until the life line ends, and the children with it.

    Args:
        listener: Where requests arrive.
        lifeline: Readable when it has ended.
        path: The socket's name; the file that says that it is ready lies beside it.
        lock: Digest of the key that a request must have; empty where anybody may ask.
        reset: Signals that a child does not ignore.
    """
    # what was imported stays shared with the children: no collection of theirs touches its pages
    gc.freeze()
    with contextlib.suppress(OSError):  # its owner has tidied up already
        Path(f"{path}.ready").touch()
    wake_read, wake_write = Descriptor.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end.fileno(), False)
    signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, Descriptor] = {}
    selector = selectors.DefaultSelector()
    for source in (listener, lifeline, wake_read):
        selector.register(source, selectors.EVENT_READ)
    inherited: list[_Closable] = [listener, lifeline, wake_read, wake_write, selector]
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read.fileno(), 4096)
            _reap(children)
        if lifeline in ready:
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        if listener in ready:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError, ValueError):
                _fork(
                    connection,
                    inherited,
                    reset,
                    children,
                    lock,
                )


def serve_sealed(channel: Channel, payload: JsonObject) -> None:
    """In a child: become a server whose children, like itself, have given up the test set.

    The user's modules are imported here, once for all trials.

    Args:
        channel: To the worker: the life line. It brings the ``error`` that kept this process from
            becoming a server.
        payload: ``config`` of the trials, the ``path`` of the socket, and the modules to
            ``preload``.
    """
    from dlsearch.execution.processes.confinement import hold_for

    reset = _ignore_stops()
    gc.disable()
    try:
        hold_for(payload["config"])
    except Exception as error:
        channel.send({"error": f"{type(error).__name__}: {error}"})
        raise
    import_modules(filter(is_of_user, payload["preload"]))
    path = payload["path"]
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    lifeline = Descriptor(channel.sock.detach())
    serve(listener, lifeline, path=path, lock="", reset=reset)
    for name in (path, f"{path}.ready"):
        Path(name).unlink(missing_ok=True)
    os._exit(0)


class SealedServer(ForkServer):
    """A server that was forked from another one: :func:`serve_sealed`.

    Args:
        child: It, as the other server's child.
        path: Its socket.
    """

    def __init__(self, child: Child, path: str) -> None:
        """Made by :meth:`start_from`."""
        super().__init__(path, Descriptor(child.channel.sock.detach()), None)
        self._child = child

    @classmethod
    def start_from(
        cls,
        server: ForkServer,
        config: ConfigTree,
        preload: Sequence[str],
    ) -> SealedServer:
        """Start one; returns at once, while it prepares the data and imports.

        Raises:
            ServerGoneError: The other server is gone.
            OSError: It cannot fork.
        """
        path = f"{server.path}.{os.getpid()}.{next(_numbers)}"
        child = server.spawn(
            f"{_MODULE}:serve_sealed",
            {"config": config, "path": path, "preload": list(preload)},
            env={},
            log=Path(f"{path}.log"),
        )
        return cls(child, path)

    @property
    def has_failed(self) -> bool:
        """Whether it ended before it was ready."""
        return not self._is_ready() and self._has_ended()

    @property
    def importing(self) -> bool:
        """Whether it still prepares or imports."""
        return not self._is_ready() and not self._has_ended()

    def _has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._child.status_fd, select.POLLIN)
        return bool(poll.poll(0))

    def stop(self) -> None:
        """Let go of it: it ends when all have."""
        super().stop()
        self._child.forget_status()


if __name__ == "__main__":
    main(sys.argv[1:])
