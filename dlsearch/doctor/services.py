"""The databases and the tracking server: whether they answer, and which versions they have."""

from __future__ import annotations

import re
import sqlite3
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from dlsearch.doctor.problems import Problems, first_line

_PROBE_S = 3.0


def _mask(url: str) -> str:
    return re.sub(
        r"(?<=password=)[^&]*", "***", re.sub(r"(?<=://)([^/:@]*):[^/@]*(?=@)", r"\1:***", url)
    )


def database(name: str, url: str, problems: Problems) -> dict[str, Any]:
    """State and version of the database at `url`; asks it, and creates nothing."""
    kind = urlsplit(url).scheme.partition("+")[0]
    record: dict[str, Any] = {
        "url": _mask(url),
        "kind": kind,
        "state": "unknown",
        "version": None,
        "schema": {},
    }
    try:
        if kind == "sqlite":
            record |= _sqlite(Path(url.partition(":///")[2]))
        elif kind in {"postgresql", "postgres"}:
            record |= _postgresql(url)
        else:
            problems.say(f"{name} is {kind or url!r}", "sqlite:///… or postgresql+psycopg://…")
    except ModuleNotFoundError:
        problems.say(
            f"{name} is PostgreSQL, and its driver is missing", "pip install 'dlsearch[postgres]'"
        )
    except Exception as error:  # each driver has its own; whatever it says is the finding
        record["state"] = "unreachable"
        problems.say(
            f"{name} at {record['url']} does not answer: {first_line(error)}",
            "is the server up, is the file whole?",
        )
    return record


def _sqlite(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"state": "absent", "version": sqlite3.sqlite_version}
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_PROBE_S)
    try:
        tables = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]
        schema = {
            table: ", ".join(
                str(row[0]) for row in connection.execute(f'SELECT version_num FROM "{table}"')
            )
            for table in tables
            if "alembic_version" in table
        }
        journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    finally:
        connection.close()
    return {
        "state": "ok",
        "version": sqlite3.sqlite_version,
        "journal": journal,
        "schema": schema,
    }


def _postgresql(url: str) -> dict[str, Any]:
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
            rows = connection.execute(
                sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(table))
            )
            schema[table] = ", ".join(str(row[0]) for row in rows)
        version = connection.execute("SHOW server_version").fetchone()
    return {"state": "ok", "version": version[0] if version else None, "schema": schema}


def tracking_server(uri: str, problems: Problems) -> dict[str, Any]:
    """State and version of what `uri` names: an MLflow server, or a database."""
    if not uri.startswith(("http://", "https://")):
        return database("MLflow's database", uri, problems)
    record: dict[str, Any] = {
        "url": _mask(uri),
        "kind": "server",
        "state": "ok",
        "version": None,
        "schema": {},
    }
    parts = urlsplit(uri)
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
    request = urllib.request.Request(f"{plain}/version")
    if parts.username is not None:
        import base64

        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(account.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=_PROBE_S) as answer:
            record["version"] = answer.read(100).decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        record["state"] = "unreachable"
        hint = (
            "start it (dlsearch ui), or go on: "
            "trials do not need it, and dlsearch sync sends what is left"
        )
        problems.say(
            f"the MLflow server {record['url']} does not answer: {first_line(error)}", hint
        )
    return record
