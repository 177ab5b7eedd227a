"""What the figures of the confirmation share: names and colours of finalists, marks in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report.facts.intervals import quote_interval
from dlsearch.report.figures.canvas import ACCENT, FAINT, MUTED, PAPER
from dlsearch.report.formats import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from dlsearch.report.facts.contents import FinalistRow
    from dlsearch.report.facts.intervals import Interval, MeanEstimate
    from dlsearch.report.figures.axes import Range
    from dlsearch.report.figures.marks import Look, Place

#: A wide line with square ends, so that it is as long as the interval.
BAND_LOOK: Look = {
    "lw": 6,
    "alpha": 0.28,
    "solid_capstyle": "butt",
}
#: Share of the axis within which two marks would cover one another.
MARK_WIDTH = 0.008
#: Distance of marks that are set below one another, of a row of one.
LINE_DISTANCE = 0.11
#: Letters of an option's name.
MOST_LETTERS = 20
#: Share by which a range is wider than the replicas, of which each one counts.
PAD_SHARE = 0.07


def colour_of(finalist: FinalistRow) -> str:
    """The accent for the winner, grey for the others."""
    return ACCENT if finalist["winner"] else MUTED


def short_name(finalist: FinalistRow) -> str:
    """How a figure names a finalist: ``trial 17``, ``default (0)``; of a comparison its option."""
    number = finalist["trial_number"]
    if finalist["arm"] is not None:
        return short(finalist["arm"], MOST_LETTERS)
    if finalist["default"]:
        return "default" if number is None else f"default ({number})"
    return "no trial" if number is None else f"trial {number}"


def replica_scores(finalist: FinalistRow) -> list[float]:
    """The scores of the replicas that completed."""
    return [r["value"] for r in finalist["replicas"] if r["value"] is not None]


def mean_of(finalist: FinalistRow) -> float:
    """The mean of a finalist that has one."""
    mean = finalist["mean"]
    assert mean is not None
    return mean


def draw_row_line(ax: Axes, y: float) -> None:
    """The faint line of a row."""
    ax.axhline(
        y,
        color=FAINT,
        lw=1,
        zorder=0,
    )


def draw_band(
    ax: Axes,
    ends: Interval | list[float],
    y: float,
    colour: str,
    **look: Any,
) -> None:
    """The band of an interval in a row."""
    ax.plot(
        ends,
        [y, y],
        color=colour,
        **look,
        **BAND_LOOK,
    )


def draw_rings(
    ax: Axes,
    values: Sequence[float],
    y: float,
    shown: Range,
    colour: str,
) -> None:
    """A ring for each value along a row; those that would cover one another are stacked."""
    places = stack_marks(values, y + 0.22, shown)
    ax.plot(
        [x for x, _ in places],
        [height for _, height in places],
        ls="none",
        marker="o",
        ms=4.4,
        mew=0.8,
        mfc=PAPER,
        mec=colour,
        zorder=4,
        clip_on=False,
    )


def stack_marks(values: Sequence[float], y: float, shown: Range) -> list[Place]:
    """Places of marks along a row; those that would cover one another go below one another."""
    near = MARK_WIDTH * shown.span
    last_of_lines: list[float] = []
    places: list[Place] = []
    for x in sorted(values):
        line = _free_line(last_of_lines, x, near)
        last_of_lines[line : line + 1] = [x]
        places.append((x, y + LINE_DISTANCE * line))
    return places


def _free_line(last_of_lines: Sequence[float], x: float, near: float) -> int:
    """The first line whose last mark does not reach `x`, else a new one."""
    for line, last in enumerate(last_of_lines):
        if x - last > near:
            return line
    return len(last_of_lines)


def draw_mean_line(
    ax: Axes,
    x: float,
    y: float,
    colour: str,
) -> None:
    """An upright line at a mean."""
    ax.plot(
        [x] * 2,
        [y - 0.17, y + 0.17],
        color=colour,
        lw=2.2,
        zorder=5,
    )


def quoted_ends(row: MeanEstimate) -> Interval | tuple[()]:
    """Both ends of the interval that is quoted of an estimate; none where it has none."""
    quoted = quote_interval(row)
    return () if quoted is None else quoted.ends


def ends_in_range(row: MeanEstimate) -> Interval | tuple[()]:
    """The same, where the axis should hold them: those of two values reach many times as far."""
    return quoted_ends(row) if row["n"] > 2 else ()
