"""The timeline: what each slot did when, and how many were busy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from dlsearch.report.facts.contents import Bar, Compute, Report
from dlsearch.report.figures.axes import remove_frame, set_round_xticks
from dlsearch.report.figures.canvas import ACCENT, BAD, FAINT, INK, MUTED, PAPER, new_figure
from dlsearch.report.figures.marks import Look, write_note
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.figures.search.occupancy import Clock, Span, busy_level, merge_bars
from dlsearch.report.formats import duration, percent, plural, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Rows that are labelled one by one; beyond, slots are lanes without a name.
MOST_LABELLED = 16
#: Attempts that are drawn one by one; beyond, each half point of a lane shows what filled most of
#: it.
MOST_DRAWN = 2000
#: Attempts from which none is numbered.
DENSE = 300
#: Height of a bar, of a lane of one.
THICKNESS = 0.68
#: Width in CSS pixels that the names of the slots take.
MARGIN = 120
#: Width in CSS pixels of a digit, and of the gap beside a number.
DIGIT_WIDTH = 7
NUMBER_PAD = 4
#: Width in CSS pixels that the cross of a failed attempt takes.
CROSS_WIDTH = 8


STATE_LOOKS: Mapping[str, Look] = {
    "complete": {
        "facecolor": ACCENT,
        "alpha": 0.85,
        "edgecolor": PAPER,
        "lw": 0.5,
    },
    "pruned": {
        "facecolor": ACCENT,
        "alpha": 0.3,
        "edgecolor": PAPER,
        "lw": 0.5,
    },
    "failed": {
        "facecolor": PAPER,
        "edgecolor": BAD,
        "lw": 0.9,
    },
    "running": {
        "facecolor": PAPER,
        "edgecolor": ACCENT,
        "lw": 0.9,
    },
    "waiting": {
        "facecolor": PAPER,
        "edgecolor": MUTED,
        "lw": 0.9,
    },
}
_LOOKS_IN_WORDS = {
    "complete": "completed solid",
    "pruned": "pruned pale",
    "failed": "failed and lost attempts outlined with a cross at their end",
    "running": "running outlined",
}


def draw_timeline(report: Report) -> Plate | None:
    """Attempts by slot over time, above the number of busy slots."""
    compute = report["compute"]
    bars = [Bar(*bar) for bar in compute["bars"]]
    if not bars:
        return None
    start = min(bar.start for bar in bars)
    end = max(bar.end for bar in bars)
    if end <= start:
        return None
    clock = Clock(start, end, compute["gaps"])
    caption = _caption(bars, compute["utilisation"])
    return Plate(
        key="timeline",
        title="Timeline",
        caption=caption,
        alt=_alternative_text(
            len(bars),
            len(compute["slots"]),
            clock,
            caption,
        ),
        wide=_drawing(
            compute,
            bars,
            clock,
            WIDE,
        ),
        narrow=_drawing(
            compute,
            bars,
            clock,
            NARROW,
        ),
        size=PlateSize.FULL,
    )


def _drawing(
    compute: Compute,
    bars: Sequence[Bar],
    clock: Clock,
    width: int,
) -> Figure:
    slots = compute["slots"]
    row_height = 22 if len(slots) <= MOST_LABELLED else max(4, 352 // len(slots))
    lanes_height = row_height * len(slots)
    figure = new_figure(width, 150 + lanes_height)
    lanes, level = figure.subplots(
        2,
        1,
        sharex=True,
        height_ratios=[lanes_height + 8, 62],
    )
    _draw_lanes(
        lanes,
        slots,
        bars,
        clock,
        width,
    )
    _draw_level(
        level,
        compute,
        clock,
        width,
    )
    _draw_gaps(lanes, level, clock)
    return figure


def _draw_lanes(
    ax: Axes,
    slots: Sequence[str],
    bars: Sequence[Bar],
    clock: Clock,
    width: int,
) -> None:
    lanes = {name: lane for lane, name in enumerate(slots)}
    for lane in range(len(slots)):
        ax.axhspan(
            lane - THICKNESS / 2,
            lane + THICKNESS / 2,
            color=FAINT,
            lw=0,
            zorder=0,
        )
    pixels_per_unit = (width - MARGIN) / clock.total
    if len(bars) > MOST_DRAWN:
        _draw_merged_bars(
            ax,
            bars,
            lanes,
            clock,
            pixels_per_unit,
        )
    else:
        dense = len(bars) >= DENSE or len(slots) > MOST_LABELLED
        for bar in bars:
            span = (lanes[bar.slot], clock.place_of(bar.start), clock.place_of(bar.end))
            _draw_bar(ax, bar.state, span)
            if not dense:
                _label_bar(
                    ax,
                    bar,
                    span,
                    pixels_per_unit,
                )
    _set_lane_axis(ax, slots, width)


def _draw_merged_bars(
    ax: Axes,
    bars: Sequence[Bar],
    lanes: Mapping[str, int],
    clock: Clock,
    pixels_per_unit: float,
) -> None:
    for state, spans in merge_bars(
        bars,
        lanes,
        clock,
        pixels_per_unit,
    ).items():
        look = {**STATE_LOOKS[state], "lw": 0}
        ax.add_patch(PathPatch(_outline_of(spans), **look, zorder=2))


def _draw_bar(ax: Axes, state: str, span: Span) -> None:
    lane, left, right = span
    bar = Rectangle(
        (left, lane - THICKNESS / 2),
        right - left,
        THICKNESS,
        **STATE_LOOKS[state],
        zorder=2,
    )
    ax.add_patch(bar)


def _label_bar(
    ax: Axes,
    bar: Bar,
    span: Span,
    pixels_per_unit: float,
) -> None:
    """Cross a failed attempt, and write its trial's number where it fits."""
    lane, left, right = span
    free_width = (right - left) * pixels_per_unit
    if bar.state == "failed":
        ax.plot(
            [right],
            [lane],
            "x",
            color=BAD,
            ms=4.5,
            mew=1.3,
            zorder=4,
            clip_on=False,
        )
        free_width -= CROSS_WIDTH
    text = str(bar.number)
    if free_width > DIGIT_WIDTH * len(text) + NUMBER_PAD:
        ax.text(
            (left + right) / 2,
            lane,
            text,
            fontsize=7.5,
            color=PAPER if bar.state == "complete" else INK,
            ha="center",
            va="center_baseline",
            zorder=5,
        )


