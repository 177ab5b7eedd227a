"""The figure of training against validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from dlsearch.report.facts.contents import GapRow, NamedGap, ObjectiveRow, Report
from dlsearch.report.figures.axes import padded_range, remove_frame, set_score_axis
from dlsearch.report.figures.canvas import ACCENT, INK, MUTED, PAPER, new_figure
from dlsearch.report.figures.marks import key_above, mark_handle
from dlsearch.report.figures.plate import HALF, Plate, capitalised
from dlsearch.report.formats import number, short
from dlsearch.report.progress import progress_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A configuration, and its objective on training and on validation examples.
_Row: TypeAlias = tuple[NamedGap, GapRow]

MARGIN_HEIGHT = 84
ROW_HEIGHT = 30
#: Share by which the range is wider than the values.
PAD_SHARE = 0.1


def draw_gap(report: Report) -> Plate | None:
    """Training against validation of what was confirmed, or of the leaders of the search."""
    objective = report["objectives"][0]
    metric = objective["name"].rsplit("/", 1)[-1]
    rows = _rows_of(report["gaps"], metric)
    if not rows or len(report["objectives"]) > 1:
        return None
    caption = _caption(rows[0], metric, report)
    return Plate(
        key="gap",
        title="Training against validation",
        caption=caption,
        alt=caption,
        wide=_drawing(rows, metric, objective),
    )


def _rows_of(configurations: Sequence[NamedGap], metric: str) -> list[_Row]:
    rows: list[_Row] = []
    for configuration in configurations:
        for gap in configuration["gap"]:
            if gap["metric"] == metric:
                rows.append((configuration, gap))
                break
    return rows


def _drawing(rows: Sequence[_Row], metric: str, objective: ObjectiveRow) -> Figure:
    values = [value for _, gap in rows for value in (gap["train"], gap["val"])]
    figure = new_figure(HALF, MARGIN_HEIGHT + ROW_HEIGHT * len(rows))
    ax = figure.add_subplot()
    set_score_axis(
        ax,
        padded_range(values, PAD_SHARE),
        objective["percent"],
        axis="x",
    )
    ax.grid(axis="x")
    for y, (configuration, gap) in enumerate(rows):
        _draw_row(
            ax,
            y,
            gap,
            ACCENT if configuration["first"] else MUTED,
        )
    names = [short(configuration["name"], 20) for configuration, _ in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(short(metric, 30) + (" (%)" if objective["percent"] else ""))
    remove_frame(ax)
    _write_key(ax)
    return figure


def _draw_row(
    ax: Axes,
    y: int,
    gap: GapRow,
    colour: str,
) -> None:
    ax.plot(
        [gap["val"], gap["train"]],
        [y, y],
        color=colour,
        lw=1.6,
        alpha=0.6,
        zorder=2,
    )
    ax.plot(
        [gap["val"]],
        [y],
        "o",
        ms=5.2,
        mfc=colour,
        mec=PAPER,
        mew=0.6,
        zorder=3,
    )
    ax.plot(
        [gap["train"]],
        [y],
        "o",
        ms=5.2,
        mfc=PAPER,
        mec=colour,
        mew=1.2,
        zorder=3,
    )


def _write_key(ax: Axes) -> None:
    training = mark_handle(
        "training",
        marker="o",
        ms=5.2,
        mfc=PAPER,
        mec=INK,
        mew=1.2,
    )
    validation = mark_handle(
        "validation",
        marker="o",
        ms=5.2,
        mfc=INK,
        mec=PAPER,
    )
    key_above(
        ax,
        2,
        handles=[training, validation],
        handlelength=1.2,
    )


def _caption(
    row: _Row,
    metric: str,
    report: Report,
) -> str:
    configuration, gap = row
    unit = progress_unit(report["study"])
    distance = abs(gap["gap"])
    is_percent = report["objectives"][0]["percent"]
    size = f"{distance * 100:.2f} points" if is_percent else number(distance)
    over_seeds = ", mean over the seeds" if report["confirmation"] else ""
    caption = (
        f"{short(metric, 30)} on training and on validation examples at the best {unit}"
        f"{over_seeds}: {configuration['name']} is {size} apart."
    )
    return capitalised(caption)
