"""The sandbox that each input of the corpus gets: what it is made from, and the marker files that nobody may touch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests.security.foreign.audit import RAN

#: Marker files: outside of every store, with what stands in them.
MARKERS = {
    "outside/secret.txt": "s3cret-of-the-outside\n",
    "outside/victim.txt": "untouched\n",
    "outside/folder/keep.txt": "kept\n",
    "outside/folder/best.ckpt": "no checkpoint\n",
    "outside/weights.yaml": "secret: s3cret-of-the-outside\n",
    "home/.bashrc": "# untouched\n",
    "home/.ssh/authorized_keys": "# untouched\n",
    "work/private.txt": "s3cret-of-the-outside\n",
}
SECRET = "s3cret-of-the-outside"
WATCHED = ["outside", "outside/folder", "home", "home/.ssh", "work/private.txt"]
IGNORED = (".cache", ".config", ".gitconfig", ".netrc")
MODULE = f"{RAN}\nimport torch\n\nclass Net(torch.nn.Linear):\n    pass\n\ndef space(*words):\n    return {RAN}\n"


class Box:
    """A sandbox below `root`: ``work`` (where the command runs, with the store ``mlruns``), ``home``, ``outside``.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.store = self.work / "mlruns"
        self.study = self.store / "studies/good"
        self.outside = root / "outside"
        self.home = root / "home"
        self.foreign = self.work / "foreign"

    def renew(self, good: Path) -> None:
        """Make the sandbox anew from what is good."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(good, self.root, symlinks=True)
        self.furnish()

    def furnish(self) -> None:
        """Put the marker files there."""
        for name, text in MARKERS.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name in (
            "tmp",
            "data",
            "home/.config",
            "home/.cache",
            "work/foreign",
            "work/mlruns",
            "work/out",
        ):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    # -- making inputs ---------------------------------------------------------------------------------------------
    def write(self, name: str, text: str | bytes) -> Path:
        """A file below ``work``."""
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(text)
        return path

    def write_module(self) -> None:
        """Python modules beside the input, which say that they were imported."""
        self.write("foreign_module.py", MODULE)
        self.write("foreign_package/__init__.py", MODULE)
        self.write("foreign/foreign_module.py", MODULE)

    def config(self, group: str, text: str | dict[str, Any]) -> None:
        """The option ``evil`` of a config group in the folder ``conf`` that came with the input."""
        text = (
            text
            if isinstance(text, str)
            else yaml.safe_dump(text, allow_unicode=True, sort_keys=False)
        )
        head = (
            "# @package _global_\n"
            if group in ("experiment", "debug") and "@package" not in text
            else ""
        )
        self.write(f"conf/{group}/evil.yaml", head + text)

    def edit_yaml(self, path: Path, change: Callable[[Any], Any]) -> None:
        """Change a YAML in place."""
        node = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(change(node) or node, allow_unicode=True, sort_keys=False))

    def edit_json(self, path: Path, change: Callable[[Any], Any]) -> None:
        """Change a JSON file in place."""
        node = json.loads(path.read_text())
        path.write_text(json.dumps(change(node) or node))

    def sql(self, database: str, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
        """Statements on a database of the store."""
        with closing(sqlite3.connect(self.store / database)) as connection, connection:
            for each in statements:
                if isinstance(each, tuple):
                    connection.execute(*each)
                else:
                    connection.execute(each)

    def edit_document(self, change: Callable[[Any], Any], table: str = "dlsearch_study") -> None:
        """Change the JSON document of the study in the database."""
        with closing(sqlite3.connect(self.store / "dlsearch.db")) as connection, connection:
            rows = connection.execute(
                f"select rowid, document from {table} where document is not null"
            ).fetchall()
            for row, text in rows:
                node = json.loads(text)
                connection.execute(
                    f"update {table} set document = ? where rowid = ?",
                    (json.dumps(change(node) or node), row),
                )

    def rename_study(self, name: str, *, document: bool = True) -> None:
        """Give the study another name wherever the database holds it."""
        tables = [("dlsearch_study", "name"), ("studies", "study_name")]
        tables += [
            (f"dlsearch_{each}", "study") for each in ("attempt", "test_evaluation", "round")
        ]
        self.sql(
            "dlsearch.db",
            *((f"update {table} set {column} = ?", (name,)) for table, column in tables),
        )
        if document:
            self.edit_document(lambda node: {**node, "name": name})

    def link(self, path: Path, target: Path | str) -> None:
        """Replace `path` by a link to `target`."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def add_rows(self, journal: Path, *rows: dict[str, Any]) -> None:
        """Rows at the end of a journal, which has not been shipped beyond them."""
        with journal.open("a") as file:
            for row in rows:
                file.write(json.dumps({"t": 1_700_000_000_000, **row}) + "\n")

    def unship(self) -> None:
        """Forget what was shipped: the journals are new, as in a store that somebody sent."""
        for path in self.store.rglob("*.shipped"):
            path.unlink()

    # -- looking afterwards ----------------------------------------------------------------------------------------
    def state(self, writable: list[str]) -> dict[str, str]:
        """Every file outside of what may be written, with its digest."""
        found: dict[str, str] = {}
        skipped = [self.root / each for each in (*writable, "tmp", "home/.cache", "home/.config")]
        for folder, folders, files in os.walk(self.root):
            here = Path(folder)
            folders[:] = [
                each for each in folders if here / each not in skipped and each != "__pycache__"
            ]
            for name in (*folders, *files):
                path = here / name
                if path in skipped:
                    continue
                if path.is_symlink():
                    found[str(path.relative_to(self.root))] = f"-> {os.readlink(path)}"
                elif path.is_dir():
                    found[str(path.relative_to(self.root))] = "folder"
                elif path.is_file():
                    found[str(path.relative_to(self.root))] = hashlib.sha256(
                        path.read_bytes()
                    ).hexdigest()
                else:
                    found[str(path.relative_to(self.root))] = "special"
        return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[dict[str, str]]:
    """What differs between two states, as the audit hook tells it."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        what = "delete" if name not in after else "write"
        found.append({"what": what, "event": "compared", "detail": name, "at": ""})
    return found
