"""Folders of pages on disk: their documents, their check sums, and their replacement."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKSUMS = "SHA256SUMS"
FOLDER_MODE = 0o755


def holds_something_else(out: Path, document: str) -> bool:
    """Whether `out` exists, is not empty, and is no folder with a file of this name."""
    if not out.exists() or (out / document).is_file():
        return False
    return not out.is_dir() or any(out.iterdir())


def indented_json(document: Mapping[str, Any]) -> str:
    """The document with sorted keys, a value on each line."""
    text = json.dumps(
        document,
        sort_keys=True,
        indent=1,
        ensure_ascii=False,
        allow_nan=False,
    )
    return f"{text}\n"


def json_by_lines(document: Mapping[str, Any]) -> str:
    """The document with sorted keys: a line for each key, and for each element of a list."""
    lines = [f"{_compact_json(key)}: {_value(value)}" for key, value in sorted(document.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _value(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _compact_json(value)
    elements = [_compact_json(element) for element in value]
    return "[\n" + ",\n".join(elements) + "\n]"


def _compact_json(value: Any) -> str:
    return json.dumps(
        value,
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )


def with_checksums(files: Mapping[str, str]) -> dict[str, str]:
    """The files and ``SHA256SUMS``, which holds a line for each."""
    lines = [
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
        for name, text in sorted(files.items())
    ]
    return {**files, CHECKSUMS: "".join(lines)}


def write_folder(files: Mapping[str, str], out: Path) -> None:
    """Write the files beside `out` and put them in its place.

    What was there is whole at any moment, and stays where the writing fails.

    Args:
        files: Text by path below the folder.
        out: The folder; what is there is replaced.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = _new_folder_beside(out, "")
    try:
        fresh.chmod(FOLDER_MODE)
        for name, text in files.items():
            path = fresh / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        _swap_folders(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _new_folder_beside(out: Path, suffix: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{out.name}.{suffix}", dir=out.parent))


def _swap_folders(fresh: Path, out: Path) -> None:
    """Put `fresh` in the place of `out`; where that fails, what was there comes back."""
    if not out.exists():
        fresh.rename(out)
        return
    beside = _new_folder_beside(out, "old.")
    former = beside / "former"
    try:
        out.rename(former)
        try:
            fresh.rename(out)
        except OSError:
            former.rename(out)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
