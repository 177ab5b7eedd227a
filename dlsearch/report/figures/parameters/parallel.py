"""The figure of the parallel coordinates: one line a completed trial, through all its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dlsearch.report.figures.axes import Range, focused_range, objective_label, round_ticks
from dlsearch.report.figures.canvas import ACCENT, INK, MUTED, PAPER, new_figure
from dlsearch.report.figures.inputs import scored_trials
from dlsearch.report.figures.marks import Look, thin_trials
from dlsearch.report.figures.parameters.slices import thin_ticks
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize
from dlsearch.report.figures.scales import Scale, Tick, by_importance
from dlsearch.report.formats import listed, number, plural, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import ObjectiveRow, Report, TrialRow

MOST_LINES = 150
MOST_RAILS = 10
MOST_LEADERS = 10
#: One trial in so many is a leader.
TRIALS_PER_LEADER = 5
#: The place of a trial on a rail whose hyperparameter it does not have.
UNSET_PLACE = -0.14
#: Height in CSS pixels of a rail where rails lie, and of the margins.
RAIL_HEIGHT = 46
MARGIN = 30
#: The background of a text that lies on lines.
_TEXT_BOX = {
    "facecolor": PAPER,
    "edgecolor": "none",
    "alpha": 0.8,
    "boxstyle": "square,pad=0.12",
}


@dataclass(frozen=True)
class _Parallel:
    """What the figure shows.

    ``lines`` are drawn in this order, the leaders last; ``front`` is the Pareto set of a study of
    several objectives; ``lacking`` names the hyperparameters that some trial does not have.
    """

    objective: ObjectiveRow
    scales: list[Scale]
    shown: Range
    trials: list[TrialRow]
    lines: list[TrialRow]
    leaders: set[int]
    front: list[TrialRow]
    lacking: set[str]
    best: int | None
    ordered: bool


@dataclass(frozen=True)
class _Rail:
    """One axis of the figure: a hyperparameter's, or the score's, which is the last one."""

    index: int
    name: str
    ticks: list[Tick]
    is_score: bool
    upright: bool

    def point(self, along: float) -> tuple[float, float]:
        """A place of the rail on the figure's axes."""
        return (self.index, along) if self.upright else (along, self.index)

    @property
    def weight(self) -> Literal["bold", "normal"]:
        """Of its name."""
        return "bold" if self.is_score else "normal"


def draw_parallel(report: Report, scales: Sequence[Scale]) -> Plate | None:
    """Parallel coordinates: one line a completed trial, through all its values."""
    trials = scored_trials(report)
    if len(trials) < 2 or not scales:
        return None
    data = _collect(report, trials, scales)
    height_of_lying_rails = RAIL_HEIGHT * (len(data.scales) + 1) + MARGIN
    return Plate(
        key="parallel",
        title="Parallel coordinates",
        caption=_caption(data),
        alt=_alternative_text(data),
        wide=_drawing(
            data,
            WIDE,
            330,
            upright=True,
        ),
        narrow=_drawing(
            data,
            NARROW,
            height_of_lying_rails,
            upright=False,
        ),
        size=PlateSize.FULL,
    )


def _collect(
    report: Report,
    trials: list[TrialRow],
    scales: Sequence[Scale],
) -> _Parallel:
    objective = report["objectives"][0]
    maximize = objective["maximize"]
    sign = -1 if maximize else 1
    ranked = sorted(trials, key=lambda trial: (sign * trial["values"][0], trial["number"]))
    front = [trial for trial in ranked if trial["number"] in report["pareto"]]
    leaders = _leaders_of(ranked, front)
    others = [
        trial
        for trial in thin_trials(trials, maximize, MOST_LINES)
        if trial["number"] not in leaders
    ]
    leading = [trial for trial in reversed(ranked) if trial["number"] in leaders]
    rails = by_importance(report, scales)[:MOST_RAILS]
    return _Parallel(
        objective=objective,
        scales=rails,
        shown=focused_range([trial["values"][0] for trial in trials], maximize),
        trials=trials,
        lines=others + leading,
        leaders=leaders,
        front=front,
        lacking={s.name for s in rails if any(s.name not in t["params"] for t in trials)},
        best=report["best"],
        ordered=bool(report["importances"]["values"]),
    )


def _leaders_of(ranked: Sequence[TrialRow], front: Sequence[TrialRow]) -> set[int]:
    """Numbers of the trials in colour: the Pareto set, or the best fifth, ten at most."""
    candidates = front or ranked
    wanted = len(front) or len(ranked) // TRIALS_PER_LEADER
    count = max(1, min(MOST_LEADERS, wanted))
    return {trial["number"] for trial in candidates[:count]}


def _drawing(
    data: _Parallel,
    width: int,
    height: int,
    *,
    upright: bool,
) -> Figure:
    figure = new_figure(width, height)
    ax = figure.add_subplot()
    for trial in data.lines:
        _draw_line(
            ax,
            data,
            trial,
            upright=upright,
        )
    for rail in _rails_of(data, upright=upright):
        _draw_rail(ax, rail)
    ax.axis("off")
    n = len(data.scales)
    if upright:
        ax.set_xlim(-0.35, n + 0.45)
        ax.set_ylim(-0.18, 1.12)
    else:
        ax.set_xlim(-0.18, 1.08)
        ax.set_ylim(n + 0.5, -0.5)
    return figure


