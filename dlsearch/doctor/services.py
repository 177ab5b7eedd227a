"""The databases and the tracking server: whether they answer, and which versions they have."""

from __future__ import annotations

import base64
import re
import sqlite3
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from dlsearch.core.files.sqlite_url import sqlite_file
from dlsearch.doctor.models import DatabaseRecord
from dlsearch.doctor.problems import Problems, first_line

_PROBE_S = 3.0
_LONGEST_VERSION = 100  # bytes


def _mask(url: str) -> str:
    """A URL without its passwords."""
    masked = re.sub(r"(?<=://)([^/:@]*):[^/@]*(?=@)", r"\1:***", url)
    return re.sub(r"(?<=password=)[^&]*", "***", masked)


def database(name: str, url: str, problems: Problems) -> DatabaseRecord:
    """State and version of the database at `url`; asks it, and creates nothing."""
    kind = urlsplit(url).scheme.partition("+")[0]
    unknown = DatabaseRecord(_mask(url), kind)
    try:
        if kind == "sqlite":
            return _ask_sqlite(unknown, sqlite_file(url) or Path())
        if kind in {"postgresql", "postgres"}:
            return _ask_postgresql(unknown, url)
    except ModuleNotFoundError:
        problems.say(
            f"{name} is PostgreSQL, and its driver is missing",
            "pip install 'dlsearch[postgres]'",
        )
        return unknown
    except Exception as error:  # each driver has its own; whatever it says is the finding
        problems.say(
            f"{name} at {unknown.url} does not answer: {first_line(error)}",
            "is the server up, is the file whole?",
        )
        return replace(unknown, state="unreachable")
    problems.say(f"{name} is {kind or url!r}", "sqlite:///… or postgresql+psycopg://…")
    return unknown


def _ask_sqlite(unknown: DatabaseRecord, path: Path) -> DatabaseRecord:
    if not path.is_file():
        return replace(unknown, state="absent", version=sqlite3.sqlite_version)
    address = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=_PROBE_S)
    try:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ).fetchall()
        schema = {}
        for (table,) in tables:
            if "alembic_version" in table:
                rows = connection.execute(f'SELECT version_num FROM "{table}"')
                schema[table] = ", ".join(str(row[0]) for row in rows)
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
    finally:
        connection.close()
    return replace(
        unknown,
        state="ok",
        version=sqlite3.sqlite_version,
        schema=schema,
        journal=journal,
    )


def _ask_postgresql(unknown: DatabaseRecord, url: str) -> DatabaseRecord:
    import psycopg  # an extra
    from psycopg import sql

    dsn = urlunsplit(urlsplit(url)._replace(scheme="postgresql"))
    with psycopg.connect(dsn, connect_timeout=int(_PROBE_S)) as connection:
        query = (
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_name LIKE '%alembic_version%' ORDER BY 1"
        )
        tables = [row[0] for row in connection.execute(query)]
        schema = {}
        for table in tables:
            select = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(table))
            rows = connection.execute(select)
            schema[table] = ", ".join(str(row[0]) for row in rows)
        version = connection.execute("SHOW server_version").fetchone()
    return replace(unknown, state="ok", version=version[0] if version else None, schema=schema)


def tracking_server(uri: str, problems: Problems) -> DatabaseRecord:
    """State and version of what `uri` names: an MLflow server, or a database."""
    if not uri.startswith(("http://", "https://")):
        return database("MLflow's database", uri, problems)
    server = DatabaseRecord(_mask(uri), "server", state="ok")
    try:
        return replace(server, version=_ask_version(urlsplit(uri)))
    except (OSError, ValueError) as error:
        problems.say(
            f"the MLflow server {server.url} does not answer: {first_line(error)}",
            "start it (dlsearch ui), or go on: "
            "trials do not need it, and dlsearch sync sends what is left",
        )
        return replace(server, state="unreachable")


def _ask_version(parts: SplitResult) -> str:
    """What an MLflow server says its version is.

    Raises:
        OSError: It does not answer.
        ValueError: The address is none.
    """
    host = parts.netloc.rpartition("@")[2]
    plain = urlunsplit(parts._replace(netloc=host)).rstrip("/")
    request = urllib.request.Request(f"{plain}/version")
    if parts.username is not None:
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        word = base64.b64encode(account.encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
    with urllib.request.urlopen(request, timeout=_PROBE_S) as answer:
        said: bytes = answer.read(_LONGEST_VERSION)
    return said.decode(errors="replace").strip()
