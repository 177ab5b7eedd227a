"""``gc``: removing checkpoints that a study does not keep."""

from __future__ import annotations

from typing import Any

from dlsearch.config.errors import ConfigError
from dlsearch.verbs.words import parser, place, print_json, print_lines, split


def gc(words: list[str]) -> int:
    """Remove the checkpoints that are not kept."""
    overrides, rest = split(words)
    arguments = parser("gc", "Remove checkpoints that are not kept (study.keep); never the winner's, or one in use.")
    arguments.add_argument("name", nargs="?", help="a study; all of this storage by default")
    arguments.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    arguments.add_argument("--top-k", type=int, help="in place of study.keep.top_k")
    arguments.add_argument("--max-gib", type=float, help="in place of study.keep.max_gib")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    if options.top_k is not None and options.top_k < 1:
        raise ConfigError(
            "--top-k", f"expected at least 1, got {options.top_k}", "the winner's checkpoint always stays"
        )
    if options.max_gib is not None and not options.max_gib >= 0:
        raise ConfigError("--max-gib", f"expected 0 or more, got {options.max_gib}")
    from dlsearch.search import place as places
    from dlsearch.search import retention
    from dlsearch.search.study import Study
    from dlsearch.search.study_rows import names

    where = place(overrides)
    known = []
    if places.exists(where.storage_url):
        storage = where.open()
        known = names(storage)
    if options.name is not None and options.name not in known:
        some = ", ".join(known[:8]) or "none yet"
        raise ConfigError("study.name", f"there is no study {options.name!r} in this storage", f"there is: {some}")
    given = {k: v for k, v in (("top_k", options.top_k), ("max_gib", options.max_gib)) if v is not None}
    found: list[dict[str, Any]] = []
    freed = 0
    for name in [options.name] if options.name is not None else known:
        going = retention.plan(Study(storage, name), where.store, given)
        found += [
            {"study": name, "path": str(each.path.relative_to(where.store)), "bytes": each.size, "why": each.why}
            for each in going
        ]
        freed += sum(each.size for each in going) if options.dry_run else retention.remove(going)
    if options.json:
        print_json({"removed": not options.dry_run, "files": found, "bytes": freed})
        return 0
    verb = "would remove" if options.dry_run else "removed"
    print_lines(*(f"{verb} {each['path']} ({_size(each['bytes'])}): {each['why']}" for each in found))
    print_lines(f"{verb} {len(found)} file{'s' if len(found) != 1 else ''}, {_size(freed)}")
    return 0


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
