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

if TYPE_CHECKING:
    from dlsearch.storage.database import Storage


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and exit code 2, like all bad input."""
        raise ConfigError(self.prog.split()[-1], message, f"{self.prog} --help")


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
    given = [w for w in words if w.startswith("~") or ("=" in w and not w.startswith("-"))]
    return given, [w for w in words if w not in given]


def place(overrides: list[str], config_dirs: list[str] | None = None) -> Place:
    """Compose as much of the config as says where things are."""
    from dlsearch.storage.location import patience, storage_url

    cfg = compose_config(overrides, config_dirs=config_dirs or [])
    store = Path(resolve(cfg, "paths.store")).expanduser().resolve()
    check_root(store)
    uri = cfg.tracking.uri or f"sqlite:///{store / 'mlflow.db'}"
    data, weights = (Path(resolve(cfg, f"paths.{key}")).expanduser() for key in ("data", "weights"))
    url = storage_url(store, cfg.study.storage)
    shared = bool(cfg.study.storage_on_network_fs)
    return Place(store, data, weights.resolve(), url, uri, patience(cfg.study), shared)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    say(*json.dumps(document, indent=2, default=str).split("\n"))


def print_lines(*lines: str) -> None:
    """Lines on standard output, each as :func:`~dlsearch.console.terminal.shown` shows it."""
    say(*lines)
