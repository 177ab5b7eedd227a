"""Pages of one net: what is inside of it, and a learning-rate range test.

Each is a folder: ``index.html``, a JSON document, ``figures/``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from dlsearch.core.errors import ConfigError
from dlsearch.report.figures.canvas import figure_settings
from dlsearch.report.formats import plural, short
from dlsearch.report.load import clean
from dlsearch.report.markup import csp_digest, draw_page, template_environment
from dlsearch.report.output import holds_something_else, indented_json, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.inspection.findings import InsideFindings, RangeTestFindings
    from dlsearch.report.figures.plate import Plate

LOOK = "look.json"
RATES = "lr_range.json"

#: What was found, as JSON.
Findings: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class _Page:
    """What a page is called.

    Attributes:
        document: The file that holds what the page shows.
        kind: What sort of a page it is.
        title: Of the model.
        meta: A line below the title.
    """

    document: str
    kind: str
    title: str
    meta: str = ""


def write_look(found: Findings, title: str, out: Path) -> Path:
    """Write what :func:`dlsearch.inspection.inside.look` found.

    The same findings give the same bytes.

    Args:
        found: The findings.
        title: Of the model.
        out: The folder; a former page there is replaced.

    Returns:
        The path of ``index.html``.

    Raises:
        ConfigError: `out` holds something else.
    """
    meta = ""
    if found.get("n"):
        examples = plural(found["n"], "example")
        meta = f"{examples} of {found['source']}"
    page = _Page(
        LOOK,
        "What is inside",
        title,
        meta,
    )
    return _write_page(
        found,
        page,
        _draw_look,
        out,
    )


def write_rates(found: Findings, title: str, out: Path) -> Path:
    """Write what :func:`dlsearch.inspection.lr_range.range_test` found; as :func:`write_look`."""
    page = _Page(RATES, "Learning-rate range test", title)
    return _write_page(
        found,
        page,
        _draw_range_test,
        out,
    )


def check_out(out: Path, document: str) -> None:
    """Refuse a folder that holds something else.

    Raises:
        ConfigError: It does.
    """
    if holds_something_else(out, document):
        raise ConfigError(
            "--out", f"{out} holds something that is no such page", "name another folder"
        )


def _draw_look(found: Findings) -> list[Plate]:
    from dlsearch.report.figures.inside import draw_inside
    from dlsearch.report.figures.inside.weights import draw_weights

    inside = cast("InsideFindings", found)
    weights = draw_weights(inside.get("first_layer"))
    plates = draw_inside(inside)
    return plates if weights is None else [weights, *plates]


def _draw_range_test(found: Findings) -> list[Plate]:
    from dlsearch.report.figures.rates import draw_rates

    return [draw_rates(cast("RangeTestFindings", found))]


def _write_page(
    found: Findings,
    page: _Page,
    draw: Callable[[Findings], list[Plate]],
    out: Path,
) -> Path:
    check_out(out, page.document)
    document = indented_json(clean(found))
    with figure_settings():
        drawn = draw_page(draw(json.loads(document)), narrow_first=True)
    style_sheet = drawn.style_sheet()
    templates = template_environment()
    templates.filters["short"] = short
    html = templates.get_template("look.html.j2").render(
        kind=page.kind,
        title=clean(page.title),
        meta=clean(page.meta),
        drawn=drawn.figures,
        document=page.document,
        css=style_sheet,
        style_digest=csp_digest(style_sheet),
    )
    files = {
        page.document: document,
        **drawn.files,
        "index.html": html,
    }
    write_folder(files, out)
    return out / "index.html"
