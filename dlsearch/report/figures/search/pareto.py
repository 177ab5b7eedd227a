"""The figure of a study of several objectives: the Pareto set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import focused_range, objective_label, remove_frame
from dlsearch.report.figures.canvas import ACCENT, MUTED, new_figure
from dlsearch.report.figures.inputs import scored_trials
from dlsearch.report.figures.marks import Place, draw_default_diamond, draw_trials, write_note
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.figures.scales import Scale, ScaleKind, Tick
from dlsearch.report.formats import number, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import ObjectiveRow, Report, TrialRow

#: Ratio of the largest to the smallest value from which an objective is drawn on a logarithmic
#: axis.
LOG_RATIO = 30
#: Members of the set up to which each one is numbered.
MOST_NUMBERED = 14
_HOLLOW = {
    "mfc": "none",
    "mec": MUTED,
    "mew": 0.8,
}


@dataclass(frozen=True)
class _Tradeoff:
    """What the figure shows: completed trials by their second (across) and first objective (up)."""

    objectives: list[ObjectiveRow]
    done: list[TrialRow]
    front: list[TrialRow]
    default: TrialRow | None
    across: Scale
    up: Scale

    def place_of(self, trial: TrialRow) -> Place:
        """The place of a trial, on the rim where it lies outside."""
        first, second = trial["values"][:2]
        x = self.across.place_of(second) or 0.0
        y = self.up.place_of(first) or 0.0
        return min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)


def draw_pareto(report: Report) -> Plate | None:
    """The first two objectives of all completed trials, with the Pareto set."""
    done = scored_trials(report)
    if len(report["objectives"]) < 2 or not done:
        return None
    front = [trial for trial in done if trial["number"] in report["pareto"]]
    data = _Tradeoff(
        objectives=report["objectives"],
        done=done,
        front=front,
        default=next((t for t in done if t["number"] == report["default"]), None),
        across=_scale_of(
            report,
            done,
            front,
            1,
        ),
        up=_scale_of(
            report,
            done,
            front,
            0,
        ),
    )
    caption = _caption(data)
    return Plate(
        key="pareto",
        title="Pareto set",
        caption=caption,
        alt=_alternative_text(data, caption),
        wide=_drawing(data, WIDE, 380),
        narrow=_drawing(data, NARROW, 320),
        size=PlateSize.FULL,
    )


def _scale_of(
    report: Report,
    done: Sequence[TrialRow],
    front: Sequence[TrialRow],
    index: int,
) -> Scale:
    """The scale of an objective: every member of the set lies on it, poor trials may not."""
    objective = report["objectives"][index]
    name = str(objective["name"])
    values = [trial["values"][index] for trial in done]
    least = min(values)
    most = max(values)
    if least > 0 and most / least >= LOG_RATIO:
        return Scale(
            name,
            ScaleKind.LOG,
            least,
            most,
        )
    shown = focused_range(values, objective["maximize"])
    kept = [trial["values"][index] for trial in front]
    return Scale(
        name,
        ScaleKind.LINEAR,
        min(shown.low, *kept),
        max(shown.high, *kept),
    )


def _drawing(data: _Tradeoff, width: int, height: int) -> Figure:
    figure = new_figure(width, height)
    ax = figure.add_subplot()
    rest = [data.place_of(trial) for trial in data.done if trial not in data.front]
    draw_trials(
        ax,
        "complete",
        rest,
        **_HOLLOW,
    )
    _draw_front(ax, data)
    if data.default is not None:
        draw_default_diamond(ax, *data.place_of(data.default))
    _set_axes(ax, data, most_ticks=6 if is_spacious(width) else 4)
    return figure


def _draw_front(ax: Axes, data: _Tradeoff) -> None:
    border = sorted(data.place_of(trial) for trial in data.front)
    if len(data.objectives) == 2 and len(border) > 1:
        # A member dominates all that lies beyond it: the border of the set is a stair.
        ax.step(
            [x for x, _ in border],
            [y for _, y in border],
            where="pre" if data.objectives[1]["maximize"] else "post",
            color=ACCENT,
            lw=1.2,
            zorder=2,
        )
    draw_trials(
        ax,
        "complete",
        border,
        ms=6,
    )
    if len(data.front) > MOST_NUMBERED:
        return
    for trial in data.front:
        write_note(
            ax,
            str(trial["number"]),
            data.place_of(trial),
            (0, 6),
            fontsize=8,
            ha="center",
        )


def _set_axes(ax: Axes, data: _Tradeoff, most_ticks: int) -> None:
    first, second = data.objectives[:2]
    across_ticks = _objective_ticks(data.across, second, most_ticks)
    up_ticks = _objective_ticks(data.up, first, most_ticks)
    ax.set_xticks([place for place, _ in across_ticks], [text for _, text in across_ticks])
    ax.set_xlim(-0.04, 1.06)
    ax.set_yticks([place for place, _ in up_ticks], [text for _, text in up_ticks])
    ax.set_ylim(-0.04, 1.06)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_xlabel(objective_label(second))
    ax.set_title(objective_label(first))
    remove_frame(ax)


def _objective_ticks(scale: Scale, objective: ObjectiveRow, most: int) -> list[Tick]:
    """The ticks of an objective; of a rate in per cent, as its label says."""
    if not objective["percent"]:
        return scale.tick_marks(most)
    in_percent = Scale(
        scale.name,
        scale.kind,
        100 * scale.low,
        100 * scale.high,
    )
    return in_percent.tick_marks(most)


def _caption(data: _Tradeoff) -> str:
    caption = (
        f"Filled: the {plural(len(data.front), 'trial')} that no other dominates, by number;"
        " rings: other completed trials; diamond: the default configuration."
    )
    if len(data.objectives) > 2:
        caption += f" The first two of {number(len(data.objectives))} objectives."
    return caption


def _alternative_text(data: _Tradeoff, caption: str) -> str:
    first, second = data.objectives[:2]
    count = plural(len(data.done), "completed trial")
    return f"{first['name']} against {second['name']} for {count}. {caption}"
