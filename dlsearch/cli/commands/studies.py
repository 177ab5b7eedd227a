"""``studies``: the studies of a store."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Any

from dlsearch.cli.arguments import parser, place, print_json, print_lines, split
from dlsearch.cli.columns import print_table


def studies(words: list[str]) -> int:
    """List the studies of a storage."""
    overrides, rest = split(words)
    arguments = parser("studies", "List the studies of this store.")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    from dlsearch.records.record import read_status
    from dlsearch.storage.location import exists
    from dlsearch.storage.reading import NoStudiesError
    from dlsearch.storage.studies import names
    from dlsearch.study.study import Study

    where = place(overrides)
    found: list[dict[str, Any]] = []
    if exists(where.storage_url):
        with suppress(NoStudiesError), closing(where.look()) as storage:
            found = storage.surely(
                lambda: [read_status(Study(storage, name), where.store) for name in names(storage)]
            )
    if options.json:
        keys = (
            "name",
            "state",
            "direction",
            "objective",
            "n_trials",
            "counts",
            "best",
            "started",
            "seconds",
        )
        print_json([{key: status[key] for key in keys} for status in found])
        return 0
    if not found:
        print_lines(f"no studies in {where.store}; start one: dlsearch -m experiment=quickstart")
        return 0
    rows = []
    for status in found:
        done = sum(status["counts"][state] for state in ("complete", "pruned", "failed"))
        best = f"{status['best']['value']:.4f}" if status["best"] else ""
        started = str(status["started"])[:16].replace("T", " ")
        rows.append(
            [
                status["name"],
                status["state"],
                f"{done}/{status['n_trials']}",
                str(status["objective"]),
                best,
                started,
            ]
        )
    headings = ("study", "state", "trials", "objective", "best", "started")
    print_table(headings, rows, left=("study", "state", "objective", "started"))
    return 0
