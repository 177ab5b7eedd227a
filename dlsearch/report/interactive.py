"""The interactive page, ``interactive.html``: the search to hover over, drawn by plotly from ``report.json``.

Plotly's script is inlined once, and the page's policy allows this script by its digest and no other, so that the page
makes no request either. It is an addition: the report is whole without it, and plotly is an extra of the package.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import import_module
from typing import Any

from dlsearch.config.errors import ConfigError
from dlsearch.report.formats import number, score, short

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src {scripts}; \
style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title} · interactive figures</title>
<style>
body {{ margin: 0 auto; padding: 2rem 1.25rem; max-width: 70rem; background: #ffffff; color: #1c1f23;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin: 2.5rem 0 .5rem; }} p {{ color: #5b6470; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{headline}</p>
{sections}
</main>
<script>{library}</script>
<script>{calls}</script>
</body>
</html>
"""
_INK, _MUTED, _ACCENT, _BAD = "#1c1f23", "#5b6470", "#0a5cad", "#b3400e"
_MARKS = {
    "complete": ("circle", _ACCENT),
    "pruned": ("triangle-down-open", _MUTED),
    "running": ("square-open", _ACCENT),
}


def page(f: dict[str, Any]) -> str:
    """The whole page as text, the same for the same facts and the same plotly.

    Raises:
        ConfigError: plotly is not installed.
    """
    try:
        offline = import_module("plotly.offline")
    except ImportError:
        raise ConfigError(
            "--interactive", "expected plotly, which is not installed", "pip install 'dlsearch[plotly]'"
        ) from None
    figures = [x for x in (_course(f), _parallel(f), _curves(f), _replicas(f)) if x is not None]
    # `<` must not end the script, whatever a name holds.
    calls = "".join(
        f"Plotly.newPlot('figure-{i}',{_json(data)},{_json(_layout(layout))},{_json({'responsive': True})});\n"
        for i, (_, data, layout) in enumerate(figures)
    )
    library = offline.get_plotlyjs()
    scripts = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (library, calls)
    )
    sections = "\n".join(
        f'<h2>{html.escape(title)}</h2>\n<div id="figure-{i}" role="img" aria-label="{html.escape(title)}"></div>'
        for i, (title, _, _) in enumerate(figures)
    )
    return _PAGE.format(
        scripts=scripts,
        title=html.escape(short(str(f["study"]["name"]), 120)),
        headline=html.escape(f["claim"]["headline"]),
        sections=sections,
        library=library,
        calls=calls,
    )


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _layout(more: dict[str, Any]) -> dict[str, Any]:
    base: dict[str, Any] = {
        "font": {"color": _INK, "size": 13},
        "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
        "height": 420,
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "hovermode": "closest",
    }
    return base | more


def _text(value: Any, length: int = 40) -> str:
    """Plotly reads a little markup in texts: names are shown as they are."""
    return html.escape(short(str(value), length))


def _hover(t: dict[str, Any], objective: dict[str, Any]) -> str:
    lines = [f"trial {t['number']}, {t['state']}: {score(t['standing'], objective['percent'])}"]
    lines += [f"{_text(k)} = {_text(number(v))}" for k, v in t["params"].items()]
    return "<br>".join(lines)


def _course(f: dict[str, Any]) -> tuple[str, list[dict[str, Any]], dict[str, Any]] | None:
    objective = f["objectives"][0]
    data: list[dict[str, Any]] = []
    for state, (symbol, colour) in _MARKS.items():
        here = [t for t in f["trials"] if t["state"] == state and t["standing"] is not None]
        if here:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": state,
                    "x": [t["number"] for t in here],
                    "y": [t["standing"] for t in here],
                    "text": [_hover(t, objective) for t in here],
                    "hoverinfo": "text",
                    "marker": {"symbol": symbol, "color": colour, "size": 9},
                }
            )
    if not data:
        return None
    steps = f["course"]["best_so_far"]
    if steps:
        last = f["trials"][-1]["number"]
        line: dict[str, Any] = {"type": "scatter", "mode": "lines", "name": "best so far", "hoverinfo": "skip"}
        line |= {"x": [n for n, _ in steps] + [last], "y": [v for _, v in steps] + [steps[-1][1]]}
        data.insert(0, line | {"line": {"shape": "hv", "color": _ACCENT, "width": 1.5}})
    return "Course of the search", data, {"xaxis": {"title": {"text": "trial"}}, "yaxis": _axis(objective)}


