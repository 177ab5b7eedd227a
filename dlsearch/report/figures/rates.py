"""The figure of a learning-rate range test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import Range, remove_frame, set_round_yticks
from dlsearch.report.figures.canvas import ACCENT, BAD, FAINT, MUTED, PAPER, new_figure
from dlsearch.report.figures.marks import write_note
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.figures.scales import Scale, ScaleKind
from dlsearch.report.formats import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.inspection.findings import RangeTestFindings

#: One step in so many counts as the start of the test.
STEPS_PER_STARTING_ONE = 20


def draw_rates(found: RangeTestFindings) -> Plate:
    """The loss by the learning rate: as measured, smoothed, and what it suggests."""
    caption = _caption(found)
    return Plate(
        key="lr-range",
        title="Learning-rate range test",
        caption=caption,
        alt=caption,
        wide=_drawing(found, WIDE),
        narrow=_drawing(found, NARROW),
        size=PlateSize.FULL,
    )


def _range_shown(smooth: list[float]) -> Range:
    """From the least loss to that of the start, or to the median where that is larger."""
    starting = smooth[: max(1, len(smooth) // STEPS_PER_STARTING_ONE)]
    start = sum(starting) / len(starting)
    median = sorted(smooth)[len(smooth) // 2]
    low = min(smooth)
    high = max(start, median)
    pad = 0.12 * (high - low) or max(abs(high) * 0.05, 1e-6)
    return Range(low - pad, high + 2 * pad)


def _drawing(found: RangeTestFindings, width: int) -> Figure:
    shown = _range_shown(found["smooth"])
    figure = new_figure(width, 300)
    ax = figure.add_subplot()
    ax.set_xscale("log")
    ax.set_ylim(shown.low, shown.high)
    ax.set_xlim(found["rates"][0], found["rates"][-1])
    _shade_falling_part(ax, found)
    _draw_losses(ax, found, shown)
    if found["suggestion"] is not None:
        _mark_suggestion(
            ax,
            found,
            found["suggestion"],
            shown,
        )
    _set_axes(ax, found, width)
    return figure


def _shade_falling_part(ax: Axes, found: RangeTestFindings) -> None:
    if found["begins"] is None or found["least"] is None:
        return
    ax.axvspan(
        found["begins"],
        found["least"],
        color=FAINT,
        lw=0,
        zorder=0,
    )


def _draw_losses(ax: Axes, found: RangeTestFindings, shown: Range) -> None:
    steps = zip(found["rates"], found["losses"], strict=True)
    inside = [(rate, loss) for rate, loss in steps if not shown.is_outside(loss)]
    ax.plot(
        [rate for rate, _ in inside],
        [loss for _, loss in inside],
        ls="none",
        marker="o",
        ms=2.4,
        mfc=MUTED,
        mec="none",
        alpha=0.55,
    )
    ax.plot(
        found["rates"],
        found["smooth"],
        color=ACCENT,
        lw=1.8,
    )


def _mark_suggestion(
    ax: Axes,
    found: RangeTestFindings,
    suggestion: float,
    shown: Range,
) -> None:
    rates = found["rates"]
    distances = [abs(rate - suggestion) for rate in rates]
    nearest = distances.index(min(distances))
    ax.axvline(suggestion, color=BAD, lw=1.0)
    ax.plot(
        [suggestion],
        [found["smooth"][nearest]],
        "o",
        ms=5.5,
        mfc=PAPER,
        mec=BAD,
        mew=1.3,
        zorder=4,
    )
    middle = (rates[0] * rates[-1]) ** 0.5
    to_the_left = suggestion > middle
    write_note(
        ax,
        f"steepest: {number(suggestion)}",
        (suggestion, shown.high),
        (-4 if to_the_left else 4, -10),
        color=BAD,
        fontsize=8.5,
        ha="right" if to_the_left else "left",
    )


def _set_axes(ax: Axes, found: RangeTestFindings, width: int) -> None:
    first = found["rates"][0]
    last = found["rates"][-1]
    scale = Scale(
        "lr",
        ScaleKind.LOG,
        first,
        last,
    )
    ticks = scale.tick_marks(8 if is_spacious(width) else 5)
    places = [first * (last / first) ** place for place, _ in ticks]
    ax.set_xticks(places, [name for _, name in ticks])
    ax.minorticks_off()
    set_round_yticks(ax, 5)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_xlabel("learning rate")
    ax.set_title("training loss")
    remove_frame(ax)


def _caption(found: RangeTestFindings) -> str:
    rates = found["rates"]
    caption = (
        f"Loss of each of {len(rates)} training steps (dots) and its moving average (line), the"
        f" learning rate growing from {number(found['low'])} to {number(rates[-1])}"
    )
    caption += ", where it had diverged." if found["diverged"] else "."
    if found["suggestion"] is None:
        return caption + " The loss never falls: nothing can be suggested."
    return caption + (
        f" Shaded: from where the loss begins to fall ({number(found['begins'])}) to where it is"
        f" least ({number(found['least'])}); it falls most steeply at"
        f" {number(found['suggestion'])}."
    )
