"""The figure of the curves over the seeds: mean, extent, best epochs and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import (
    Range,
    focused_range,
    objective_label,
    remove_frame,
    set_round_xticks,
    set_score_axis,
)
from dlsearch.report.figures.canvas import PAPER, new_figure
from dlsearch.report.figures.confirmation.rows import colour_of
from dlsearch.report.figures.marks import write_note
from dlsearch.report.figures.plate import HALF, Plate, capitalised
from dlsearch.report.formats import listed
from dlsearch.report.progress import progress_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.config.progress import ProgressUnit
    from dlsearch.report.facts.contents import FinalistRow, ReplicaRow, Report

#: Scores from this share of the epochs on set the range. In the first epochs every training rises:
#: they would press what tells the seeds apart into one line.
LATE_SHARE = 0.3
#: Distance between names at the ends of the curves, as a share of the range.
NAME_DISTANCE = 0.06


def draw_seed_band(report: Report) -> Plate | None:
    """The winner's and the default's curves over the seeds: mean, extent, best epochs and ends."""
    confirmation = report["confirmation"]
    if confirmation is None:
        return None
    rows = [
        row
        for row in confirmation["finalists"]
        if (row["winner"] or row["default"]) and len(row["band"]) > 1
    ]
    if not rows:
        return None
    objective = report["objectives"][0]
    unit = progress_unit(report["study"])
    caption = _caption(rows, unit)
    return Plate(
        key="seeds",
        title="The winner over its seeds",
        caption=caption,
        alt=f"{objective['name']} by {unit}. {caption}",
        wide=_drawing(report, rows),
    )


def _drawing(report: Report, rows: Sequence[FinalistRow]) -> Figure:
    objective = report["objectives"][0]
    epochs = [band[0] for row in rows for band in row["band"]]
    last_epoch = max(epochs)
    shown = _range_shown(rows, last_epoch, objective["maximize"])
    figure = new_figure(HALF, 290)
    ax = figure.add_subplot()
    set_score_axis(ax, shown, objective["percent"])
    for row in sorted(rows, key=lambda row: row["winner"]):
        _draw_band(ax, row)
        for replica in row["replicas"]:
            if replica["value"] is not None:
                _mark_replica(
                    ax,
                    replica,
                    shown,
                    last_epoch,
                    colour_of(row),
                )
    ax.set_xlim(min(epochs), last_epoch)
    _name_ends(ax, rows)
    set_round_xticks(ax, 6, whole=True)
    ax.set_xlabel(progress_unit(report["study"]))
    ax.set_title(objective_label(objective))
    remove_frame(ax)
    return figure


def _range_shown(rows: Sequence[FinalistRow], last_epoch: int, maximize: bool) -> Range:
    scores: list[float] = []
    for row in rows:
        for epoch, _, least, _, most in row["band"]:
            if epoch >= LATE_SHARE * last_epoch:
                scores += [least, most]
    return focused_range(scores, maximize)


def _draw_band(ax: Axes, row: FinalistRow) -> None:
    colour = colour_of(row)
    epochs = [epoch for epoch, _, _, _, _ in row["band"]]
    ax.fill_between(
        epochs,
        [least for _, _, least, _, _ in row["band"]],
        [most for _, _, _, _, most in row["band"]],
        color=colour,
        alpha=0.25,
        lw=0,
    )
    ax.plot(
        epochs,
        [mean for _, _, _, mean, _ in row["band"]],
        color=colour,
        lw=1.8 if row["winner"] else 1.1,
    )


def _mark_replica(
    ax: Axes,
    replica: ReplicaRow,
    shown: Range,
    last_epoch: int,
    colour: str,
) -> None:
    """A ring at a replica's best epoch, and an upright line where it stopped early."""
    points = dict(replica["intermediate"])
    best_epoch = replica["best_epoch"]
    if best_epoch in points and not shown.is_outside(points[best_epoch]):
        ax.plot(
            [best_epoch],
            [points[best_epoch]],
            "o",
            ms=3.6,
            mfc=PAPER,
            mec=colour,
            mew=0.9,
            zorder=4,
        )
    end = max(points, default=last_epoch)
    if end < last_epoch and not shown.is_outside(points[end]):
        ax.plot(
            [end],
            [points[end]],
            "|",
            ms=8,
            mec=colour,
            mew=1.2,
            zorder=4,
        )


def _name_ends(ax: Axes, rows: Sequence[FinalistRow]) -> None:
    low, high = ax.get_ylim()
    gap = NAME_DISTANCE * (high - low)
    height = low - 1
    right = max(row["band"][-1][0] for row in rows)
    for row in sorted(rows, key=_last_mean):
        height = min(max(_last_mean(row), height + gap), high)
        write_note(
            ax,
            _short_name(row),
            (right, height),
            (5, -3),
            color=colour_of(row),
            fontsize=8,
            weight="bold" if row["winner"] else "normal",
        )


def _last_mean(row: FinalistRow) -> float:
    _, _, _, mean, _ = row["band"][-1]
    return mean


def _short_name(row: FinalistRow) -> str:
    if row["default"]:
        return "default"
    return "winner" if row["trial_number"] is None else str(row["trial_number"])


def _caption(rows: Sequence[FinalistRow], unit: ProgressUnit) -> str:
    looks = [" (the winner, in colour)" if row["winner"] else " (grey)" for row in rows]
    names = [row["name"] + look for row, look in zip(rows, looks, strict=True)]
    caption = (
        f"{listed(names)}: mean over the seeds and the extent from the least to the most; a ring"
        f" marks each replica's best {unit}"
    )
    if any(_stopped_early(row) for row in rows):
        caption += ", an upright line where one stopped early."
    else:
        caption += "; none stopped before the others."
    return capitalised(caption)


def _stopped_early(row: FinalistRow) -> bool:
    """Whether a replica ended before the longest of the same configuration."""
    last_epoch = row["band"][-1][0]
    return any(
        replica["intermediate"][-1][0] < last_epoch
        for replica in row["replicas"]
        if replica["value"] is not None and replica["intermediate"]
    )
