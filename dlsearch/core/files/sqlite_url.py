"""SQLite's URLs, as SQLAlchemy reads them: a path in which some characters are escaped."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

PREFIX = "sqlite:///"
#: What ends a URL's path, or begins an escape in it.
_ESCAPED = re.compile(r"[%?]")
#: Optuna takes the URLs of its storages for templates, which it fills in.
_BRACES = re.compile(r"[{}]")


def sqlite_url(path: Path) -> str:
    """The URL of a database file."""
    escaped = _ESCAPED.sub(_escape, str(path))
    return f"{PREFIX}{escaped}"


def escape_braces(url: str) -> str:
    """The URL as Optuna's own storage must be given it."""
    return _BRACES.sub(_escape, url)


def sqlite_file(url: str) -> Path | None:
    """The file that a URL names; None where it is a server's, or a database in memory."""
    if not url.startswith(PREFIX):
        return None
    name = url.removeprefix(PREFIX).partition("?")[0]
    if name in ("", ":memory:"):
        return None
    return Path(unquote(name))


def _escape(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"
