"""The figure of the paired differences: the winner minus each other finalist, on the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import Range, padded_range, remove_frame, set_score_axis
from dlsearch.report.figures.canvas import ACCENT, INK, new_figure
from dlsearch.report.figures.confirmation.rows import (
    PAD_SHARE,
    draw_band,
    draw_mean_line,
    draw_rings,
    draw_row_line,
    ends_in_range,
    quoted_ends,
    short_name,
)
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import difference, listed, probability, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import Comparison, ObjectiveRow, Report

MARGIN_HEIGHT = 84
ROW_HEIGHT = 54


@dataclass(frozen=True)
class _Differences:
    """What the figure shows: the comparisons, and the name of the other finalist of each."""

    objective: ObjectiveRow
    rows: list[Comparison]
    names: list[str]
    scale: int

    def scaled(self, values: Sequence[float] | None) -> list[float]:
        """The values in the units of the axis: those of a rate in percentage points."""
        return [self.scale * value for value in values or ()]


def draw_differences(report: Report) -> Plate | None:
    """The winner minus each other finalist, on the same seeds."""
    confirmation = report["confirmation"]
    if confirmation is None:
        return None
    rows = [row for row in confirmation["comparisons"] if row["n"]]
    if not rows:
        return None
    objective = report["objectives"][0]
    finalists = confirmation["finalists"]
    data = _Differences(
        objective=objective,
        rows=rows,
        names=[short_name(finalists[row["with"]]) for row in rows],
        scale=100 if objective["percent"] else 1,
    )
    return Plate(
        key="differences",
        title="Seed by seed",
        caption=_caption(data),
        alt=_alternative_text(data),
        wide=_drawing(data),
    )


def _range_shown(data: _Differences) -> Range:
    values = [0.0]
    for row in data.rows:
        values += data.scaled(row["differences"])
        values += data.scaled(ends_in_range(row))
    return padded_range(values, PAD_SHARE)


def _drawing(data: _Differences) -> Figure:
    shown = _range_shown(data)
    figure = new_figure(HALF, MARGIN_HEIGHT + ROW_HEIGHT * len(data.rows))
    ax = figure.add_subplot()
    set_score_axis(
        ax,
        shown,
        False,
        axis="x",
        most=5,
    )
    ax.grid(axis="x")
    ax.axvline(
        0,
        color=INK,
        lw=1,
        zorder=1,
    )
    for y, row in enumerate(data.rows):
        _draw_row(
            ax,
            data,
            row,
            y,
            shown,
        )
    ax.set_yticks(range(len(data.rows)), [f"against {name}" for name in data.names])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_ylim(len(data.rows) - 0.3, -0.5)
    ax.set_xlabel(f"winner better by ({_unit_of(data.objective)})")
    remove_frame(ax)
    return figure


def _draw_row(
    ax: Axes,
    data: _Differences,
    row: Comparison,
    y: int,
    shown: Range,
) -> None:
    draw_row_line(ax, y)
    ends = quoted_ends(row)
    if ends:
        clamped = [shown.clamp(end) for end in data.scaled(ends)]
        draw_band(
            ax,
            clamped,
            y,
            ACCENT,
        )
    draw_rings(
        ax,
        data.scaled(row["differences"]),
        y,
        shown,
        ACCENT,
    )
    mean = row["mean"]
    assert mean is not None
    draw_mean_line(
        ax,
        data.scale * mean,
        y,
        ACCENT,
    )


def _unit_of(objective: ObjectiveRow) -> str:
    if objective["percent"]:
        return "percentage points"
    return short(str(objective["name"]), 30)


def _caption(data: _Differences) -> str:
    caption = "Difference to the winner, seed by seed; right of the line the winner is better."
    probabilities = [
        f"{name} {probability(row['probability'])}"
        for name, row in zip(data.names, data.rows, strict=True)
        if row["probability"] is not None
    ]
    if probabilities:
        caption += f" Probability that its mean is better: against {listed(probabilities)}."
    return caption


def _alternative_text(data: _Differences) -> str:
    sentences: list[str] = []
    for name, row in zip(data.names, data.rows, strict=True):
        mean = difference(row["mean"], data.objective["percent"])
        sentences.append(
            f"Against {name}: {mean} on average, better on {row['better']} of {row['n']}."
        )
    return f"Paired differences over the seeds. {' '.join(sentences)}"
