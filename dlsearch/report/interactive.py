"""The interactive page, ``interactive.html``: the search to hover over, drawn by plotly.

Plotly's script is inlined once, and the page's policy allows this script by its digest and no
other, so that the page makes no request either. It is an addition: the report is whole without it,
and plotly is an extra of the package.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from dlsearch.core.errors import ConfigError
from dlsearch.report.figures.canvas import ACCENT, INK, MUTED, PAPER, RULE
from dlsearch.report.figures.inputs import scored_trials
from dlsearch.report.formats import number, score, short
from dlsearch.report.markup import csp_digest
from dlsearch.report.progress import progress_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.report.facts.contents import FinalistRow, ObjectiveRow, Report, TrialRow
    from dlsearch.report.figures.scales import Scale

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
body {{ margin: 0 auto; padding: 2rem 1.25rem; max-width: 70rem; background: #ffffff; \
color: #1c1f23;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", \
sans-serif; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin: 2.5rem 0 .5rem; }} \
p {{ color: #5b6470; }}
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
#: The marker and the colour of a state.
_MARKS = {
    "complete": ("circle", ACCENT),
    "pruned": ("triangle-down-open", MUTED),
    "running": ("square-open", ACCENT),
}
_OPTIONS = {"responsive": True}

#: A trace or a part of a layout, as plotly reads it.
Json: TypeAlias = Mapping[str, Any]

_BASE_LAYOUT: Json = {
    "font": {"color": INK, "size": 13},
    "margin": {
        "l": 60,
        "r": 20,
        "t": 20,
        "b": 50,
    },
    "height": 420,
    "paper_bgcolor": PAPER,
    "plot_bgcolor": PAPER,
    "hovermode": "closest",
}


@dataclass(frozen=True)
class _Figure:
    """One figure of the page: its traces, and what its layout has beside that of all."""

    title: str
    traces: list[Json]
    layout: Json


def render_interactive_page(report: Report) -> str:
    """The whole page as text, the same for the same facts and the same plotly.

    Raises:
        ConfigError: plotly is not installed.
    """
    library = _plotly_script()
    candidates = (
        _course_figure(report),
        _parameters_figure(report),
        _curves_figure(report),
        _replicas_figure(report),
    )
    figures = [figure for figure in candidates if figure is not None]
    calls = "".join(_plotly_call(index, figure) for index, figure in enumerate(figures))
    sections = [_section(index, figure.title) for index, figure in enumerate(figures)]
    return _PAGE.format(
        scripts=" ".join(f"'sha256-{csp_digest(text)}'" for text in (library, calls)),
        title=html.escape(short(str(report["study"]["name"]), 120)),
        headline=html.escape(report["claim"]["headline"]),
        sections="\n".join(sections),
        library=library,
        calls=calls,
    )


def _plotly_script() -> str:
    try:
        offline = import_module("plotly.offline")
    except ImportError:
        raise ConfigError(
            "--interactive",
            "expected plotly, which is not installed",
            "pip install 'dlsearch[plotly]'",
        ) from None
    script: str = offline.get_plotlyjs()
    return script


def _plotly_call(index: int, figure: _Figure) -> str:
    arguments = (figure.traces, {**_BASE_LAYOUT, **figure.layout}, _OPTIONS)
    texts = ",".join(_script_json(argument) for argument in arguments)
    return f"Plotly.newPlot('figure-{index}',{texts});\n"


def _script_json(value: Any) -> str:
    """JSON inside a script: `<` must not end the script, whatever a name holds."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _section(index: int, title: str) -> str:
    label = html.escape(title)
    return f'<h2>{label}</h2>\n<div id="figure-{index}" role="img" aria-label="{label}"></div>'


def _plain_text(value: Any, length: int = 40) -> str:
    """Plotly reads a little markup in texts: names are shown as they are."""
    return html.escape(short(str(value), length))


def _hover_text(trial: TrialRow, objective: ObjectiveRow) -> str:
    standing = score(trial["standing"], objective["percent"])
    lines = [f"trial {trial['number']}, {trial['state']}: {standing}"]
    for name, value in trial["params"].items():
        lines.append(f"{_plain_text(name)} = {_plain_text(number(value))}")
    return "<br>".join(lines)


def _objective_axis(objective: ObjectiveRow) -> Json:
    axis = {
        "title": {"text": _plain_text(objective["name"])},
        "gridcolor": RULE,
        "automargin": True,
        "zeroline": False,
    }
    if objective["percent"]:
        axis["tickformat"] = ".2%"
    return axis


def _titled_axis(title: str) -> Json:
    return {"title": {"text": title}}


def _course_figure(report: Report) -> _Figure | None:
    """All trials by number, with the best so far."""
    objective = report["objectives"][0]
    traces: list[Json] = []
    for state in _MARKS:
        trials = [
            trial
            for trial in report["trials"]
            if trial["state"] == state and trial["standing"] is not None
        ]
        if trials:
            traces.append(_state_trace(state, trials, objective))
    if not traces:
        return None
    if report["course"]["best_so_far"]:
        traces.insert(0, _best_so_far_trace(report))
    layout = {"xaxis": _titled_axis("trial"), "yaxis": _objective_axis(objective)}
    return _Figure("Course of the search", traces, layout)


