"""A wire to a server of this machine that can be cut: what a network, or the server's absence, does to its clients."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time


class Wire:
    """Forwards connections, byte by byte, as far as `mode` lets it.

    Modes: ``pass``; ``refuse`` (a new connection ends at once); ``slow`` (what the server says
    comes `delay` seconds late).

    Args:
        upstream: A port of this machine, or the path of a Unix socket.
    """

    def __init__(self, upstream: int | str) -> None:
        self.upstream, self.mode, self.delay = upstream, "pass", 2.0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="wire", daemon=True).start()

    def cut(self) -> int:
        """End every connection as a dead network device does; how many there were."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            _reset(end)
        return len(ends) // 2

    def close(self) -> None:
        self.mode = "refuse"
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            server = None if self.mode == "refuse" else self._connect()
            if server is None:
                _reset(caller)
                caller.close()
                continue
            with self._lock:
                self._open |= {caller, server}
            for source, sink, answers in ((caller, server, False), (server, caller, True)):
                threading.Thread(
                    target=self._pump, args=(source, sink, answers), daemon=True
                ).start()

    def _connect(self) -> socket.socket | None:
        try:
            if isinstance(self.upstream, int):
                return socket.create_connection(("127.0.0.1", self.upstream), timeout=None)
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(self.upstream)
        except OSError:
            return None
        return server

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while block := source.recv(1 << 16):
                if answers and self.mode == "slow":
                    time.sleep(self.delay)
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _reset(sink)
        with self._lock:
            self._open.discard(source)
            last = sink not in self._open
        if last:  # the other direction has ended too
            source.close()
            sink.close()


def _reset(end: socket.socket) -> None:
    """Have the other side see a reset, and our own threads an end."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
