"""``doctor``: what this machine has, and what is wrong with it."""

from __future__ import annotations

from dlsearch.cli.arguments import parser, place, print_json, print_lines, split


def doctor(words: list[str]) -> int:
    """Say what this machine has and what is wrong with it."""
    overrides, rest = split(words)
    arguments = parser(
        "doctor",
        "What this machine has: devices, threads, storage, data, versions, and what is wrong.",
    )
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    from dlsearch.doctor import examine, render

    where = place(overrides)
    found = examine(where.store, where.data, where.storage_url, where.tracking_uri)
    if options.json:
        print_json(found.to_json())
    else:
        print_lines(*render(found))
    return 1 if found.problems else 0
