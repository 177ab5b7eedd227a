"""The figure of optimism: from the score of the search to the mean over fresh seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import (
    Range,
    objective_label,
    padded_range,
    remove_frame,
    set_score_axis,
)
from dlsearch.report.figures.canvas import PAPER, new_figure
from dlsearch.report.figures.confirmation.rows import (
    BAND_LOOK,
    PAD_SHARE,
    colour_of,
    ends_in_range,
    mean_of,
    quoted_ends,
    short_name,
)
from dlsearch.report.figures.marks import draw_mark, write_note
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import FinalistRow, Optimism, Report

#: Distance between names at the ends of the lines, as a share of the range.
NAME_DISTANCE = 0.06


def draw_optimism(report: Report) -> Plate | None:
    """From the score of the search to the mean over fresh seeds, a line each finalist."""
    confirmation = report["confirmation"]
    optimism = report["optimism"]
    if confirmation is None or optimism is None:
        return None
    rows = [
        row
        for row in confirmation["finalists"]
        if row["search_value"] is not None and row["mean"] is not None
    ]
    if not rows:
        return None
    objective = report["objectives"][0]
    caption = _caption(optimism, objective["percent"])
    return Plate(
        key="optimism",
        title="Search against fresh seeds",
        caption=caption,
        alt=f"{objective['name']}. {caption}",
        wide=_drawing(report, rows),
    )


def _search_value(row: FinalistRow) -> float:
    value = row["search_value"]
    assert value is not None
    return value


def _range_shown(rows: Sequence[FinalistRow]) -> Range:
    values: list[float] = []
    for row in rows:
        values += [_search_value(row), mean_of(row)]
        values += ends_in_range(row)
    return padded_range(values, PAD_SHARE)


def _drawing(report: Report, rows: Sequence[FinalistRow]) -> Figure:
    objective = report["objectives"][0]
    shown = _range_shown(rows)
    figure = new_figure(HALF, 270)
    ax = figure.add_subplot()
    set_score_axis(ax, shown, objective["percent"])
    for row in sorted(rows, key=lambda row: row["winner"]):
        _draw_finalist(ax, row)
    _name_ends(ax, rows, shown)
    ax.set_xlim(-0.12, 1.42)
    ax.set_xticks([0, 1], ["in the search\n(one training)", "mean of\nfresh seeds"])
    ax.tick_params(axis="x", length=0)
    ax.spines["bottom"].set_visible(False)
    ax.set_title(objective_label(objective))
    remove_frame(ax)
    return figure


def _draw_finalist(ax: Axes, row: FinalistRow) -> None:
    colour = colour_of(row)
    is_winner = row["winner"]
    ax.plot(
        [0, 1],
        [_search_value(row), mean_of(row)],
        color=colour,
        lw=2 if is_winner else 1.1,
        zorder=4 if is_winner else 3,
    )
    draw_mark(
        ax,
        0,
        _search_value(row),
        "v",
        ms=5,
        mfc=PAPER,
        mec=colour,
        zorder=5,
    )
    draw_mark(
        ax,
        1,
        mean_of(row),
        "o",
        ms=5,
        mfc=colour,
        mec=PAPER,
        mew=0.6,
        zorder=5,
    )
    ends = quoted_ends(row)
    if ends and (is_winner or row["default"]):
        ax.plot(
            [1, 1],
            ends,
            color=colour,
            zorder=2,
            **BAND_LOOK,
        )


def _name_ends(ax: Axes, rows: Sequence[FinalistRow], shown: Range) -> None:
    """Name each line at its end, from the lowest up, with a gap between the names."""
    gap = NAME_DISTANCE * shown.span
    height = shown.low - 1
    for row in sorted(rows, key=mean_of):
        height = max(mean_of(row), height + gap)
        write_note(
            ax,
            short_name(row),
            (1, height),
            (9, -3),
            color=colour_of(row),
            weight="bold" if row["winner"] else "normal",
            fontsize=8.5,
        )


def _caption(optimism: Optimism, percent: bool) -> str:
    drop = difference(optimism["drop"], percent).lstrip("+−")
    if optimism["drop"] > 0:
        mean = f"{drop} less than the best score that the search saw"
    elif optimism["drop"]:
        mean = f"no less than the best score that the search saw ({drop} more)"
    else:
        mean = "what the search saw"
    if optimism["interval"]:
        return f"The winner's mean is {mean}; the band is its 95 % interval."
    return f"The winner's mean is {mean}."
