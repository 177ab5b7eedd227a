"""Pages about a model: beside it, in the run that trained it, and shipped with that run."""

from __future__ import annotations

import shutil
from pathlib import Path

from dlsearch.cli.arguments import place, print_lines
from dlsearch.cli.shipping import SHIPS_REST
from dlsearch.core.files.inside import inside, is_inside


def page_folder(given: Path | None, default: Path) -> Path:
    """Where a page is written: where ``--out`` says, else `default`."""
    return given.expanduser() if given is not None else default


def attach_page(overrides: list[str], journal: Path, page: Path) -> None:
    """Put a page into the run that trained the model, and have it shipped.

    Args:
        overrides: Say whether, and where, runs are tracked.
        journal: Of the run.
        page: The page's folder.
    """
    from dlsearch.execution.run_journals import attach

    attach(journal, _copy_beside(journal, page))
    _ship(overrides, journal)


def _copy_beside(journal: Path, page: Path) -> Path:
    """A page's folder, or a copy beside the journal: what a journal names lies in its store."""
    folder = journal.parent
    if is_inside(folder, page.absolute()):
        return page
    name = page.absolute().name
    copy = inside(folder, name)
    if copy.exists() and not _is_page(copy):
        copy = inside(folder, f"{name}-page")
    if copy.exists():
        shutil.rmtree(copy)
    shutil.copytree(page, copy)
    return copy


def _is_page(folder: Path) -> bool:
    """Whether a page about a model is there, which a new one may replace."""
    return (folder / "look.json").is_file() or (folder / "lr_range.json").is_file()


def _ship(overrides: list[str], journal: Path) -> None:
    from dlsearch.config.compose import compose_config

    if not compose_config(overrides).tracking.enabled:
        return
    from dlsearch.tracking.destination import UnknownDestinationError, folder_of, where_to_ship
    from dlsearch.tracking.mlflow import shipper

    where = place(overrides)
    try:
        path = journal.resolve()
        folder = folder_of(where.store, path) if path.is_relative_to(where.store) else path.parent
        uri = where_to_ship(where.store, folder, where.tracking_uri, typed=False)
        shipped = shipper.start(where.store, uri).stop(60.0)
    except UnknownDestinationError:
        shipped = False
    if not shipped:
        print_lines(SHIPS_REST)