def _axis(objective: dict[str, Any]) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": _text(objective["name"])}, "gridcolor": "#d9dde3"}
    axis |= {"automargin": True, "zeroline": False}
    return axis | ({"tickformat": ".2%"} if objective["percent"] else {})


def _parallel(f: dict[str, Any]) -> tuple[str, list[dict[str, Any]], dict[str, Any]] | None:
    from dlsearch.report.figures.scales import scales

    axes = scales(f)
    if len(axes) < 2:
        return None
    # Plain lines: plotly's own parallel coordinates compile code in the browser, which the page's policy forbids.
    shown = sorted((t for t in f["trials"] if t["scored"]), key=lambda t: t["number"] in f["leaders"])
    data: list[dict[str, Any]] = []
    for t in shown:
        first = t["number"] in f["leaders"]
        places = [axis.at(t["params"].get(axis.name)) for axis in axes]
        row: dict[str, Any] = {"type": "scatter", "mode": "lines+markers", "x": list(range(len(axes))), "y": places}
        row |= {"text": [_hover(t, f["objectives"][0])] * len(axes), "hoverinfo": "text", "connectgaps": True}
        row |= {"line": {"color": _ACCENT if first else _MUTED, "width": 2 if first else 0.8}, "showlegend": first}
        data.append(row | {"name": f"trial {t['number']}", "opacity": 1 if first else 0.4})
    if not data:
        return None
    names = {"tickvals": list(range(len(axes))), "ticktext": [_text(axis.name, 24) for axis in axes], "zeroline": False}
    ends: dict[str, Any] = {
        "tickvals": [0, 1],
        "ticktext": ["least", "most"],
        "range": [-0.05, 1.05],
        "zeroline": False,
    }
    ends["automargin"] = True
    return "Hyperparameters", data, {"xaxis": names, "yaxis": ends}


def _curves(f: dict[str, Any]) -> tuple[str, list[dict[str, Any]], dict[str, Any]] | None:
    objective = f["objectives"][0]
    shown = [t for t in f["trials"] if len(t["intermediate"]) > 1]
    if not shown or len(f["objectives"]) > 1:
        return None
    leaders = set(f["leaders"])
    data = []
    for t in sorted(shown, key=lambda t: t["number"] in leaders):
        first = t["number"] in leaders
        line = {"color": _ACCENT if first else _MUTED, "width": 2 if first else 0.8}
        row: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines",
            "name": f"trial {t['number']}",
            "opacity": 1 if first else 0.4,
        }
        row |= {"x": [e for e, _ in t["intermediate"]], "y": [v for _, v in t["intermediate"]]}
        data.append(row | {"line": line, "showlegend": first})
    return "Learning curves", data, {"xaxis": {"title": {"text": "epoch"}}, "yaxis": _axis(objective)}


def _replicas(f: dict[str, Any]) -> tuple[str, list[dict[str, Any]], dict[str, Any]] | None:
    c, objective = f["confirmation"], f["objectives"][0]
    if c is None:
        return None
    data: list[dict[str, Any]] = []
    for row in c["finalists"]:
        done = [r for r in row["replicas"] if r["value"] is not None]
        marker = {"color": _ACCENT if row["winner"] else _MUTED, "size": 9}
        name = _text(row["name"])
        texts = [f"{name}, seed {r['seed']}: {score(r['value'], objective['percent'])}" for r in done]
        mark: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "marker": marker,
            "hoverinfo": "text",
        }
        data.append(mark | {"x": [r["value"] for r in done], "y": [name] * len(done), "text": texts})
    rows = {"automargin": True, "autorange": "reversed"}
    return "Replicas over fresh seeds", data, {"xaxis": _axis(objective), "yaxis": rows, "showlegend": False}
