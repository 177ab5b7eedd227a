"""``gc``: removing checkpoints that a study does not keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.cli.arguments import parser, place, print_json, print_lines, split
from dlsearch.core.errors import ConfigError
from dlsearch.core.json_model import JsonModel

if TYPE_CHECKING:
    from argparse import Namespace

    from dlsearch.cli.arguments import Place
    from dlsearch.storage.database import Storage

_SHOWN_NAMES = 8
_KIB = 1024


@dataclass(frozen=True)
class _RemovedFile(JsonModel):
    """A file that is removed, or would be.

    Args:
        study: Whose checkpoint it is.
        path: Relative to the store.
        bytes: What its removal gives back.
        why: In a few words.
    """

    study: str
    path: str
    bytes: int
    why: str


@dataclass(frozen=True)
class _Removed(JsonModel):
    """What a call has removed.

    Args:
        removed: Whether it is gone; a dry run removes nothing.
        files: Each file.
        bytes: What all of them give back.
    """

    removed: bool
    files: list[_RemovedFile]
    bytes: int


def gc(words: list[str]) -> int:
    """Remove the checkpoints that are not kept."""
    overrides, rest = split(words)
    arguments = parser(
        "gc",
        "Remove checkpoints that are not kept (study.keep); never the winner's, or one in use.",
    )
    arguments.add_argument("name", nargs="?", help="a study; all of this storage by default")
    arguments.add_argument(
        "--dry-run", action="store_true", help="say what would go, and remove nothing"
    )
    arguments.add_argument("--top-k", type=int, help="in place of study.keep.top_k")
    arguments.add_argument("--max-gib", type=float, help="in place of study.keep.max_gib")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    limits = _read_limits(options)
    found = _collect(place(overrides), options, limits)
    if options.json:
        print_json(found.to_json())
    else:
        print_lines(*_describe_removed(found))
    return 0


def _describe_removed(found: _Removed) -> list[str]:
    verb = "removed" if found.removed else "would remove"
    lines = [f"{verb} {each.path} ({_format_size(each.bytes)}): {each.why}" for each in found.files]
    count = len(found.files)
    files = "1 file" if count == 1 else f"{count} files"
    return [*lines, f"{verb} {files}, {_format_size(found.bytes)}"]


def _read_limits(options: Namespace) -> dict[str, float]:
    """What is given in place of ``study.keep``."""
    limits: dict[str, float] = {}
    if options.top_k is not None:
        if options.top_k < 1:
            raise ConfigError(
                "--top-k",
                f"expected at least 1, got {options.top_k}",
                "the winner's checkpoint always stays",
            )
        limits["top_k"] = options.top_k
    if options.max_gib is not None:
        if not options.max_gib >= 0:
            raise ConfigError("--max-gib", f"expected 0 or more, got {options.max_gib}")
        limits["max_gib"] = options.max_gib
    return limits


def _collect(
    where: Place,
    options: Namespace,
    limits: dict[str, float],
) -> _Removed:
    """Remove what is not kept, unless it is a dry run."""
    from dlsearch.storage import location
    from dlsearch.storage.studies import names

    if not location.exists(where.storage_url):
        _check_name(options.name, [])
        return _Removed(not options.dry_run, [], 0)
    storage = where.open(read_only=options.dry_run)
    known = names(storage)
    _check_name(options.name, known)
    chosen = [options.name] if options.name is not None else known
    try:
        return _remove_from(storage, chosen, where, limits, dry_run=options.dry_run)
    finally:
        storage.close()


def _check_name(name: str | None, known: list[str]) -> None:
    if name is not None and name not in known:
        some = ", ".join(known[:_SHOWN_NAMES]) or "none yet"
        raise ConfigError(
            "study.name", f"there is no study {name!r} in this storage", f"there is: {some}"
        )


def _remove_from(
    storage: Storage,
    names: list[str],
    where: Place,
    limits: dict[str, float],
    *,
    dry_run: bool,
) -> _Removed:
    from dlsearch.execution import checkpoint_retention
    from dlsearch.study.study import Study

    # all are looked at before anything is removed
    plans = {
        name: checkpoint_retention.plan(Study(storage, name), where.store, limits) for name in names
    }
    files: list[_RemovedFile] = []
    freed = 0
    for name, going in plans.items():
        for each in going:
            path = str(each.path.relative_to(where.store))
            files.append(_RemovedFile(name, path, each.size, each.why))
        if dry_run:
            freed += sum(each.size for each in going)
        else:
            freed += checkpoint_retention.remove(going)
    return _Removed(not dry_run, files, freed)


def _format_size(count: float) -> str:
    """``312 B``, ``1.4 MiB``, ``2.0 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} GiB"
