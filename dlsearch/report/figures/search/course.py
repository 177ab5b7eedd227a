"""The figure of the course of a search: all trials by number, with the best so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlsearch.report.figures.axes import (
    Range,
    focused_range,
    objective_label,
    remove_frame,
    set_round_xticks,
    set_score_axis,
)
from dlsearch.report.figures.canvas import ACCENT, new_figure
from dlsearch.report.figures.inputs import find_trial
from dlsearch.report.figures.marks import (
    STATE_NAMES,
    draw_best_ring,
    draw_default_diamond,
    draw_trials,
    write_key,
    write_note,
)
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.formats import plural, score
from dlsearch.report.study import TrialState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import ObjectiveRow, Report, TrialRow

#: Above this number of trials the marks are small.
MANY_TRIALS = 200
#: Notes of trials beyond this share of the axis are written to the left of their mark.
RIGHT_PART = 0.7


@dataclass(frozen=True)
class _Course:
    """What the figure shows.

    ``confirmed`` is the winner where fresh seeds chose another trial than the search.
    """

    objective: ObjectiveRow
    trials: list[TrialRow]
    states: list[str]
    scores: list[float]
    shown: Range
    steps: list[tuple[int, float]]
    best: TrialRow | None
    default: TrialRow | None
    confirmed: TrialRow | None
    failures: int

    @property
    def last(self) -> int:
        """The number of the last trial."""
        return self.trials[-1]["number"]

    @property
    def rim(self) -> float:
        """Where trials stand whose score lies outside of the range, or that have none."""
        return self.shown.low if self.objective["maximize"] else self.shown.high


def draw_course(report: Report) -> Plate | None:
    """All trials by number, with the best so far."""
    data = _collect(report)
    if data is None:
        return None
    return Plate(
        key="course",
        title="Course of the search",
        caption=_caption(data),
        alt=_alternative_text(data),
        wide=_drawing(data, WIDE, 340),
        narrow=_drawing(data, NARROW, 290),
        size=PlateSize.FULL,
    )


def _collect(report: Report) -> _Course | None:
    trials = report["trials"]
    scores = [t["standing"] for t in trials if t["standing"] is not None]
    if len(scores) < 2:
        return None
    objective = report["objectives"][0]
    confirmed = None
    if report["winner"] != report["best"]:
        confirmed = _if_scored(find_trial(report, report["winner"]))
    return _Course(
        objective=objective,
        trials=trials,
        states=_states_shown(report),
        scores=scores,
        shown=focused_range(scores, objective["maximize"]),
        steps=report["course"]["best_so_far"],
        best=find_trial(report, report["best"]),
        default=_if_scored(find_trial(report, report["default"])),
        confirmed=confirmed,
        failures=report["accounting"]["counts"][TrialState.FAILED],
    )


def _if_scored(trial: TrialRow | None) -> TrialRow | None:
    return trial if trial is not None and trial["scored"] else None


def _states_shown(report: Report) -> list[str]:
    """The states that trials are in; running ones are shown where any has reported a score."""
    counts = report["accounting"]["counts"]
    any_standing = any(trial["standing"] is not None for trial in report["trials"])
    present = [state for state in STATE_NAMES if counts[TrialState(state)]]
    return [state for state in present if state != "running" or any_standing]


def _drawing(data: _Course, width: int, height: int) -> Figure:
    figure = new_figure(width, height)
    ax = figure.add_subplot()
    set_score_axis(ax, data.shown, data.objective["percent"])
    for state in data.states:
        _draw_state(ax, data, state)
    _draw_best_so_far(ax, data)
    if data.default is not None:
        value = data.shown.clamp(data.default["values"][0])
        draw_default_diamond(ax, data.default["number"], value)
    if data.best is not None:
        _mark_best(ax, data, data.best)
    if data.confirmed is not None:
        _mark_confirmed(ax, data, data.confirmed)
    _set_axes(ax, data, width)
    write_key(
        ax,
        data.states,
        winner=data.best is not None,
        default=data.default is not None,
        **_place_of_key(width),
    )
    return figure


def _draw_state(ax: Axes, data: _Course, state: str) -> None:
    trials = [trial for trial in data.trials if trial["state"] == state]
    size = {"ms": 3.2} if len(data.trials) > MANY_TRIALS else {}
    if state == "failed":
        draw_trials(
            ax,
            state,
            [(trial["number"], data.rim) for trial in trials],
            **size,
        )
        return
    places = [(t["number"], t["standing"]) for t in trials if t["standing"] is not None]
    inside = [place for place in places if not data.shown.is_outside(place[1])]
    beyond = [(number, data.rim) for number, value in places if data.shown.is_outside(value)]
    draw_trials(
        ax,
        state,
        inside,
        **size,
    )
    draw_trials(
        ax,
        state,
        beyond,
        **size,
        alpha=0.45,
    )


def _draw_best_so_far(ax: Axes, data: _Course) -> None:
    if not data.steps:
        return
    numbers = [number for number, _ in data.steps]
    values = [data.shown.clamp(value) for _, value in data.steps]
    final_value = data.steps[-1][1]
    ax.step(
        [*numbers, data.last],
        [*values, final_value],
        where="post",
        color=ACCENT,
        lw=1.5,
        zorder=2,
    )


def _mark_best(ax: Axes, data: _Course, best: TrialRow) -> None:
    number = best["number"]
    value = best["values"][0]
    draw_best_ring(ax, number, value)
    to_the_left = number > RIGHT_PART * data.last
    write_note(
        ax,
        f"trial {number}: {score(value, data.objective['percent'])}",
        (number, value),
        (-7, 5) if to_the_left else (7, 5),
        ha="right" if to_the_left else "left",
        weight="bold",
    )


def _mark_confirmed(ax: Axes, data: _Course, confirmed: TrialRow) -> None:
    number = confirmed["number"]
    value = data.shown.clamp(confirmed["values"][0])
    draw_best_ring(ax, number, value)
    write_note(
        ax,
        f"winner, trial {number}",
        (number, value),
        (0, -15),
        ha="right" if number > RIGHT_PART * data.last else "center",
    )


def _set_axes(ax: Axes, data: _Course, width: int) -> None:
    spacious = is_spacious(width)
    pad = max(0.5, 0.012 * data.last)
    ax.set_xlim(-pad, data.last + pad)
    set_round_xticks(ax, 8 if spacious else 5, whole=True)
    ax.set_xlabel("trial")
    ax.set_title(objective_label(data.objective, 60 if spacious else 30))
    remove_frame(ax)


def _place_of_key(width: int) -> Mapping[str, Any]:
    if is_spacious(width):
        return {"loc": "lower right", "bbox_to_anchor": (1, 1.02)}
    return {
        "loc": "upper left",
        "bbox_to_anchor": (0, -0.2),
        "columns": 3,
    }


def _caption(data: _Course) -> str:
    caption = (
        "Each trial's score by its number; the line is the best so far."
        " Pruned trials stand at their last score"
    )
    caption += "; failed ones on the rim." if data.failures else "."
    if data.shown.cut:
        poorer = "lower" if data.objective["maximize"] else "higher"
        caption += (
            f" The axis shows the better part of the range: {plural(data.shown.cut, 'trial')}"
            f" with a {poorer} score stand pale on the rim."
        )
    return caption


def _alternative_text(data: _Course) -> str:
    text = f"{data.objective['name']} of {plural(len(data.scores), 'trial')} by number. "
    if not data.steps:
        return text + "None is complete."
    number, value = data.steps[-1]
    return text + (
        f"The best so far improves {plural(len(data.steps), 'time')}, last at trial {number}"
        f" with {score(value, data.objective['percent'])}."
    )
