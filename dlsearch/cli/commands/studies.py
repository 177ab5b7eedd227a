"""``studies``: the studies of a store."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

from dlsearch.cli.arguments import parser, place, print_json, print_lines, split
from dlsearch.cli.columns import print_table

if TYPE_CHECKING:
    from dlsearch.cli.arguments import Place
    from dlsearch.records.status import Status

_LISTED_KEYS = (
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


def studies(words: list[str]) -> int:
    """List the studies of a storage."""
    overrides, rest = split(words)
    arguments = parser("studies", "List the studies of this store.")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    where = place(overrides)
    found = _read_statuses(where)
    if options.json:
        documents = [status.to_json() for status in found]
        print_json([{key: each[key] for key in _LISTED_KEYS} for each in documents])
        return 0
    if not found:
        print_lines(f"no studies in {where.store}; start one: dlsearch -m experiment=quickstart")
        return 0
    rows = [_cells_of(status) for status in found]
    headings = ("study", "state", "trials", "objective", "best", "started")
    print_table(headings, rows, left=("study", "state", "objective", "started"))
    return 0


def _read_statuses(where: Place) -> list[Status]:
    """How each study goes; none where the storage does not exist or holds no study."""
    from dlsearch.records.status import read_status
    from dlsearch.storage.location import exists
    from dlsearch.storage.reading import NoStudiesError
    from dlsearch.storage.studies import names
    from dlsearch.study.study import Study

    if not exists(where.storage_url):
        return []
    with suppress(NoStudiesError), closing(where.look()) as storage:
        return storage.surely(
            lambda: [read_status(Study(storage, name), where.store) for name in names(storage)]
        )
    return []


def _cells_of(status: Status) -> list[str]:
    started = str(status.started)
    return [
        status.name,
        status.state,
        f"{status.count_ended()}/{status.n_trials}",
        str(status.objective),
        "" if status.best is None else f"{status.best.value:.4f}",
        started[:16].replace("T", " "),
    ]
