"""The report of a study, from its storage alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.core.files.inside import inside
from dlsearch.storage.availability import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path


def write_report(
    name: str,
    storage_url: str,
    store: Path,
    *,
    out: Path | None = None,
    interactive: bool = False,
    patience_s: float = PATIENCE_S,
    read_only: bool = False,
) -> Path:
    """Build the report of a study; returns its folder.

    A process that has the same storage open for writing does not open it a second time `read_only`:
    SQLite's connections of one process share the log's index.

    Args:
        name: The study.
        storage_url: Its storage.
        store: The store; the report is written below the study's folder there.
        out: Another folder for it.
        interactive: Whether ``interactive.html`` is written as well.
        patience_s: How long the storage is waited for.
        read_only: Whether the storage is opened to read alone.

    Raises:
        ConfigError: There is no such study, or plotly is wanted and not installed.
        DatabaseAwayError: The storage did not answer.
    """
    from dlsearch import report as reports
    from dlsearch.records.record import read_record
    from dlsearch.storage.database import Storage
    from dlsearch.study.study import Study
    from dlsearch.tracking import layout

    storage = Storage(storage_url, patience_s=patience_s, read_only=read_only)
    try:
        record = storage.surely(lambda: read_record(Study(storage, name)))
    finally:
        storage.close()
    folder = out or inside(store, f"{layout.study_folder(name)}/report")
    return reports.build(record.to_json(), folder, interactive=interactive).parent
