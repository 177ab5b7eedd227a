"""The figure of every replica: a row a finalist, with mean, interval and search score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report.facts.intervals import quote_interval
from dlsearch.report.figures.axes import (
    Range,
    objective_label,
    padded_range,
    remove_frame,
    set_score_axis,
)
from dlsearch.report.figures.canvas import ACCENT, INK, MUTED, PAPER, new_figure
from dlsearch.report.figures.confirmation.rows import (
    BAND_LOOK,
    PAD_SHARE,
    colour_of,
    draw_band,
    draw_mean_line,
    draw_rings,
    draw_row_line,
    ends_in_range,
    mean_of,
    quoted_ends,
    replica_scores,
    short_name,
)
from dlsearch.report.figures.marks import draw_mark, key_handle, mark_handle, write_note
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.formats import interval, listed, plural, probability, score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import FinalistRow, ObjectiveRow, Report

MARGIN_HEIGHT = 78
ROW_HEIGHT = 54
_TRIANGLE = {
    "ms": 4.6,
    "mfc": "none",
    "mec": INK,
    "mew": 0.9,
}


def draw_replicas(report: Report) -> Plate | None:
    """Every replica's score, a row a finalist, with mean, interval and the score of the search."""
    confirmation = report["confirmation"]
    if confirmation is None:
        return None
    rows = [finalist for finalist in confirmation["finalists"] if finalist["n"]]
    if not rows:
        return None
    objective = report["objectives"][0]
    shown = _range_shown(rows)
    return Plate(
        key="confirmation",
        title="Every replica",
        caption=_caption(rows),
        alt=_alternative_text(rows, objective),
        wide=_drawing(
            rows,
            shown,
            objective,
            WIDE,
        ),
        narrow=_drawing(
            rows,
            shown,
            objective,
            NARROW,
        ),
        size=PlateSize.FULL,
    )


def _range_shown(rows: Sequence[FinalistRow]) -> Range:
    values: list[float] = []
    for row in rows:
        values += replica_scores(row)
        values += ends_in_range(row)
        if row["search_value"] is not None:
            values.append(row["search_value"])
    return padded_range(values, PAD_SHARE)


def _drawing(
    rows: Sequence[FinalistRow],
    shown: Range,
    objective: ObjectiveRow,
    width: int,
) -> Figure:
    figure = new_figure(width, MARGIN_HEIGHT + ROW_HEIGHT * len(rows))
    ax = figure.add_subplot()
    set_score_axis(
        ax,
        shown,
        objective["percent"],
        axis="x",
        most=7 if is_spacious(width) else 4,
    )
    ax.grid(axis="x")
    for y, row in enumerate(rows):
        _draw_row(
            ax,
            row,
            y,
            shown,
        )
    _name_rows(ax, rows)
    ax.set_xlabel(objective_label(objective))
    remove_frame(ax)
    _write_key(ax, width)
    if is_spacious(width):
        _note_dropped(ax, rows, shown)
    return figure


def _draw_row(
    ax: Axes,
    row: FinalistRow,
    y: int,
    shown: Range,
) -> None:
    colour = colour_of(row)
    draw_row_line(ax, y)
    ends = quoted_ends(row)
    if ends:
        draw_band(
            ax,
            ends,
            y,
            colour,
            zorder=2,
        )
    draw_rings(
        ax,
        replica_scores(row),
        y,
        shown,
        colour,
    )
    draw_mean_line(
        ax,
        mean_of(row),
        y,
        colour,
    )
    if row["search_value"] is not None:
        draw_mark(
            ax,
            row["search_value"],
            y - 0.27,
            "v",
            **_TRIANGLE,
        )


def _name_rows(ax: Axes, rows: Sequence[FinalistRow]) -> None:
    names = [short_name(row) + (" ★" if row["winner"] else "") for row in rows]
    ax.set_yticks(range(len(rows)), names)
    for tick, row in zip(ax.get_yticklabels(), rows, strict=True):
        tick.set_color(INK)
        tick.set_fontweight("bold" if row["winner"] else "normal")
    ax.set_ylim(len(rows) - 0.3, -0.5)


def _write_key(ax: Axes, width: int) -> None:
    spacious = is_spacious(width)
    handles = [
        mark_handle(
            "replica",
            marker="o",
            ms=4.4,
            mfc=PAPER,
            mec=ACCENT,
            mew=0.8,
        ),
        mark_handle(
            "mean",
            marker="|",
            ms=9,
            mec=ACCENT,
            mew=2.2,
        ),
        key_handle("95 % interval", color=ACCENT, **BAND_LOOK),
        mark_handle("in the search", marker="v", **_TRIANGLE),
    ]
    place: Mapping[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.01)}
    if spacious:
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1.01)}
    ax.legend(
        handles=handles,
        ncols=4 if spacious else 2,
        handlelength=1.8,
        handletextpad=0.5,
        **place,
    )


def _note_dropped(ax: Axes, rows: Sequence[FinalistRow], shown: Range) -> None:
    for y, row in enumerate(rows):
        if row["dropped_after"] is None:
            continue
        write_note(
            ax,
            f"dropped after {plural(row['dropped_after'], 'seed')}",
            (shown.high, y),
            (0, 4),
            ha="right",
            fontsize=8,
            color=MUTED,
        )


def _caption(rows: Sequence[FinalistRow]) -> str:
    caption = (
        "One row a configuration, the winner first: a ring each replica, the upright line their"
        " mean, the band its "
    )
    caption += _interval_in_words(rows)
    caption += " The triangle is the score of the search, from one training."
    dropped = [
        _word_dropped(row, row["dropped_after"]) for row in rows if row["dropped_after"] is not None
    ]
    if dropped:
        caption += f" Racing dropped {listed(dropped)}: they were unlikely to win."
    return caption


def _word_dropped(row: FinalistRow, seeds: int) -> str:
    text = f"{short_name(row)} after {plural(seeds, 'seed')}"
    return text if row["chance"] is None else f"{text} ({probability(row['chance'])})"


def _interval_in_words(rows: Sequence[FinalistRow]) -> str:
    quoted = [quote_interval(row) for row in rows]
    methods = sorted({each.method for each in quoted if each is not None})
    if methods:
        return f"95 % interval ({listed(methods)})."
    return "interval, where there is one."


def _alternative_text(rows: Sequence[FinalistRow], objective: ObjectiveRow) -> str:
    sentences = [_row_in_words(row, objective["percent"]) for row in rows]
    return f"{objective['name']} over fresh seeds. {' '.join(sentences)}"


def _row_in_words(row: FinalistRow, percent: bool) -> str:
    mean = score(row["mean"], percent)
    replicas = plural(row["n"], "replica")
    text = f"{short_name(row)}: mean {mean} of {replicas}"
    ends = quoted_ends(row)
    if ends:
        text += f", interval {interval(ends, percent)}"
    return f"{text}."
