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

from dlsearch.tracking import database
from dlsearch.tracking.masking import mask_text

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1"
_START_S = 90.0
_STOP_S = 5.0
_STORAGE = "DLSEARCH_UI_STORAGE"


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
        optuna_port: Likewise.
        out: Where the addresses are written; standard output by default.
        stop: Ends it like Ctrl-C.

    Returns:
        The exit code: 0 after Ctrl-C, 1 when a server died.
    """
    stop, out = stop or threading.Event(), out or sys.stdout
    remote = tracking_uri.startswith(("http://", "https://"))
    restore = _stop_on_sigterm(stop)
    servers: list[_Server] = []
    try:
        if not remote:
            servers.append(_mlflow(store, tracking_uri, free_port(mlflow_port)))
        taken = {server.port for server in servers}
        servers.append(_optuna(store, storage_url, free_port(optuna_port, taken)))
        waiting = list(servers)
        deadline = time.monotonic() + _START_S
        while waiting and not stop.is_set():
            dead = _dead(servers)
            if dead is not None or time.monotonic() > deadline:
                server = dead or waiting[0]
                return _report(server, "ended" if dead else f"does not answer after {_START_S:.0f} s")
            waiting = [server for server in waiting if not server.answers()]
            stop.wait(0.2)
        if not stop.is_set():
            mlflow_url = mask_text(tracking_uri) if remote else servers[0].url
            out.write(f"MLflow            {mlflow_url}\nOptuna dashboard  {servers[-1].url}\nCtrl-C ends both\n")
            out.flush()
        while not stop.wait(0.5):
            dead = _dead(servers)
            if dead is not None:
                return _report(dead, "ended")
    except KeyboardInterrupt:
        pass
    finally:
        restore()
        for server in servers:
            server.end()
    return 0


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


def _mlflow(store: Path, uri: str, port: int) -> _Server:
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
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
        maker = [sys.executable, "-m", "dlsearch.tracking.database"]
        quiet = {**os.environ, **environment, "MLFLOW_LOGGING_LEVEL": "WARNING"}
        subprocess.run(maker, stdin=subprocess.DEVNULL, env=quiet, check=False)
    return _spawn("MLflow", command, environment, port, store / "ui-mlflow.log")


def _optuna(store: Path, storage_url: str, port: int) -> _Server:
    command = [sys.executable, "-m", "dlsearch.tracking.ui", "optuna", str(port)]
    return _spawn("Optuna dashboard", command, {_STORAGE: storage_url}, port, store / "ui-optuna.log")


def _spawn(name: str, command: list[str], environment: dict[str, str], port: int, log: Path) -> _Server:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is ours; both are ended in order
        )
    return _Server(name, port, process, log)


def _dead(servers: list[_Server]) -> _Server | None:
    return next((server for server in servers if server.process.poll() is not None), None)


def _report(server: _Server, what: str) -> int:
    lines = server.log.read_text(errors="replace").strip().splitlines() if server.log.is_file() else []
    reason = mask_text(lines[-1].strip())[:200] if lines else f"exit status {server.process.returncode}"
    sys.stderr.write(f"dlsearch: {server.name} {what}: {reason} ({server.log})\n")
    return 1


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
    """The dashboard in this process; the storage's URL comes in the environment, for it may hold a password."""
    import optuna_dashboard

    optuna_dashboard.run_server(os.environ.pop(_STORAGE), host=HOST, port=port)


if __name__ == "__main__":
    _run_optuna_dashboard(int(sys.argv[2]))