def _set_lane_axis(ax: Axes, slots: Sequence[str], width: int) -> None:
    ax.set_ylim(len(slots) - 0.5, -0.5)
    ax.tick_params(axis="x", length=0, labelbottom=False)
    ax.spines["bottom"].set_visible(False)
    if len(slots) <= MOST_LABELLED:
        length = 22 if is_spacious(width) else 12
        ax.set_yticks(range(len(slots)), [short(slot, length) for slot in slots])
    else:
        ax.set_yticks([])
        ax.set_title(plural(len(slots), "slot"))
    remove_frame(ax)


def _draw_level(
    ax: Axes,
    compute: Compute,
    clock: Clock,
    width: int,
) -> None:
    steps = [(clock.place_of(moment), busy) for moment, busy in compute["busy"]]
    xs, ys = busy_level(steps, width)
    ax.fill_between(
        xs,
        ys,
        step="post",
        color=ACCENT,
        alpha=0.18,
        lw=0,
    )
    ax.step(
        xs,
        ys,
        where="post",
        color=ACCENT,
        lw=1.1,
    )
    top = max(len(compute["slots"]), *ys)
    ax.set_ylim(0, top * 1.06)
    ax.set_yticks([0, top])
    ax.grid(axis="y")
    ax.set_title("slots busy")
    ax.set_xlim(0, clock.total)
    ax.set_xlabel(_time_label(clock))
    set_round_xticks(ax, 8 if is_spacious(width) else 5)
    remove_frame(ax)


def _time_label(clock: Clock) -> str:
    if clock.gaps_on_axis():
        # Past a gap the axis no longer counts what a clock would.
        return f"{clock.name} in which the study ran"
    return f"{clock.name} since the first trial began"


def _draw_gaps(lanes: Axes, level: Axes, clock: Clock) -> None:
    for x, seconds in clock.gaps_on_axis():
        for ax in (lanes, level):
            ax.axvline(
                x,
                color=MUTED,
                lw=0.8,
                ls=(0, (2, 2)),
            )
        write_note(
            lanes,
            f"idle {duration(seconds)}",
            (x, -0.7),
            (0, 3),
            ha="center",
            fontsize=8,
            color=MUTED,
        )


def _outline_of(spans: Sequence[Span]) -> Path:
    """One path for all of them: an element each would make the figure as large as its study."""
    corners: list[tuple[float, float]] = []
    for lane, left, right in spans:
        top = lane - THICKNESS / 2
        bottom = lane + THICKNESS / 2
        corners += [(left, top), (right, top), (right, bottom), (left, bottom)]
        corners.append((left, 0))  # of a path's end matplotlib reads no place
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(corners, codes * len(spans))


def _caption(bars: Sequence[Bar], utilisation: float | None) -> str:
    states = {bar.state for bar in bars}
    looks = ", ".join(words for state, words in _LOOKS_IN_WORDS.items() if state in states)
    caption = f"One bar an attempt ({looks})"
    if len(bars) < DENSE:
        caption += ", with its trial's number where there is room."
    else:
        caption += "."
    if len(bars) > MOST_DRAWN:
        caption += " Bars too thin to tell apart are drawn as one."
    if utilisation is not None:
        caption += f" The slots were busy {percent(utilisation)} of the time."
    return caption


def _alternative_text(
    n_bars: int,
    n_slots: int,
    clock: Clock,
    caption: str,
) -> str:
    length = duration(clock.total * clock.unit)
    return (
        f"Timeline of {plural(n_bars, 'attempt')} on {plural(n_slots, 'slot')}"
        f" over {length}. {caption}"
    )
