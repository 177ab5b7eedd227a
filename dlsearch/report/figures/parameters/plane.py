"""The figure of the score over the two hyperparameters that matter most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import remove_frame
from dlsearch.report.figures.canvas import ACCENT, INK, PAPER, new_figure
from dlsearch.report.figures.marks import (
    Look,
    Place,
    draw_best_ring,
    draw_default_diamond,
    draw_trials,
    thin_trials,
)
from dlsearch.report.figures.parameters.slices import (
    MANY_TRIALS,
    set_scale_xticks,
    trials_with_score,
)
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import plural, score, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import ObjectiveRow, Report, TrialRow
    from dlsearch.report.figures.scales import Scale

#: Completed trials below which there is no surface to speak of.
FEWEST_TRIALS = 6
#: Points of the grid along each axis.
GRID_POINTS = 44
#: Shades of the surface.
SHADES = 7
#: Kernel widths from the nearest trial beyond which the surface is blank.
REACH = 1.8


@dataclass(frozen=True)
class _Plane:
    """What the figure shows: the trials that have both hyperparameters, and those completed."""

    objective: ObjectiveRow
    across: Scale
    up: Scale
    trials: list[TrialRow]
    done: list[TrialRow]
    best: TrialRow | None
    default: TrialRow | None

    def place_of(self, trial: TrialRow) -> Place:
        """The place of a trial."""
        return (
            self.across.place_of_trial(trial) or 0.0,
            self.up.place_of_trial(trial) or 0.0,
        )


def draw_plane(report: Report, scales: Sequence[Scale]) -> Plate | None:
    """The score over the two most important numeric hyperparameters."""
    data = _collect(report, scales)
    if data is None:
        return None
    best = ""
    if data.best is not None:
        best = f" Best: {score(data.best['values'][0], data.objective['percent'])}."
    ranked = bool(report["importances"]["values"])
    return Plate(
        key="plane",
        title="The two most important" if ranked else "Two hyperparameters",
        caption=_caption(best),
        alt=_alternative_text(data, best),
        wide=_drawing(data),
    )


def _collect(report: Report, scales: Sequence[Scale]) -> _Plane | None:
    numeric = _numeric_scales(report, scales)
    if len(numeric) < 2:
        return None
    across, up = numeric[:2]
    trials = [
        trial
        for trial in trials_with_score(report)
        if across.name in trial["params"] and up.name in trial["params"]
    ]
    done = [trial for trial in trials if trial["scored"]]
    if len(done) < FEWEST_TRIALS:
        return None
    return _Plane(
        objective=report["objectives"][0],
        across=across,
        up=up,
        trials=trials,
        done=done,
        best=_trial_of(done, report["best"]),
        default=_trial_of(done, report["default"]),
    )


def _numeric_scales(report: Report, scales: Sequence[Scale]) -> list[Scale]:
    """The numeric ones that have an importance, in its order; all where none has."""
    names = [name for name, _ in report["importances"]["values"]]
    by_name = {scale.name: scale for scale in scales}
    ordered = [by_name[name] for name in names or by_name if name in by_name]
    return [scale for scale in ordered if not scale.categorical]


def _trial_of(trials: Sequence[TrialRow], number: int | None) -> TrialRow | None:
    return next((trial for trial in trials if trial["number"] == number), None)


def _drawing(data: _Plane) -> Figure:
    figure = new_figure(HALF, 340)
    ax = figure.add_subplot()
    places = [data.place_of(trial) for trial in data.done]
    scores = [trial["values"][0] for trial in data.done]
    _draw_surface(
        ax,
        places,
        scores,
        data.objective["maximize"],
    )
    _draw_trials(ax, data)
    if data.best is not None:
        draw_best_ring(ax, *data.place_of(data.best))
    if data.default is not None:
        draw_default_diamond(ax, *data.place_of(data.default))
    set_scale_xticks(ax, data.across)
    ticks = data.up.tick_marks(6)
    ax.set_yticks([place for place, _ in ticks], [text for _, text in ticks])
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel(short(data.across.name, 40))
    ax.set_title(short(data.up.name, 40))
    remove_frame(ax)
    return figure


def _draw_trials(ax: Axes, data: _Plane) -> None:
    trials = thin_trials(data.trials, data.objective["maximize"])
    size: Look = {"ms": 3.2} if len(trials) > MANY_TRIALS else {}
    looks: dict[str, Look] = {
        "pruned": {},
        "complete": {"mfc": INK, "mec": PAPER},
    }
    for state, look in looks.items():
        places = [data.place_of(trial) for trial in trials if trial["state"] == state]
        draw_trials(
            ax,
            state,
            places,
            **size,
            **look,
        )


def _draw_surface(
    ax: Axes,
    places: Sequence[Place],
    scores: Sequence[float],
    maximize: bool,
) -> None:
    """A Gaussian-kernel average of ranks: one diverged trial would flatten one of scores."""
    import numpy as np
    from scipy.stats import rankdata

    n = len(places)
    points = np.array(places)
    ranks = rankdata([value if maximize else -value for value in scores]) / n
    kernel_width = max(0.07, 0.32 * n ** (-1 / 4))
    grid = np.linspace(-0.03, 1.03, GRID_POINTS)
    grid_x, grid_y = np.meshgrid(grid, grid)
    distance_x = grid_x[..., None] - points[:, 0]
    distance_y = grid_y[..., None] - points[:, 1]
    squared = distance_x**2 + distance_y**2
    kernel = np.exp(-0.5 * squared / kernel_width**2)
    weight = kernel.sum(-1)
    mean = (kernel * ranks).sum(-1) / np.maximum(weight, 1e-300)
    levels = np.linspace(float(mean.min()), float(mean.max()), SHADES + 1)
    if levels[-1] - levels[0] < 1e-9:
        return
    ax.contourf(
        grid_x,
        grid_y,
        mean,
        levels=levels,
        colors=_shades(),
        antialiased=True,
        zorder=0,
    )
    far = np.sqrt(squared.min(-1)) / (REACH * kernel_width)
    farthest = float(far.max())
    if farthest > 1:
        ax.contourf(
            grid_x,
            grid_y,
            far,
            levels=[1.0, farthest + 1],
            colors=[PAPER],
            zorder=1,
        )


def _shades() -> list[tuple[float, float, float, float]]:
    """The accent from nearly transparent to strong."""
    import numpy as np
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(ACCENT)
    return [(red, green, blue, alpha) for alpha in np.linspace(0.03, 0.58, SHADES)]


def _caption(best: str) -> str:
    return (
        "The stronger the colour, the better: a kernel average of the completed trials' ranks,"
        " blank where no trial is near. Ring: best; diamond: default; triangles: pruned trials,"
        f" which do not enter.{best}"
    )


def _alternative_text(data: _Plane, best: str) -> str:
    return (
        f"{data.objective['name']} over {data.across.name} and {data.up.name},"
        f" {plural(len(data.done), 'completed trial')}.{best}"
    )
