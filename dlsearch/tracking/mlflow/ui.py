"""MLflow's UI and the Optuna dashboard over a store, on this machine's loopback address only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from dlsearch.console.terminal import say, warn
from dlsearch.core.files.sqlite_url import escape_braces
from dlsearch.core.masking import mask_text
from dlsearch.tracking.mlflow import database

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1"
_START_S = 90.0
_STOP_S = 5.0
_STORAGE = "DLSEARCH_UI_STORAGE"
#: What lies in the working folder is no module of a server's, nor of its children's: it may be
#: somebody else's.
_SAFE = {"PYTHONSAFEPATH": "1"}


@dataclass
class _Server:
    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def end(self) -> None:
        """Ask, then force; the whole group, for MLflow's server has children."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None and number == signal.SIGTERM:
                continue
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                continue


def serve(
    store: Path,
    storage_url: str,
    tracking_uri: str,
    *,
    mlflow_port: int,
    optuna_port: int,
    out: TextIO | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Serve both until Ctrl-C.

    Args:
        store: The store; the servers' output goes to ``ui-*.log`` in it.
        storage_url: Optuna's storage.
        tracking_uri: MLflow's database; a server (http) is already one, and only named.
        mlflow_port: Wanted; a free one is taken where it is in use.
        optuna_port: Wanted; a free one is taken where it is in use.
        out: Where the addresses are written; standard output by default.
        stop: Ends it like Ctrl-C.

    Returns:
        The exit code: 0 after Ctrl-C, 1 when a server died.
    """
    stop = stop or threading.Event()
    is_remote = tracking_uri.startswith(("http://", "https://"))
    restore = _stop_on_sigterm(stop)
    servers: list[_Server] = []
    try:
        if not is_remote:
            servers.append(_start_mlflow(store, tracking_uri, free_port(mlflow_port)))
        taken = {server.port for server in servers}
        servers.append(
            _start_dashboard(
                store,
                storage_url,
                free_port(optuna_port, taken),
            )
        )
        if not _await_answers(servers, stop):
            return 1
        if not stop.is_set():
            mlflow_url = mask_text(tracking_uri) if is_remote else servers[0].url
            _say_addresses(mlflow_url, servers[-1].url, out or sys.stdout)
        return _watch_servers(servers, stop)
    except KeyboardInterrupt:
        return 0
    finally:
        restore()
        for server in servers:
            server.end()


def _await_answers(servers: list[_Server], stop: threading.Event) -> bool:
    """Wait until all servers answer; False where one of them failed, which is then said."""
    waiting = list(servers)
    deadline = time.monotonic() + _START_S
    while waiting and not stop.is_set():
        dead = _find_dead(servers)
        if dead is not None:
            _report_end(dead, "ended")
            return False
        if time.monotonic() > deadline:
            _report_end(waiting[0], f"does not answer after {_START_S:.0f} s")
            return False
        waiting = [server for server in waiting if not server.answers()]
        stop.wait(0.2)
    return True


def _watch_servers(servers: list[_Server], stop: threading.Event) -> int:
    """Wait for the end. The exit code: 0 when it was asked for, 1 when a server died."""
    while not stop.wait(0.5):
        dead = _find_dead(servers)
        if dead is not None:
            _report_end(dead, "ended")
            return 1
    return 0


def _say_addresses(mlflow_url: str, optuna_url: str, out: TextIO) -> None:
    say(
        f"MLflow            {mlflow_url}",
        f"Optuna dashboard  {optuna_url}",
        "Ctrl-C ends both",
        to=out,
    )
    out.flush()


def free_port(wanted: int, taken: set[int] | None = None) -> int:
    """`wanted`, or one that the system chooses when it is in use."""
    for port in (wanted, 0, 0, 0):
        if taken and port in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {HOST}")


def _start_mlflow(store: Path, uri: str, port: int) -> _Server:
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--allowed-hosts", f"{HOST}:{port},localhost:{port}"]
    command += ["--cors-allowed-origins", f"http://{HOST}:{port},http://localhost:{port}"]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: those are for everyone to see
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": (store.resolve() / "artifacts").as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if database.wanting(uri):  # a server that is ended while it makes one leaves half of it
        maker = [sys.executable, "-m", "dlsearch.tracking.mlflow.database"]
        quiet = {
            **os.environ,
            **environment,
            **_SAFE,
            "MLFLOW_LOGGING_LEVEL": "WARNING",
        }
        subprocess.run(
            maker,
            stdin=subprocess.DEVNULL,
            env=quiet,
            check=False,
        )
    return _start_server(
        "MLflow",
        command,
        environment,
        port,
        store / "ui-mlflow.log",
    )


def _start_dashboard(store: Path, storage_url: str, port: int) -> _Server:
    command = [sys.executable, "-m", "dlsearch.tracking.mlflow.ui", "optuna", str(port)]
    return _start_server(
        "Optuna dashboard",
        command,
        {_STORAGE: escape_braces(storage_url)},
        port,
        store / "ui-optuna.log",
    )


def _start_server(
    name: str,
    command: list[str],
    environment: dict[str, str],
    port: int,
    log: Path,
) -> _Server:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment, **_SAFE},
            start_new_session=True,  # Ctrl-C is ours; both are ended in order
        )
    return _Server(name, port, process, log)


def _find_dead(servers: list[_Server]) -> _Server | None:
    return next((server for server in servers if server.process.poll() is not None), None)


def _report_end(server: _Server, what: str) -> None:
    """Warn that a server failed, with the last line of its log."""
    text = server.log.read_text(errors="replace") if server.log.is_file() else ""
    lines = text.strip().splitlines()
    reason = f"exit status {server.process.returncode}"
    if lines:
        reason = mask_text(lines[-1].strip())[:200]
    warn(f"{server.name} {what}: {reason} ({server.log})")


def _stop_on_sigterm(stop: threading.Event) -> _Restore:
    if threading.current_thread() is not threading.main_thread():
        return _Restore(None)
    return _Restore(signal.signal(signal.SIGTERM, lambda *_: stop.set()))


class _Restore:
    def __init__(self, handler: object) -> None:
        self._handler = handler

    def __call__(self) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)  # type: ignore[arg-type]


def _run_optuna_dashboard(port: int) -> None:
    """The dashboard in this process.

    The storage's URL comes in the environment, for it may hold a password.
    """
    from wsgiref.simple_server import make_server

    import optuna_dashboard

    from dlsearch.tracking.mlflow.loopback import Loopback

    dashboard = optuna_dashboard.wsgi(os.environ.pop(_STORAGE))
    with make_server(HOST, port, Loopback(dashboard, port)) as server:
        server.serve_forever()


if __name__ == "__main__":
    _run_optuna_dashboard(int(sys.argv[2]))
