"""A proxy of ours before a real tracking server: it refuses, delays, answers for it, and loses its answers."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HEX = re.compile(r"[0-9a-f]{32}|\d+")


class Proxy:
    """Forwards to a server on this machine, as far as `mode` lets it.

    Modes: ``pass``; ``cut`` (the connection ends before anything was forwarded); ``500`` and
    ``404`` (the proxy's own page); ``lose`` (forwarded, and the answer is lost: the first time for
    each kind of request); ``late`` (forwarded `delay` seconds late, answered when the caller has
    given up); ``slow`` (`delay` seconds late, and answered).
    """

    def __init__(self, upstream: int) -> None:
        self.upstream, self.mode, self.delay = upstream, "pass", 0.0
        self.seen: Counter[str] = Counter()  # kinds of request that were forwarded
        self.lost: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:  # the caller hung up
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def handle(self, caller: BaseHTTPRequestHandler) -> None:
        mode, kind = self.mode, f"{caller.command} {_HEX.sub('…', caller.path.partition('?')[0])}"
        body = caller.rfile.read(int(caller.headers.get("Content-Length") or 0))
        if mode == "cut":
            caller.close_connection = True
            return
        if mode in ("500", "404"):
            _answer(caller, int(mode), b"<html>no server here</html>", "text/html")
            return
        if mode in ("late", "slow"):
            time.sleep(self.delay)
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        headers = {
            k: v for k, v in caller.headers.items() if k.lower() not in ("host", "connection")
        }
        try:
            connection.request(caller.command, caller.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            _answer(caller, 502, b"bad gateway", "text/plain")
            return
        finally:
            connection.close()
        self.seen[kind] += 1
        if mode == "lose" and not self.lost[kind]:
            self.lost[kind] += 1
            caller.close_connection = True
            return
        _answer(
            caller, answer.status, content, answer.getheader("Content-Type") or "application/json"
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answer(caller: BaseHTTPRequestHandler, status: int, content: bytes, kind: str) -> None:
    caller.send_response(status)
    caller.send_header("Content-Type", kind)
    caller.send_header("Content-Length", str(len(content)))
    caller.end_headers()
    caller.wfile.write(content)
