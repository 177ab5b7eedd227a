"""The figure of the learning curves of a search: the leaders before the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import (
    Range,
    focused_range,
    objective_label,
    remove_frame,
    set_round_xticks,
    set_score_axis,
)
from dlsearch.report.figures.canvas import ACCENT, MUTED, new_figure
from dlsearch.report.figures.inputs import find_trial, standing_of
from dlsearch.report.figures.marks import thin_trials, write_note
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import listed
from dlsearch.report.progress import progress_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.config.progress import ProgressUnit
    from dlsearch.report.facts.contents import ObjectiveRow, Report, TrialRow

#: Curves of other trials that are drawn behind those of the leaders.
MOST_OTHERS = 60


@dataclass(frozen=True)
class _Curves:
    """What the figure shows: the leaders, the best first, and a selection of the others."""

    objective: ObjectiveRow
    leaders: list[TrialRow]
    others: list[TrialRow]
    shown: Range
    unit: ProgressUnit


def draw_curves(report: Report) -> Plate | None:
    """Learning curves of the leaders before those of the others."""
    if not report["leaders"] or len(report["objectives"]) > 1:
        return None
    data = _collect(report)
    caption = _caption(data)
    return Plate(
        key="curves",
        title="Curves of the leaders",
        caption=caption,
        alt=f"{data.objective['name']} by {data.unit}. {caption}",
        wide=_drawing(data),
    )


def _collect(report: Report) -> _Curves:
    objective = report["objectives"][0]
    numbers = report["leaders"]
    found = [find_trial(report, number) for number in numbers]
    leaders = [trial for trial in found if trial is not None]
    others = [
        trial
        for trial in report["trials"]
        if len(trial["intermediate"]) > 1 and trial["number"] not in numbers
    ]
    thinned = thin_trials(others, objective["maximize"], MOST_OTHERS)
    scores = [value for trial in leaders for _, value in trial["intermediate"]]
    scores += [standing_of(trial) for trial in thinned]
    return _Curves(
        objective=objective,
        leaders=leaders,
        others=thinned,
        shown=focused_range(scores, objective["maximize"]),
        unit=progress_unit(report["study"]),
    )


def _drawing(data: _Curves) -> Figure:
    figure = new_figure(HALF, 290)
    ax = figure.add_subplot()
    set_score_axis(ax, data.shown, data.objective["percent"])
    for trial in data.others:
        _draw_other(ax, trial)
    for trial in reversed(data.leaders):
        _draw_leader(ax, trial, best=trial is data.leaders[0])
    _label_ends(ax, data.leaders)
    _set_progress_axis(ax, data)
    ax.set_title(objective_label(data.objective))
    remove_frame(ax)
    return figure


def _draw_other(ax: Axes, trial: TrialRow) -> None:
    epochs, scores = zip(*trial["intermediate"], strict=True)
    ax.plot(
        epochs,
        scores,
        color=MUTED,
        lw=0.6,
        alpha=0.35,
    )


def _draw_leader(ax: Axes, trial: TrialRow, *, best: bool) -> None:
    epochs, scores = zip(*trial["intermediate"], strict=True)
    ax.plot(
        epochs,
        scores,
        color=ACCENT,
        lw=1.9 if best else 1.0,
        alpha=1 if best else 0.65,
    )
    best_epoch = trial["best_epoch"]
    if best_epoch is not None and best_epoch in epochs:
        ax.plot(
            [best_epoch],
            [scores[epochs.index(best_epoch)]],
            "o",
            ms=3.6,
            color=ACCENT,
        )


def _set_progress_axis(ax: Axes, data: _Curves) -> None:
    first = min(at for trial in data.leaders for at, _ in trial["intermediate"])
    drawn = [*data.leaders, *data.others]
    last = max(at for trial in drawn for at, _ in trial["intermediate"])
    ax.set_xlim(first, last)
    set_round_xticks(ax, 6, whole=True)
    ax.set_xlabel(data.unit)


def _label_ends(ax: Axes, leaders: list[TrialRow]) -> None:
    """Number each curve at its end, with a gap between the numbers."""
    low, high = ax.get_ylim()
    gap = 0.05 * (high - low)
    ends = sorted(_end_of(trial) for trial in leaders)
    heights = _spread_heights([y for y, _, _ in ends], gap, high)
    right = max(x for _, x, _ in ends)
    for height, (y, x, number) in zip(heights, ends, strict=True):
        write_note(
            ax,
            str(number),
            (right, height),
            (5, -3),
            color=ACCENT,
            fontsize=8,
            weight="bold" if number == leaders[0]["number"] else "normal",
        )
        if x < right:
            _draw_leader_line(ax, (x, right), (y, height))


def _end_of(trial: TrialRow) -> tuple[float, int, int]:
    """The last score of a trial, its epoch, and the trial's number."""
    epoch, value = trial["intermediate"][-1]
    return value, epoch, trial["number"]


def _spread_heights(heights: list[float], gap: float, highest: float) -> list[float]:
    """The heights from the lowest up, a gap apart; all are lowered where the last is too high."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    shift = max(0.0, placed[-1] - highest + gap / 2)
    return [height - shift for height in placed]


def _draw_leader_line(ax: Axes, xs: tuple[float, float], ys: tuple[float, float]) -> None:
    """A dotted line from the end of a short curve to its number."""
    ax.plot(
        xs,
        ys,
        color=ACCENT,
        lw=0.5,
        ls=(0, (1, 2)),
        alpha=0.6,
    )


def _caption(data: _Curves) -> str:
    names = listed([str(trial["number"]) for trial in data.leaders])
    several = len(data.leaders) > 1
    subject = "Trials" if several else "Trial"
    emphasis = ", the best one bold," if several else ","
    caption = f"{subject} {names} in colour{emphasis} with a dot at the best {data.unit}"
    caption += "; other trials grey." if data.others else "."
    if data.shown.cut:
        if data.objective["maximize"]:
            caption += " Scores below the axis are cut off."
        else:
            caption += " Higher scores are cut off."
    return caption
