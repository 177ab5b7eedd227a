"""``worker``, ``ui`` and ``sync``: processes that serve."""

from __future__ import annotations

from dlsearch.config.compose import compose_config, seconds
from dlsearch.config.errors import ConfigError
from dlsearch.verbs.words import parser, place, print_json, print_lines, split


def worker(words: list[str]) -> int:
    """Join a study that this machine's storage reaches; stays until nothing is left of it."""
    overrides, rest = split(words)
    arguments = parser(
        "worker",
        "Join a study: dlsearch worker study=NAME [worker.slots=2] [study.storage=URL] [worker.wait=10m]. "
        "Ends with 0 when nothing is left to do, with 130 when it was told to stop.",
    )
    arguments.parse_args(rest)
    names = [o.split("=", 1)[1] for o in overrides if o.startswith(("study=", "worker.join="))]
    if not names:
        raise ConfigError("study", "expected the study to join", "dlsearch worker study=nightly")
    rest_of = [o for o in overrides if not o.startswith(("study=", "worker.join="))]
    cfg = compose_config([*rest_of, f"worker.join='{names[-1]}'"])
    where, patience = place(rest_of), seconds(cfg.worker.wait, "worker.wait")
    from dlsearch.search.place import exists, storage_of
    from dlsearch.search.serve import serve

    storage_of(where.store, cfg.study)
    if patience is not None:
        from dlsearch.search.joining import await_study

        await_study(where.storage_url, names[-1], patience)
    elif not exists(where.storage_url):
        raise ConfigError("study", f"there is no study {names[-1]!r}: the storage does not exist", "study.storage=URL")
    from dlsearch.tracking import shipper

    ship = shipper.start(where.store, where.tracking_uri) if cfg.tracking.enabled else None
    try:
        code = serve(cfg, foreground=True)  # a database that is away for too long ends it by its error
    finally:
        if ship is not None:
            ship.stop(60.0)
    print_lines(
        "interrupted: its trials wait for another worker" if code else f"study {names[-1]}: nothing is left to do"
    )
    return code


def ui(words: list[str]) -> int:
    """Serve MLflow and the Optuna dashboard on this machine."""
    overrides, rest = split(words)
    arguments = parser("ui", "MLflow and the Optuna dashboard over this store, on 127.0.0.1.")
    arguments.add_argument("--mlflow-port", type=int, default=5000)
    arguments.add_argument("--optuna-port", type=int, default=8080)
    options = arguments.parse_args(rest)
    from dlsearch.search.place import exists

    where = place(overrides)
    if not exists(where.storage_url):
        raise ConfigError("paths.store", f"there are no studies in {where.store}", "dlsearch -m experiment=quickstart")
    from dlsearch.tracking.ui import serve as serve_ui

    return serve_ui(
        where.store,
        where.storage_url,
        where.tracking_uri,
        mlflow_port=options.mlflow_port,
        optuna_port=options.optuna_port,
    )


def sync(words: list[str]) -> int:
    """Ship what MLflow does not have yet."""
    overrides, rest = split(words)
    arguments = parser("sync", "Ship what the journals of this store hold and MLflow does not have yet.")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    from dlsearch.tracking.shipper import sync as ship

    where = place(overrides)
    if not where.store.is_dir():
        raise ConfigError("paths.store", f"{where.store} does not exist")
    counts = ship(where.store, where.tracking_uri)
    if options.json:
        print_json(counts)
    else:
        from dlsearch.search.watch import counted

        sent = [counted(counts[name], noun) for name, noun in (("runs", "run"), ("rows", "row"))]
        print_lines(f"shipped {', '.join(sent)}, {counts['pending']} pending")
    return 0