def _state_trace(state: str, trials: Sequence[TrialRow], objective: ObjectiveRow) -> Json:
    symbol, colour = _MARKS[state]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": state,
        "x": [trial["number"] for trial in trials],
        "y": [trial["standing"] for trial in trials],
        "text": [_hover_text(trial, objective) for trial in trials],
        "hoverinfo": "text",
        "marker": {
            "symbol": symbol,
            "color": colour,
            "size": 9,
        },
    }


def _best_so_far_trace(report: Report) -> Json:
    steps = report["course"]["best_so_far"]
    last_trial = report["trials"][-1]["number"]
    last_value = steps[-1][1]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "hoverinfo": "skip",
        "x": [*(trial_number for trial_number, _ in steps), last_trial],
        "y": [*(value for _, value in steps), last_value],
        "line": {
            "shape": "hv",
            "color": ACCENT,
            "width": 1.5,
        },
    }


def _leaders_last(report: Report, trials: Sequence[TrialRow]) -> list[TrialRow]:
    return sorted(trials, key=lambda trial: trial["number"] in report["leaders"])


def _line_look(trial: TrialRow, report: Report) -> Json:
    """The leaders in colour and in the legend, the others pale."""
    if trial["number"] in report["leaders"]:
        return {
            "line": {"color": ACCENT, "width": 2},
            "showlegend": True,
            "opacity": 1,
        }
    return {
        "line": {"color": MUTED, "width": 0.8},
        "showlegend": False,
        "opacity": 0.4,
    }


def _parameters_figure(report: Report) -> _Figure | None:
    """A line a completed trial, through all its values.

    Plain lines: plotly's own parallel coordinates compile code in the browser, which the page's
    policy forbids.
    """
    from dlsearch.report.figures.scales import parameter_scales

    scales = parameter_scales(report)
    trials = _leaders_last(report, scored_trials(report))
    if len(scales) < 2 or not trials:
        return None
    places = list(range(len(scales)))
    names_axis = {
        "tickvals": places,
        "ticktext": [_plain_text(scale.name, 24) for scale in scales],
        "zeroline": False,
    }
    values_axis = {
        "tickvals": [0, 1],
        "ticktext": ["least", "most"],
        "range": [-0.05, 1.05],
        "zeroline": False,
        "automargin": True,
    }
    traces = [_parameters_trace(report, trial, scales) for trial in trials]
    return _Figure("Hyperparameters", traces, {"xaxis": names_axis, "yaxis": values_axis})


def _parameters_trace(report: Report, trial: TrialRow, scales: Sequence[Scale]) -> Json:
    hover_text = _hover_text(trial, report["objectives"][0])
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(range(len(scales))),
        "y": [scale.place_of(trial["params"].get(scale.name)) for scale in scales],
        "text": [hover_text] * len(scales),
        "hoverinfo": "text",
        "connectgaps": True,
        "name": f"trial {trial['number']}",
        **_line_look(trial, report),
    }


def _curves_figure(report: Report) -> _Figure | None:
    """The learning curves, those of the leaders in colour."""
    objective = report["objectives"][0]
    trials = [trial for trial in report["trials"] if len(trial["intermediate"]) > 1]
    if not trials or len(report["objectives"]) > 1:
        return None
    traces = [_curve_trace(report, trial) for trial in _leaders_last(report, trials)]
    layout = {
        "xaxis": _titled_axis(progress_unit(report["study"])),
        "yaxis": _objective_axis(objective),
    }
    return _Figure("Learning curves", traces, layout)


def _curve_trace(report: Report, trial: TrialRow) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"trial {trial['number']}",
        "x": [epoch for epoch, _ in trial["intermediate"]],
        "y": [value for _, value in trial["intermediate"]],
        **_line_look(trial, report),
    }


def _replicas_figure(report: Report) -> _Figure | None:
    """Every replica's score, a row a finalist."""
    confirmation = report["confirmation"]
    if confirmation is None:
        return None
    objective = report["objectives"][0]
    layout = {
        "xaxis": _objective_axis(objective),
        "yaxis": {"automargin": True, "autorange": "reversed"},
        "showlegend": False,
    }
    traces = [_replicas_trace(row, objective) for row in confirmation["finalists"]]
    return _Figure("Replicas over fresh seeds", traces, layout)


def _replicas_trace(row: FinalistRow, objective: ObjectiveRow) -> Json:
    name = _plain_text(row["name"])
    completed = [replica for replica in row["replicas"] if replica["value"] is not None]
    values = [replica["value"] for replica in completed]
    texts = [
        f"{name}, seed {replica['seed']}: {score(replica['value'], objective['percent'])}"
        for replica in completed
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "marker": {"color": ACCENT if row["winner"] else MUTED, "size": 9},
        "hoverinfo": "text",
        "x": values,
        "y": [name] * len(completed),
        "text": texts,
    }
