"""The figure of the results of a search: the empirical distribution of the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import (
    Range,
    focused_range,
    objective_label,
    remove_frame,
    set_score_axis,
)
from dlsearch.report.figures.canvas import ACCENT, new_figure
from dlsearch.report.figures.inputs import find_trial, scored_trials
from dlsearch.report.figures.marks import Place, draw_default_diamond, write_note
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import plural, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import Report, TrialRow

QUARTERS = [0, 0.25, 0.5, 0.75, 1]
QUARTER_LABELS = ["0", "25", "50", "75", "100"]


def draw_distribution(report: Report) -> Plate | None:
    """The empirical distribution of the completed trials' scores."""
    scores = [trial["values"][0] for trial in scored_trials(report)]
    if len(scores) < 2 or len(report["objectives"]) > 1:
        return None
    objective = report["objectives"][0]
    shown = focused_range(scores, objective["maximize"])
    caption = _caption(report, shown, len(scores))
    return Plate(
        key="distribution",
        title="Distribution of results",
        caption=caption,
        alt=f"Empirical distribution of {objective['name']}: {caption}",
        wide=_drawing(report, shown),
    )


def _drawing(report: Report, shown: Range) -> Figure:
    objective = report["objectives"][0]
    points = report["course"]["distribution"]
    figure = new_figure(HALF, 290)
    ax = figure.add_subplot()
    set_score_axis(
        ax,
        shown,
        objective["percent"],
        axis="x",
    )
    _draw_steps(ax, points, shown)
    ax.set_ylim(0, 1.04)
    ax.set_yticks(QUARTERS, QUARTER_LABELS)
    ax.grid(axis="y")
    ax.set_title("share of completed trials at or below (%)")
    ax.set_xlabel(objective_label(objective))
    default = find_trial(report, report["default"])
    if default is not None and default["scored"]:
        _mark_default(
            ax,
            default,
            points,
            shown,
        )
    remove_frame(ax)
    return figure


def _draw_steps(ax: Axes, points: list[Place], shown: Range) -> None:
    share_before = max((share for x, share in points if x < shown.low), default=0.0)
    inside = [(x, share) for x, share in points if not shown.is_outside(x)]
    shares = [share_before, *(share for _, share in inside)]
    ax.step(
        [shown.low, *(x for x, _ in inside), shown.high],
        [*shares, shares[-1]],
        where="post",
        color=ACCENT,
        lw=1.5,
        clip_on=False,
    )


def _mark_default(
    ax: Axes,
    default: TrialRow,
    points: list[Place],
    shown: Range,
) -> None:
    x = default["values"][0]
    if shown.is_outside(x):
        return
    y = dict(points)[x]
    draw_default_diamond(ax, x, y)
    to_the_left = x > (shown.low + shown.high) / 2
    write_note(
        ax,
        "default",
        (x, y),
        (-7, 4) if to_the_left else (7, -9),
        ha="right" if to_the_left else "left",
    )


def _caption(report: Report, shown: Range, n: int) -> str:
    objective = report["objectives"][0]
    median = score(report["course"]["median"], objective["percent"])
    caption = f"Half of the {plural(n, 'completed trial')} reached {median} or "
    caption += "more." if objective["maximize"] else "less."
    if shown.cut:
        caption += f" {plural(shown.cut, 'trial')} beyond the axis."
    return caption
