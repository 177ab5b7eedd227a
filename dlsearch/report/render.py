"""From the facts and the figures to the pages: ``index.html`` and ``report.md``.

Both templates escape every value by default: the one as HTML, the other as Markdown.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.report import formats
from dlsearch.report.figures import svg
from dlsearch.report.load import is_rate
from dlsearch.report.pictures import data_address

if TYPE_CHECKING:
    import jinja2

    from dlsearch.report.figures.plate import Plate

_TEMPLATES = Path(__file__).parent / "templates"
_MARKDOWN = re.compile(r"([\\`*\[\]<>|{}~$]|(?<!\w)_|_(?!\w)|^[#+-])")


def pages(f: dict[str, Any], plates: list[Plate]) -> dict[str, str]:
    """Render the files of the report other than ``report.json`` and ``SHA256SUMS``.

    Args:
        f: The facts, as read back from ``report.json``.
        plates: The figures.

    Returns:
        Text by path below the report's folder.
    """
    from markupsafe import Markup

    files: dict[str, str] = {}
    sheet, drawn = svg.Sheet(), {}
    for p in plates:
        wide = svg.tree(p.wide, p.key)
        files[f"figures/{p.key}.svg"] = svg.alone(wide, p.alt)
        narrow = svg.tree(p.narrow, f"{p.key}-n") if p.narrow else None
        drawn[p.key] = {
            "wide": Markup(sheet.inline(wide, p.alt)),
            "narrow": None if narrow is None else Markup(sheet.inline(narrow, p.alt)),
        }
    css = (_TEMPLATES / "style.css").read_text("utf-8") + sheet.css() + "\n"
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    common: dict[str, Any] = {
        "f": f,
        "by_number": {t["number"]: t for t in f["trials"]},
        "percent": f["objectives"][0]["percent"],
        "space": {d["name"]: d for d in f["study"].get("space") or []},
        "plates": {p.key: p for p in plates},
        "slices": [p for p in plates if p.key.startswith("slice-")],
    }
    html = environment(markdown=False).get_template("report.html.j2")
    files["index.html"] = html.render(**common, drawn=drawn, css=Markup(css), style_digest=digest, png=data_address)
    files["report.md"] = environment(markdown=True).get_template("report.md.j2").render(**common)
    return files


@functools.cache
def environment(*, markdown: bool) -> jinja2.Environment:
    """Where the templates of a page are found; compiled ones are kept."""
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=not markdown,
        undefined=jinja2.StrictUndefined,
        finalize=markdown_escape if markdown else None,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
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
        "prob": formats.probability,
        "bare": bare,
        "spread": spread,
        "rate": is_rate,
        "items_by": items_by,
        "grouped": grouped,
        "bounds": bounds,
        "flat": flat,
        "code": code,
        "fence": fence,
    }
    return env


def bounds(d: dict[str, Any]) -> str:
    """A dimension's domain: ``0.0001 to 0.1`` or its choices."""
    if d.get("choices") is not None:
        return ", ".join(formats.number(c) for c in d["choices"])
    step = f", step {formats.number(d['step'])}" if d.get("step") not in (None, 1) else ""
    return f"{formats.number(d.get('low'))} to {formats.number(d.get('high'))}{step}"


def bare(x: float | None, percent: bool) -> str:
    """The difference of two scores without its unit, for a column that names it."""
    return formats.difference(x, percent, bare=True)


def spread(x: float | None, percent: bool) -> str:
    """A standard deviation, of a rate in percentage points."""
    return formats.NONE if x is None else f"{100 * x:.3f}" if percent else formats.number(x, 3)


def items_by(rows: list[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    """The rows by the text of one of their values."""
    return {str(row[key]): row for row in rows}


def grouped(rows: list[dict[str, Any]], key: str) -> list[tuple[Any, list[dict[str, Any]]]]:
    """The rows by one of their values, in the order in which these first come."""
    out: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault(row[key], []).append(row)
    return list(out.items())


def flat(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested config as ``key.path, value`` rows."""
    if isinstance(config, dict) and config:
        return [row for k, v in config.items() for row in flat(v, f"{prefix}.{k}" if prefix else str(k))]
    if isinstance(config, list):
        return [(prefix, ", ".join(formats.number(v) for v in config) or formats.NONE)]
    return [(prefix, formats.NONE if config in (None, {}) else formats.number(config))]


def markdown_escape(value: Any) -> Any:
    """Escape text for Markdown outside of code; markup made by the filters below passes."""
    from markupsafe import Markup

    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = " ".join(value.split(" ")).replace("\r", " ").replace("\n", " ").replace("&", "&amp;")
    return _MARKDOWN.sub(r"\\\1", text)


def code(value: Any) -> Any:
    """A Markdown code span that its content cannot end, also inside a table."""
    from markupsafe import Markup

    text = re.sub(r"[\r\n]+", " ", str(value)).replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return Markup(f"{ticks}{pad}{text}{pad}{ticks}") if text else Markup("–")


def fence(value: Any, language: str = "sh") -> Any:
    """A Markdown code block that its content cannot end."""
    from markupsafe import Markup

    text = str(value)
    ticks = "`" * max(3, max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return Markup(f"{ticks}{language}\n{text}\n{ticks}")
