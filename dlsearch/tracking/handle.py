"""The driver's hold on the shipper's process. Imports no mlflow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from dlsearch.core.files.regular import open_to_append
from dlsearch.core.retry import Backoff, retry
from dlsearch.tracking.destination import Routes
from dlsearch.tracking.tail import Tail, backlog, server_id

_POLL_S = 0.05
#: The kernel takes ten changes of an autogroup a second.
_BETWEEN_SHARES = Backoff(first_s=0.15, cap_s=0.15)


def set_share(pid: int, nice: int) -> None:
    """Set the niceness of the process group that `pid` leads, 0 to 19; it can be taken back.

    Linux's autogroups give every session as large a share of the machine as every other, whatever
    the niceness of its processes. A shipper has a session of its own, so that Ctrl-C passes it by:
    it would take a core from training.
    """
    autogroup = Path(f"/proc/{pid}/autogroup")
    with suppress(OSError):  # another system, or the process has ended
        retry(
            lambda: autogroup.write_text(str(nice)),
            on=BlockingIOError,
            tries=2,
            backoff=_BETWEEN_SHARES,
        )


class Shipper:
    """A running shipper.

    Args:
        store: The store whose journals it tails.
        uri: Where it sends them.
        wait: It imports mlflow (seconds) with the time that nobody else wants, and touches neither
            `store` nor `uri` before :meth:`go`.
    """

    def __init__(
        self,
        store: Path,
        uri: str,
        *,
        wait: bool = False,
    ) -> None:
        """Start the process."""
        self.store = Path(store)
        self.uri = uri
        self.waits = wait
        self._process = self._start_process(wait=wait)
        if wait:
            self.yield_to_training()

    def go(self) -> None:
        """End the wait."""
        self.store.mkdir(parents=True, exist_ok=True)
        self.waits = False
        self._wake_process()

    def dismiss(self) -> None:
        """End a process that waits: nothing is to be sent."""
        self.waits = False
        self._process.kill()
        self._process.wait()
        self._close_stdin()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def yield_to_training(self) -> None:
        """Leave it about 4 % of a core where all of them train, and what is idle.

        Until :meth:`drain`.
        """
        set_share(self.pid, 19)

    def drain(self, timeout_s: float) -> bool:
        """Wait until MLflow has everything that stands in the store's journals now.

        False when that took too long.
        """
        deadline = time.monotonic() + timeout_s
        set_share(self.pid, 0)
        self._wake_process()
        server = server_id(self.uri)
        restarts = 1
        todo = backlog(self.store, server, Routes(self.store, self.uri))
        while todo:
            if time.monotonic() > deadline:
                return False
            if self._process.poll() is not None:  # somebody killed it
                if restarts == 0:
                    return False
                restarts -= 1
                self._process = self._start_process()
            time.sleep(_POLL_S)
            todo = {path: end for path, end in todo.items() if Tail.load(path, server).offset < end}
        return True

    def stop(self, timeout_s: float) -> bool:
        """Drain, and end the process; False when something is left for ``dlsearch sync``.

        Ctrl-C, and what counts as one, ends the wait alone, and the process goes on by itself for a
        while.
        """
        try:
            drained = self.drain(timeout_s)
        except KeyboardInterrupt:
            self.leave()
            return False
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:  # in the middle of a slow request; a resend does no harm
            self._process.kill()
            self._process.wait()
        self._close_stdin()
        return drained

    def leave(self) -> None:
        """Do not wait: the process sends the rest after its owner has ended, and then ends."""
        self._process.returncode = 0  # nobody's any more: no warning that it still runs
        self._close_stdin()

    def _wake_process(self) -> None:
        """Have it look at the journals now."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended, as its owner will notice
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def _close_stdin(self) -> None:
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]

    def _start_process(self, *, wait: bool = False) -> subprocess.Popen[bytes]:
        # In the environment, not among the arguments: those are for everyone to see, and a URL may
        # hold a password.
        environment = {**os.environ, "MLFLOW_TRACKING_URI": self.uri}
        command = [
            sys.executable,
            "-P",
            "-m",
            "dlsearch.tracking.mlflow.shipper",
            str(self.store.resolve()),
        ]
        command += ["--owner", str(os.getpid()), *(["--wait"] if wait else [])]
        if not wait:
            self.store.mkdir(parents=True, exist_ok=True)
        with open_to_append(
            Path(os.devnull) if wait else self.store / "shipper.log", mode=0o666
        ) as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log.fileno(),
                stderr=log.fileno(),
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is the driver's
            )


def start(store: Path, uri: str) -> Shipper:
    """Start a shipper for `store`.

    It waits its turn where one is at work, and ends by itself after its owner.
    """
    return Shipper(store, uri)
