"""URLs of SQLite's files, as SQLAlchemy and Optuna read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from dlsearch.core.files.sqlite_url import escape_braces, sqlite_file, sqlite_url

PATHS = [
    "/a/plain.db", "/a b/x.db", "/percent%20/x.db", "/100%/x.db", "/what?/x.db", "/a#b/x.db",
    "/brace{x/x.db", "/{}/x.db", "/$HOME/'\"/ü,;&=@:/x.db", "/a+b/x.db", "relative/x.db",
]  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_all_read_the_file_that_was_meant(name: str) -> None:
    url = sqlite_url(Path(name))
    assert sqlite_file(url) == Path(name)
    assert make_url(url).database == name
    for_optuna = escape_braces(url)
    assert make_url(for_optuna.format(SCHEMA_VERSION=1)).database == name


def test_a_plain_path_stays_as_it_is() -> None:
    assert sqlite_url(Path("/a b/x.db")) == "sqlite:////a b/x.db"


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///", "postgresql://x/y"]
)
def test_what_is_no_file_has_none(url: str) -> None:
    assert sqlite_file(url) is None


def test_a_query_is_no_part_of_the_path() -> None:
    assert sqlite_file("sqlite:////x.db?mode=ro") == Path("/x.db")
