"""Studies, opened to be shown: nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.cli.arguments import place
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import inside, is_inside

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.cli.arguments import Place
    from dlsearch.records.models import StudyRecord
    from dlsearch.study.study import Study


def require_storage(where: Place, name: str) -> None:
    """Refuse to look for a study in a storage that does not exist.

    Args:
        where: Where studies are.
        name: The study.

    Raises:
        ConfigError: It does not exist.
    """
    from dlsearch.storage import location

    if not location.exists(where.storage_url):
        raise ConfigError(
            "study.name",
            f"there is no study {name!r}: {location.mask(where.storage_url)} does not exist",
        )


def look_at_study(where: Place, name: str) -> Study:
    """A study, to be shown as it is: a worker that serves it mends what the dead left behind.

    Raises:
        ConfigError: There is no such study.
        DatabaseAwayError: The storage did not answer.
    """
    from dlsearch.study.study import Study

    require_storage(where, name)
    storage = where.look()
    return storage.surely(lambda: Study(storage, name))


def read_record_of(overrides: list[str], name: str) -> tuple[StudyRecord, Path]:
    """The record of a study, and the store that it lies in.

    Raises:
        ConfigError: There is no such study.
        DatabaseAwayError: The storage did not answer.
    """
    from dlsearch.records.record import read_record
    from dlsearch.study.study import Study

    where = place(overrides)
    require_storage(where, name)
    storage = where.look()
    try:
        record = storage.surely(lambda: read_record(Study(storage, name)))
    finally:
        storage.close()
    return record, where.store


def run_id_of_trial(where: Place, name: str, number: int, attempt: int) -> str | None:
    """The run in MLflow of one attempt at a trial; None where this store does not have it."""
    from dlsearch.tracking import layout
    from dlsearch.tracking.journal import run_id

    journal = f"{layout.trial_folder(name, number)}/journal.a{attempt}.jsonl"
    return run_id(inside(where.store, journal)) if is_inside(where.store, journal) else None
