"""``ui``: MLflow and the Optuna dashboard over a store."""

from __future__ import annotations

from dlsearch.cli.arguments import parser, place, split
from dlsearch.cli.shipping import is_uri_typed
from dlsearch.core.errors import ConfigError


def ui(words: list[str]) -> int:
    """Serve MLflow and the Optuna dashboard on this machine."""
    overrides, rest = split(words)
    arguments = parser("ui", "MLflow and the Optuna dashboard over this store, on 127.0.0.1.")
    arguments.add_argument("--mlflow-port", type=int, default=5000)
    arguments.add_argument("--optuna-port", type=int, default=8080)
    options = arguments.parse_args(rest)
    from dlsearch.storage.location import exists

    where = place(overrides)
    if not exists(where.storage_url):
        raise ConfigError(
            "paths.store",
            f"there are no studies in {where.store}",
            "dlsearch -m experiment=quickstart",
        )
    from dlsearch.tracking.mlflow import database
    from dlsearch.tracking.mlflow.artifacts import check_places
    from dlsearch.tracking.mlflow.ui import serve as serve_ui

    where.look().close()  # what is no database is said here, not by a server's log
    database.look(where.tracking_uri)
    if not is_uri_typed(overrides):  # else the database is the user's word
        check_places(where.store, where.tracking_uri)

    return serve_ui(
        where.store,
        where.storage_url,
        where.tracking_uri,
        mlflow_port=options.mlflow_port,
        optuna_port=options.optuna_port,
    )
