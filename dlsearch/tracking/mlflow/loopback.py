"""A web page for this machine alone.

Who asks under another host's name, or from another's page, gets no answer.

Listening on 127.0.0.1 keeps other machines out, and no web page: a browser on this machine sends
what any page tells it to. A page can have its own host name lead to 127.0.0.1 (DNS rebinding), or
post a form here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: What a browser may ask for without changing anything.
_READS = ("GET", "HEAD", "OPTIONS")
#: Added to every answer: no page of another's shows this one in a frame, or takes its answers for a
#: script.
_HEADERS = [
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "same-origin"),
]


class Loopback:
    """A WSGI application, for browsers and programs of this machine.

    Args:
        app: What answers.
        port: That it is served on.
    """

    def __init__(self, app: WSGIApplication, port: int) -> None:
        """Nothing is asked yet."""
        self._app = app
        self._hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, or refuse with 403."""
        why = refusal(environ, self._hosts)
        if why is not None:
            body = f"{why}\n".encode()
            start_response(
                "403 Forbidden",
                [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))],
            )
            return [body]

        def start(
            status: str,
            headers: list[tuple[str, str]],
            *error: Any,
        ) -> Callable[[bytes], object]:
            return start_response(status, [*headers, *_HEADERS], *error)

        return self._app(environ, start)


def refusal(environ: Mapping[str, Any], hosts: Iterable[str]) -> str | None:
    """Why a request is not answered; None for one that is.

    Args:
        environ: Of WSGI.
        hosts: The names, with the port, under which this machine's own programs ask.
    """
    host = str(environ.get("HTTP_HOST", "")).lower()
    if host not in hosts:
        return "this page is for this machine alone: unknown Host"
    site = environ.get("HTTP_SEC_FETCH_SITE", "none")
    if environ.get("REQUEST_METHOD") in _READS:
        followed = environ.get("HTTP_SEC_FETCH_MODE") == "navigate"  # a link that somebody clicked
        return None if site in ("same-origin", "none") or followed else "asked by another page"
    if site not in ("same-origin", "none"):
        return "asked by another page"
    # programs send neither; a browser's form sends one of them
    for header in ("HTTP_ORIGIN", "HTTP_REFERER"):
        if header in environ and not _is_from(host, str(environ[header])):
            return "asked by another page"
    return None


def _is_from(host: str, address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme == "http" and parts.netloc.lower() == host
