"""``sync``: shipping what MLflow does not have yet."""

from __future__ import annotations

from dlsearch.cli.arguments import parser, place, print_json, print_lines, split
from dlsearch.cli.shipping import is_uri_typed
from dlsearch.core.errors import ConfigError


def sync(words: list[str]) -> int:
    """Ship what MLflow does not have yet."""
    overrides, rest = split(words)
    arguments = parser(
        "sync",
        "Ship what the journals of this store hold and MLflow does not have yet, "
        "each to where its study ships. "
        "Ends with 1 while anything is pending. tracking.uri=… ships it there instead.",
    )
    arguments.add_argument(
        "name", nargs="?", help="a study, or a run's folder; all of this store by default"
    )
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    from dlsearch.tracking.mlflow.syncing import sync_store

    where = place(overrides)
    if not where.store.is_dir():
        raise ConfigError("paths.store", f"{where.store} does not exist")
    found = sync_store(
        where.store,
        where.tracking_uri,
        only=options.name,
        typed=is_uri_typed(overrides),
    )
    if options.json:
        print_json(found.to_json())
    else:
        print_lines(*found.lines())
    return 0 if found.pending == 0 else 1
