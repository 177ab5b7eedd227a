"""A comparison as a page with figures: ``index.html``, ``compare.json``, check sums."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from dlsearch.core.errors import ConfigError
from dlsearch.report.compare.figures import draw_budget, draw_confirmed
from dlsearch.report.compare.text import HEADINGS, format_cell, overview_rows, pair_row
from dlsearch.report.figures.canvas import figure_settings
from dlsearch.report.formats import plural, score, short
from dlsearch.report.markup import csp_digest, draw_page, template_environment
from dlsearch.report.output import (
    holds_something_else,
    indented_json,
    with_checksums,
    write_folder,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.report.compare.models import Comparison
    from dlsearch.report.markup import DrawnPage

DOCUMENT = "compare.json"


def write(comparison: Comparison, out: Path) -> Path:
    """Write the page; the same comparison gives the same bytes.

    Args:
        comparison: What :func:`dlsearch.report.compare.compare.compare` found.
        out: The folder; a former comparison there is replaced.

    Returns:
        The path of ``index.html``.

    Raises:
        ConfigError: `out` holds something else.
    """
    if holds_something_else(out, DOCUMENT):
        raise ConfigError(
            "--out", f"{out} holds something that is no comparison", "name another folder"
        )
    document = indented_json(comparison)
    # The page reads the file's own content: what is not in compare.json cannot be on it.
    read = cast("Comparison", json.loads(document))
    with figure_settings():
        plates = (draw_confirmed(read), draw_budget(read))
        drawn = draw_page(plate for plate in plates if plate is not None)
    files = {
        DOCUMENT: document,
        **drawn.files,
        "index.html": _render_html(read, drawn),
    }
    write_folder(with_checksums(files), out)
    return out / "index.html"


def _render_html(comparison: Comparison, drawn: DrawnPage) -> str:
    templates = template_environment()
    templates.filters |= {
        "short": short,
        "score": score,
        "cell": format_cell,
        "plural": plural,
    }
    style_sheet = drawn.style_sheet()
    percent = comparison["objective"]["percent"]
    data_rows = [{"key": what, "values": values} for what, values in comparison["data"]["rows"]]
    return templates.get_template("compare.html.j2").render(
        f=comparison,
        names=[study["name"] for study in comparison["studies"]],
        overview_rows=[[row.what, *row.texts] for row in overview_rows(comparison)],
        data_rows=data_rows,
        headings=HEADINGS,
        pairs=[pair_row(pair, percent) for pair in comparison["pairs"]],
        drawn=drawn.figures,
        css=style_sheet,
        style_digest=csp_digest(style_sheet),
    )
