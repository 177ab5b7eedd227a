"""Where a study's storage is, and whether it can be ours; known without SQLAlchemy, before anything slow begins."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from dlsearch.config.errors import ConfigError

OURS = {"studies", "dlsearch_version"}


def mask(url: str) -> str:
    """The URL without its user and password."""
    return re.sub(r"//[^/@]*@", "//", url)


def storage_url(store: Path, url: str | None) -> str:
    """The configured URL, or SQLite in the store.

    Raises:
        ConfigError: It is no URL of a database that can hold a study.
    """
    if url is None:
        return f"sqlite:///{store.resolve() / 'dlsearch.db'}"
    if not url.startswith(("sqlite:///", "postgresql://", "postgresql+")):
        hint = "sqlite:///… or postgresql+psycopg://…"
        raise ConfigError("study.storage", f"expected a database URL, got {mask(url)!r}", hint)
    return url


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for a server's."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def exists(url: str) -> bool:
    """Whether opening would create nothing."""
    path = sqlite_path(url)
    return path is None or path.is_file()


def refuse_foreign(url: str, tables: set[str]) -> None:
    """Refuse a database by its tables.

    Raises:
        ConfigError: It is another program's.
    """
    if {"experiments", "runs"} <= tables:
        raise ConfigError("study.storage", f"{mask(url)} is MLflow's database", "give the search its own")
    if tables and not tables & OURS:
        raise ConfigError("study.storage", f"{mask(url)} holds another program's tables", "name a new file")


def check_storage(url: str) -> None:
    """Refuse an existing file that is not ours. Reads only.

    Raises:
        ConfigError: It is no database, or another program's.
    """
    path = sqlite_path(url)
    if path is None or not path.is_file():
        return
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ConfigError("study.storage", f"cannot open {mask(url)}: {error}") from error
    refuse_foreign(url, tables)
