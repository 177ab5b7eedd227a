"""``worker``: this machine joins a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.cli.arguments import parser, place, print_lines, split, values_given
from dlsearch.cli.shipping import SHIPS_REST, is_uri_typed
from dlsearch.config.compose import compose_config, seconds
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dlsearch.cli.arguments import Place
    from dlsearch.tracking.handle import Shipper

SHIPPING_SECONDS = 60.0
#: Overrides that name the study.
_NAMING = ("study=", "worker.join=")


def worker(words: list[str]) -> int:
    """Join a study that this machine's storage reaches; stays until nothing is left of it."""
    overrides, rest = split(words)
    arguments = parser(
        "worker",
        "Join a study: "
        "dlsearch worker study=NAME [worker.slots=2] [study.storage=URL] [worker.wait=10m]. "
        "Ends with 0 when nothing is left to do, with 130 when it was told to stop.",
    )
    arguments.parse_args(rest)
    name = _name_of_study(overrides)
    others = [override for override in overrides if not override.startswith(_NAMING)]
    cfg = compose_config([*others, f"worker.join='{name}'"])
    where = place(others)
    from dlsearch.app.serve import serve

    _await_storage(cfg, where, name)
    shipper = _start_shipper(cfg, where, name, typed=is_uri_typed(overrides))
    try:
        # a database that is away for too long ends it by its error
        code = serve(cfg, foreground=True)
    finally:
        shipped = shipper.stop(SHIPPING_SECONDS) if shipper is not None else True
    if not shipped:
        print_lines(SHIPS_REST)
    if code:
        print_lines("interrupted: its trials wait for another worker")
    else:
        print_lines(f"study {name}: nothing is left to do")
    return code


def _name_of_study(overrides: list[str]) -> str:
    names = values_given(overrides, *_NAMING)
    if not names:
        raise ConfigError("study", "expected the study to join", "dlsearch worker study=nightly")
    from dlsearch.core.names import check_name

    return check_name(names[-1])


def _await_storage(cfg: DictConfig, where: Place, name: str) -> None:
    """Wait for the study where ``worker.wait`` says so; else its storage must exist."""
    from dlsearch.execution.processes.signals import interrupt_on_stop
    from dlsearch.storage.location import exists, storage_of

    patience_s = seconds(cfg.worker.wait, "worker.wait")
    interrupt_on_stop()  # until it serves, when signals have its trials given back
    storage_of(where.store, cfg.study)
    if patience_s is not None:
        from dlsearch.app.joining import await_study

        await_study(where.storage_url, name, patience_s)
    elif not exists(where.storage_url):
        raise ConfigError(
            "study",
            f"there is no study {name!r}: the storage does not exist",
            "study.storage=URL",
        )


def _start_shipper(
    cfg: DictConfig,
    where: Place,
    name: str,
    *,
    typed: bool,
) -> Shipper | None:
    """A shipper of this store's journals; None where nothing is tracked, or nowhere."""
    if not cfg.tracking.enabled:
        return None
    from dlsearch.tracking import destination, layout
    from dlsearch.tracking.mlflow import shipper

    folder = where.store / layout.study_folder(name)
    try:
        uri = destination.where_to_ship(where.store, folder, where.tracking_uri, typed=typed)
        return shipper.start(where.store, uri)
    except destination.UnknownDestinationError as error:
        print_lines(
            f"tracking: study {name} {error}; dlsearch sync {name} tracking.uri=… ships it later"
        )
        return None
