"""From the facts and the figures to the pages: ``index.html`` and ``report.md``.

Both templates escape every value by default: the one as HTML, the other as Markdown.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from dlsearch.report import formats
from dlsearch.report.facts.intervals import ENOUGH_FOR_BOOTSTRAP, quote_interval
from dlsearch.report.figures.kinds import kind_of_evaluation
from dlsearch.report.load import is_rate
from dlsearch.report.markup import csp_digest, draw_page, template_environment
from dlsearch.report.pictures import data_address
from dlsearch.report.progress import progress_unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import jinja2
    from markupsafe import Markup

    from dlsearch.report.facts.contents import Report
    from dlsearch.report.figures.inputs import SpaceRow
    from dlsearch.report.figures.plate import Plate

_MARKDOWN_SYNTAX = re.compile(r"([\\`*\[\]<>|{}~$]|(?<!\w)_|_(?!\w)|^[#+-])")
#: Fewest ticks that fence a block of code.
_FENCE_TICKS = 3


def render_pages(report: Report, plates: Sequence[Plate]) -> dict[str, str]:
    """Render the files of the report other than ``report.json`` and ``SHA256SUMS``.

    Args:
        report: The facts, as read back from ``report.json``.
        plates: The figures.

    Returns:
        Text by path below the report's folder.
    """
    page = draw_page(plates)
    kind = kind_of_evaluation(report)
    style_sheet = page.style_sheet()
    values = _values_of_templates(report, plates)
    html_template = environment(markdown=False).get_template("report.html.j2")
    html = html_template.render(
        **values,
        drawn={drawn.plate.key: drawn for drawn in page.figures},
        css=style_sheet,
        style_digest=csp_digest(style_sheet),
        png=data_address,
        evaluation_template=None if kind is None else kind.template,
    )
    markdown_template = environment(markdown=True).get_template("report.md.j2")
    markdown = markdown_template.render(**values)
    return {
        **page.files,
        "index.html": html,
        "report.md": markdown,
    }


def _values_of_templates(report: Report, plates: Sequence[Plate]) -> Mapping[str, Any]:
    """What both templates read, by name."""
    return {
        "f": report,
        "unit": progress_unit(report["study"]),
        "by_number": {trial["number"]: trial for trial in report["trials"]},
        "percent": report["objectives"][0]["percent"],
        "space": {row["name"]: row for row in report["study"].get("space") or []},
        "plates": {plate.key: plate for plate in plates},
        "evaluation": [plate for plate in plates if plate.of_evaluation],
        "slices": [plate for plate in plates if plate.key.startswith("slice-")],
    }


@functools.cache
def environment(*, markdown: bool) -> jinja2.Environment:
    """Where the templates of a page are found; compiled ones are kept."""
    env = template_environment(
        autoescape=not markdown,
        finalize=escape_markdown if markdown else None,
    )
    env.filters |= {
        "num": formats.number,
        "score": formats.score,
        "diff": formats.difference,
        "pct": formats.percent,
        "dur": formats.duration,
        "when": formats.when,
        "short": formats.short,
        "plural": formats.plural,
        "listed": formats.listed,
        "interval": formats.interval,
        "quoted": quote_interval,
        "prob": formats.probability,
        "bare": difference_without_unit,
        "p_value": formats.p_value,
        "spread": format_spread,
        "rate": is_rate,
        "items_by": rows_by_key,
        "grouped": group_rows,
        "bounds": format_bounds,
        "flat": flatten_config,
        "code": code_span,
        "fence": code_block,
    }
    env.globals["enough_for_bootstrap"] = ENOUGH_FOR_BOOTSTRAP
    return env


def format_bounds(dimension: SpaceRow) -> str:
    """A dimension's domain: ``0.0001 to 0.1`` or its choices."""
    choices = dimension.get("choices")
    if choices is not None:
        return ", ".join(formats.number(value) for value in choices)
    low = formats.number(dimension.get("low"))
    high = formats.number(dimension.get("high"))
    step = dimension.get("step")
    if step in (None, 1):
        return f"{low} to {high}"
    return f"{low} to {high}, step {formats.number(step)}"


def difference_without_unit(x: float | None, percent: bool) -> str:
    """The difference of two scores without its unit, for a column that names it."""
    return formats.difference(x, percent, bare=True)


def format_spread(x: float | None, percent: bool) -> str:
    """A standard deviation, of a rate in percentage points."""
    if x is None:
        return formats.NONE
    return f"{100 * x:.3f}" if percent else formats.number(x, 3)


def rows_by_key(
    rows: Sequence[Mapping[str, Any]],
    key: str,
) -> dict[str, Mapping[str, Any]]:
    """The rows by the text of one of their values."""
    return {str(row[key]): row for row in rows}


def group_rows(
    rows: Sequence[Mapping[str, Any]],
    key: str,
) -> list[tuple[Any, list[Mapping[str, Any]]]]:
    """The rows by one of their values, in the order in which these first come."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return list(groups.items())


def flatten_config(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested config as ``key.path, value`` rows."""
    if isinstance(config, dict) and config:
        rows: list[tuple[str, str]] = []
        for key, value in config.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            rows += flatten_config(value, path)
        return rows
    return [(prefix, _leaf_of_config(config))]


def _leaf_of_config(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(formats.number(element) for element in value) or formats.NONE
    if value in (None, {}):
        return formats.NONE
    return formats.number(value)


def escape_markdown(value: Any) -> Any:
    """Escape text for Markdown outside of code; markup made by the filters below passes."""
    from markupsafe import Markup

    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    line = " ".join(value.split(" ")).replace("\r", " ").replace("\n", " ")
    return _MARKDOWN_SYNTAX.sub(r"\\\1", line.replace("&", "&amp;"))


def code_span(value: Any) -> Markup:
    """A Markdown code span that its content cannot end, also inside a table."""
    from markupsafe import Markup

    line = re.sub(r"[\r\n]+", " ", str(value))
    text = line.replace("|", "\\|")
    if not text:
        return Markup(formats.NONE)
    ticks = "`" * (_longest_run_of_ticks(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return Markup(f"{ticks}{pad}{text}{pad}{ticks}")


def code_block(value: Any, language: str = "sh") -> Markup:
    """A Markdown code block that its content cannot end."""
    from markupsafe import Markup

    text = str(value)
    ticks = "`" * max(_FENCE_TICKS, _longest_run_of_ticks(text) + 1)
    return Markup(f"{ticks}{language}\n{text}\n{ticks}")


def _longest_run_of_ticks(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
