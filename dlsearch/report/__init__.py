"""The study report: a pure function of the study record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dlsearch.report.facts.contents import Report

__all__ = ["build"]

_DOCUMENT = "report.json"


def build(record: Mapping[str, Any], out: Path, *, interactive: bool = False) -> Path:
    """Write the report of a study: pages, figures, ``report.json`` and ``SHA256SUMS``.

    The same record gives the same bytes. The report is written beside `out` and takes its place in
    the end, so that a former report is whole at any moment, and stays when this one fails.

    Args:
        record: The study record.
        out: The folder of the report; what a former report left there is replaced.
        interactive: Write ``interactive.html`` as well, whose figures plotly draws in the reader's
            browser.

    Returns:
        The path of ``index.html``.

    Raises:
        RecordError: The record lacks what a report cannot be written without.
        FileExistsError: `out` holds something that is no report.
        ConfigError: plotly is wanted and not installed.
    """
    from dlsearch.report.output import holds_something_else, with_checksums, write_folder

    if holds_something_else(out, _DOCUMENT):
        raise FileExistsError(
            f"{out}: holds something that is no report (hint: name another folder)"
        )
    files = _render_files(record, interactive=interactive)
    write_folder(with_checksums(files), out)
    return out / "index.html"


def _render_files(record: Mapping[str, Any], *, interactive: bool) -> dict[str, str]:
    """All files of the report but their check sums: text by path below its folder."""
    from dlsearch.report.facts.facts import facts
    from dlsearch.report.figures import draw_figures
    from dlsearch.report.figures.canvas import figure_settings
    from dlsearch.report.load import view
    from dlsearch.report.output import json_by_lines
    from dlsearch.report.render import render_pages

    document = json_by_lines(facts(view(record)))
    files = {_DOCUMENT: document}
    # Pages and figures read the file's own content: what is not in report.json cannot be on a page.
    report = cast("Report", json.loads(document))
    if interactive:  # first: where plotly is missing, the figures need not be drawn to learn it
        from dlsearch.report.interactive import render_interactive_page

        files["interactive.html"] = render_interactive_page(report)
    with figure_settings():
        files |= render_pages(report, draw_figures(report))
    return files