def _draw_line(
    ax: Axes,
    data: _Parallel,
    trial: TrialRow,
    *,
    upright: bool,
) -> None:
    places = [scale.place_of_trial(trial) for scale in data.scales]
    line = [UNSET_PLACE if place is None else place for place in places]
    score = data.shown.clamp(trial["values"][0])
    line.append((score - data.shown.low) / data.shown.span)
    rails = list(range(len(line)))
    xs, ys = (rails, line) if upright else (line, rails)
    ax.plot(
        xs,
        ys,
        solid_joinstyle="round",
        **_look_of(data, trial),
    )


def _look_of(data: _Parallel, trial: TrialRow) -> Look:
    if trial["number"] not in data.leaders:
        return {
            "color": MUTED,
            "lw": 0.6,
            "alpha": 0.4,
            "zorder": 2,
        }
    if trial["number"] == data.best:
        return {
            "color": ACCENT,
            "lw": 2.0,
            "alpha": 1.0,
            "zorder": 3,
        }
    return {
        "color": ACCENT,
        "lw": 1.0,
        "alpha": 0.7,
        "zorder": 3,
    }


def _rails_of(data: _Parallel, *, upright: bool) -> list[_Rail]:
    most_ticks = 5 if upright else 4
    length = 18 if len(data.scales) > 5 else 24
    rails: list[_Rail] = []
    for index, scale in enumerate(data.scales):
        ticks = scale.tick_marks(most_ticks, 10)
        if scale.name in data.lacking:
            ticks = [(UNSET_PLACE, "unset"), *ticks]
        rail = _Rail(
            index=index,
            name=short(scale.name, length),
            ticks=ticks,
            is_score=False,
            upright=upright,
        )
        rails.append(rail)
    score_rail = _Rail(
        index=len(data.scales),
        name=objective_label(data.objective, 24),
        ticks=_score_ticks(data, most_ticks),
        is_score=True,
        upright=upright,
    )
    return [*rails, score_rail]


def _score_ticks(data: _Parallel, most: int) -> list[Tick]:
    ticks: list[Tick] = []
    for value in round_ticks(data.shown.low, data.shown.high, most):
        shown_value = round(100 * value, 4) if data.objective["percent"] else value
        place = (value - data.shown.low) / data.shown.span
        ticks.append((place, number(shown_value, 4)))
    return ticks


def _draw_rail(ax: Axes, rail: _Rail) -> None:
    ends = [rail.point(0), rail.point(1)]
    ax.plot(
        [x for x, _ in ends],
        [y for _, y in ends],
        color=INK if rail.is_score else MUTED,
        lw=0.8,
        zorder=4,
    )
    for place, text in thin_ticks(rail.ticks):
        _write_tick(
            ax,
            rail,
            place,
            text,
        )
    _write_name(ax, rail)


def _write_tick(
    ax: Axes,
    rail: _Rail,
    place: float,
    text: str,
) -> None:
    ax.annotate(
        text,
        rail.point(place),
        xytext=(3, -3) if rail.upright else (0, -10),
        textcoords="offset points",
        fontsize=7.5,
        color=MUTED,
        ha="left" if rail.upright else "center",
        bbox=_TEXT_BOX,
        zorder=5,
        annotation_clip=False,
    )


def _write_name(ax: Axes, rail: _Rail) -> None:
    if rail.upright:
        ax.text(
            rail.index,
            1.06,
            rail.name,
            fontsize=8.5,
            ha="center",
            color=INK,
            fontweight=rail.weight,
        )
        return
    ax.annotate(
        rail.name,
        rail.point(0),
        xytext=(0, 5),
        textcoords="offset points",
        fontsize=8.5,
        color=INK,
        bbox=_TEXT_BOX,
        fontweight=rail.weight,
        zorder=6,
    )


def _caption(data: _Parallel) -> str:
    best = "the best" if len(data.leaders) == 1 else f"the {len(data.leaders)} best"
    caption = f"One line a completed trial; {best} in colour, the winner bold."
    if data.front:
        caption = "One line a completed trial; the Pareto set in colour."
    if data.ordered:
        caption += " Axes in order of importance."
    if len(data.lines) < len(data.trials):
        caption += (
            f" {len(data.lines)} of {len(data.trials)} trials are drawn: the best, and others"
            " evenly by rank."
        )
    if any(name not in trial["params"] for name in data.lacking for trial in data.lines):
        caption += " A hyperparameter that a trial did not have is set on the rim (unset)."
    return caption


def _alternative_text(data: _Parallel) -> str:
    names = listed([short(scale.name, 40) for scale in data.scales])
    return (
        f"Parallel coordinates of {plural(len(data.lines), 'trial')} over {names}"
        f" and {data.objective['name']}."
    )
