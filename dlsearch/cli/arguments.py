"""Taking a verb's words apart: names, options, overrides."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dlsearch.config.compose import compose_config, resolve
from dlsearch.console.terminal import say
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import check_root
from dlsearch.core.files.sqlite_url import sqlite_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.storage.database import Storage


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and exit code 2, like all bad input."""
        verb = self.prog.split()[-1]
        raise ConfigError(verb, message, f"{self.prog} --help")


@dataclass
class Place:
    """Where studies are: the store, their storage and tracking server.

    Args:
        store: Absolute.
        data: The data root.
        weights: Where what studies transfer is kept.
        storage_url: Of the studies.
        tracking_uri: Of MLflow.
        patience_s: How long the storage is waited for, seconds.
        on_network_fs: Whether it may lie where machines share a file system.
    """

    store: Path
    data: Path
    weights: Path
    storage_url: str
    tracking_uri: str
    patience_s: float
    on_network_fs: bool

    def look(self) -> Storage:
        """The storage of the studies, to read: nothing is written, made or migrated.

        Raises:
            ConfigError: It is none, or an earlier version's on a server, or SQLite on a network.
            DatabaseAwayError: It did not answer.
        """
        return self.open(read_only=True)

    def open(self, *, read_only: bool = False) -> Storage:
        """The storage of the studies.

        Raises:
            ConfigError: It is none, or SQLite on a network.
            DatabaseAwayError: It did not answer.
        """
        from dlsearch.storage.database import Storage
        from dlsearch.storage.location import refuse_network

        if not self.on_network_fs:
            refuse_network(self.storage_url)
        return Storage(self.storage_url, patience_s=self.patience_s, read_only=read_only)


def parser(verb: str, description: str) -> argparse.ArgumentParser:
    """A parser whose complaints are one line."""
    return _Parser(prog=f"dlsearch {verb}", description=description, allow_abbrev=False)


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Overrides (``key=value``, ``~key``) and the other words."""
    overrides = []
    others = []
    for word in words:
        is_setting = "=" in word and not word.startswith("-")
        if is_setting or word.startswith("~"):
            overrides.append(word)
        else:
            others.append(word)
    return overrides, others


def values_given(overrides: Sequence[str], *beginnings: str) -> list[str]:
    """The values of the overrides that begin so, ``key=``; the last one counts."""
    given = []
    for word in overrides:
        if word.startswith(beginnings):
            _, _, value = word.partition("=")
            given.append(value)
    return given


def add_config_dirs(arguments: argparse.ArgumentParser) -> None:
    """Add the option that names folders of a user's own YAMLs: ``config_dir``, a list."""
    arguments.add_argument(
        "--config-dir",
        "-cd",
        action="append",
        default=[],
        help="a folder of your own YAMLs",
    )


def place(overrides: list[str], config_dirs: list[str] | None = None) -> Place:
    """Compose as much of the config as says where things are."""
    from dlsearch.storage.location import patience, storage_url

    cfg = compose_config(overrides, config_dirs=config_dirs or [])
    store = Path(resolve(cfg, "paths.store")).expanduser().resolve()
    check_root(store)
    uri = cfg.tracking.uri or sqlite_url(store / "mlflow.db")
    weights = Path(resolve(cfg, "paths.weights")).expanduser()
    return Place(
        store=store,
        data=Path(resolve(cfg, "paths.data")).expanduser(),
        weights=weights.resolve(),
        storage_url=storage_url(store, cfg.study.storage),
        tracking_uri=uri,
        patience_s=patience(cfg.study),
        on_network_fs=bool(cfg.study.storage_on_network_fs),
    )


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    text = json.dumps(document, indent=2, default=str)
    say(*text.split("\n"))


def print_lines(*lines: str) -> None:
    """Lines on standard output, each as :func:`~dlsearch.console.terminal.shown` shows it."""
    say(*lines)
