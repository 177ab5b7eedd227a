"""The slices: the score against each hyperparameter alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import Range, focused_range, remove_frame, set_score_axis
from dlsearch.report.figures.canvas import INK, new_figure
from dlsearch.report.figures.inputs import find_trial, standing_of
from dlsearch.report.figures.marks import (
    draw_best_ring,
    draw_default_diamond,
    draw_trials,
    thin_trials,
)
from dlsearch.report.figures.plate import THIRD, Plate, PlateSize
from dlsearch.report.figures.scales import Scale, ScaleKind, Tick, by_importance
from dlsearch.report.formats import number, plural, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import ObjectiveRow, Report, TrialRow

#: Slices that are drawn; a study with more keeps the most important.
MOST_SLICES = 12
#: Above this number of trials the marks are small.
MANY_TRIALS = 100
MOST_TICKS = 8
#: Letters that the labels of all categories of an axis share.
LETTERS_OF_AN_AXIS = 36

_SCALES_IN_WORDS = {
    ScaleKind.LOG: "logarithmic axis",
    ScaleKind.LINEAR: "linear axis",
    ScaleKind.CATEGORICAL: "by category",
}


@dataclass(frozen=True)
class _Slices:
    """What all slices of a report share."""

    objective: ObjectiveRow
    trials: list[TrialRow]
    shown: Range
    default: TrialRow | None
    best: TrialRow | None


def draw_slices(report: Report, scales: Sequence[Scale]) -> list[Plate]:
    """Score against each hyperparameter alone, the most important first."""
    trials = trials_with_score(report)
    if len(trials) < 2 or not any(trial["scored"] for trial in trials):
        return []
    objective = report["objectives"][0]
    scores = [standing_of(trial) for trial in trials]
    data = _Slices(
        objective=objective,
        trials=thin_trials(trials, objective["maximize"]),
        shown=focused_range(scores, objective["maximize"]),
        default=find_trial(report, report["default"]),
        best=find_trial(report, report["best"]),
    )
    ranked = by_importance(report, scales)[:MOST_SLICES]
    return [_draw_slice(data, scale, index) for index, scale in enumerate(ranked)]


def trials_with_score(report: Report) -> list[TrialRow]:
    """The completed and the pruned trials that have reported a score."""
    return [
        trial
        for trial in report["trials"]
        if trial["state"] in ("complete", "pruned") and trial["standing"] is not None
    ]


def _draw_slice(data: _Slices, scale: Scale, index: int) -> Plate:
    return Plate(
        key=f"slice-{index + 1:02d}",
        title=scale.name,
        caption="",
        alt=_alternative_text(data, scale),
        wide=_drawing(data, scale, most_important=index == 0),
        size=PlateSize.THIRD,
    )


def _drawing(data: _Slices, scale: Scale, *, most_important: bool) -> Figure:
    figure = new_figure(THIRD, 225)
    ax = figure.add_subplot()
    set_score_axis(
        ax,
        data.shown,
        data.objective["percent"],
        most=4,
    )
    for state in ("pruned", "complete"):
        _draw_state(
            ax,
            data,
            scale,
            state,
        )
    _mark_default_and_best(ax, data, scale)
    set_scale_xticks(ax, scale)
    ax.set_title(
        short(scale.name, 34),
        color=INK,
        fontweight="bold" if most_important else "normal",
    )
    remove_frame(ax)
    return figure


def _draw_state(
    ax: Axes,
    data: _Slices,
    scale: Scale,
    state: str,
) -> None:
    size = {"ms": 3.4} if len(data.trials) > MANY_TRIALS else {}
    places: list[tuple[float, float]] = []
    for trial in data.trials:
        x = scale.place_of_trial(trial)
        if trial["state"] == state and x is not None:
            places.append((x, data.shown.clamp(standing_of(trial))))
    draw_trials(
        ax,
        state,
        places,
        **size,
    )


def _mark_default_and_best(ax: Axes, data: _Slices, scale: Scale) -> None:
    for trial, draw_mark in (
        (data.default, draw_default_diamond),
        (data.best, draw_best_ring),
    ):
        if trial is None or not trial["scored"]:
            continue
        x = scale.place_of_trial(trial)
        if x is not None:
            draw_mark(ax, x, data.shown.clamp(trial["values"][0]))


def set_scale_xticks(ax: Axes, scale: Scale) -> None:
    """The ticks of a hyperparameter along x."""
    length = 12
    if scale.categorical:
        length = max(3, LETTERS_OF_AN_AXIS // max(1, len(scale.categories)))
    ticks = thin_ticks(scale.tick_marks(5, length))
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([place for place, _ in ticks], [text for _, text in ticks])


def thin_ticks(ticks: list[Tick]) -> list[Tick]:
    """Every k-th tick, where there are more than can be read."""
    if len(ticks) <= MOST_TICKS:
        return ticks
    step = -(-len(ticks) // MOST_TICKS)
    return ticks[::step]


def _alternative_text(data: _Slices, scale: Scale) -> str:
    text = (
        f"{data.objective['name']} against {scale.name}, {_SCALES_IN_WORDS[scale.kind]},"
        f" {plural(len(data.trials), 'trial')}"
    )
    if data.best is not None:
        text += f"; best {number(data.best['params'].get(scale.name))}"
    return f"{text}."
