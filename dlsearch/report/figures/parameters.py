"""Figures of the hyperparameters: importances, slices, parallel coordinates, the plane of the two that matter most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report.figures.plate import HALF, NARROW, THIRD, WIDE, Plate, diamond, dots, finish, note, ring, thinned
from dlsearch.report.figures.scales import Scale, focus, label, score_axis
from dlsearch.report.figures.svg import ACCENT, INK, MUTED, PAPER, canvas
from dlsearch.report.formats import listed, number, percent, plural, score, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Lines of the parallel coordinates.
LINES = 150
#: Slices that are drawn; a study with more keeps the most important.
SLICES = 12


def importances(f: dict[str, Any]) -> Plate | None:
    """Bars of the importances."""
    rows = f["importances"]["values"][:16]
    if not rows:
        return None
    figure = canvas(HALF, 60 + 27 * len(rows))
    ax = figure.add_subplot()
    ax.barh(range(len(rows)), [v for _, v in rows], height=0.56, color=ACCENT, lw=0)
    top = max(v for _, v in rows)
    for i, (_, v) in enumerate(rows):
        note(ax, percent(v, 0), (v, i), (4, -3))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, top * 1.18)
    ax.set_yticks(range(len(rows)), [short(name, 26) for name, _ in rows])
    ax.tick_params(axis="y", labelcolor=INK, pad=4)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    finish(ax)
    caption = (
        f"Share of each hyperparameter in reaching the best {percent(f['importances']['target_quantile'], 0)} of"
        f" {plural(f['importances']['trials'], 'completed trial')}; PED-ANOVA, which draws nothing at random."
    )
    alt = "Importances: " + ", ".join(f"{short(n, 40)} {percent(v, 0)}" for n, v in rows) + "."
    return Plate("importances", "Importances", caption, alt, figure)


def _standing(f: dict[str, Any], states: tuple[str, ...] = ("complete", "pruned")) -> list[dict[str, Any]]:
    return [t for t in f["trials"] if t["state"] in states and t["standing"] is not None]


def slices(f: dict[str, Any], axes: list[Scale]) -> list[Plate]:
    """Score against each hyperparameter alone."""
    objective = f["objectives"][0]
    trials = _standing(f)
    if len(trials) < 2 or not any(t["scored"] for t in trials):
        return []
    shown = focus([t["standing"] for t in trials], objective["maximize"])
    order = [name for name, _ in f["importances"]["values"]]
    ranked = sorted(axes, key=lambda s: order.index(s.name) if s.name in order else len(order))
    return [
        _slice(f, scale, i, thinned(trials, objective["maximize"]), shown) for i, scale in enumerate(ranked[:SLICES])
    ]


def _jitter(n: int, places: int) -> float:
    """A shift within its category by the golden ratio: even, and the same each time."""
    return ((n * 0.6180339887) % 1 - 0.5) * 0.5 / places


def _place(scale: Scale, t: dict[str, Any]) -> float | None:
    at = scale.at(t["params"].get(scale.name)) if scale.name in t["params"] else None
    return at + _jitter(t["number"], len(scale.categories)) if at is not None and scale.categorical else at


def _slice(f: dict[str, Any], scale: Scale, index: int, trials: list[dict[str, Any]], shown: Any) -> Plate:
    objective = f["objectives"][0]
    figure = canvas(THIRD, 225)
    ax = figure.add_subplot()
    score_axis(ax, shown, objective["percent"], most=4)
    small = {"ms": 3.4} if len(trials) > 100 else {}
    for state in ("pruned", "complete"):
        here = [(_place(scale, t), shown.inside(t["standing"])) for t in trials if t["state"] == state]
        dots(ax, state, [x for x, _ in here if x is not None], [y for x, y in here if x is not None], **small)
    by_number = {t["number"]: t for t in f["trials"]}
    default, winner = by_number.get(f["default"]), by_number.get(f["best"])
    for t, mark in ((default, diamond), (winner, ring)):
        if t and t["scored"]:
            x = _place(scale, t)
            if x is not None:
                mark(ax, x, shown.inside(t["values"][0]))
    _ticks(ax, scale)
    ax.set_title(short(scale.name, 34), color=INK, fontweight="bold" if index == 0 else "normal")
    finish(ax)
    kind = {"log": "logarithmic axis", "linear": "linear axis", "categorical": "by category"}[scale.kind]
    best = "" if winner is None else f"; best {number(winner['params'].get(scale.name))}"
    alt = f"{objective['name']} against {scale.name}, {kind}, {plural(len(trials), 'trial')}{best}."
    return Plate(f"slice-{index + 1:02d}", scale.name, "", alt, figure, size="third")


def _ticks(ax: Axes, scale: Scale) -> None:
    # The labels of all categories share the width of the axis.
    length = max(3, 36 // max(1, len(scale.categories))) if scale.categorical else 12
    ticks = scale.ticks(5, length)
    if len(ticks) > 8:
        ticks = ticks[:: -(-len(ticks) // 8)]
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([x for x, _ in ticks], [text for _, text in ticks])


def parallel(f: dict[str, Any], axes: list[Scale]) -> Plate | None:
    """Parallel coordinates: one line a completed trial, through all its values."""
    objective = f["objectives"][0]
    trials = [t for t in f["trials"] if t["scored"]]
    if len(trials) < 2 or not axes:
        return None
    order = [name for name, _ in f["importances"]["values"]]
    axes = sorted(axes, key=lambda s: order.index(s.name) if s.name in order else len(order))[:10]
    shown = focus([t["values"][0] for t in trials], objective["maximize"])
    sign = -1 if objective["maximize"] else 1
    ranked = sorted(trials, key=lambda t: (sign * t["values"][0], t["number"]))
    front = [t for t in ranked if t["number"] in f["pareto"]]
    leaders = {t["number"] for t in (front or ranked)[: max(1, min(10, len(front) or len(trials) // 5))]}
    kept = [t for t in thinned(trials, objective["maximize"], LINES) if t["number"] not in leaders]
    kept += [t for t in reversed(ranked) if t["number"] in leaders]
    unset = any(s.name not in t["params"] for s in axes for t in kept)

    def draw(width: int, height: int, across: bool) -> Figure:
        figure = canvas(width, height)
        ax = figure.add_subplot()
        for t in kept:
            places = [_place(s, t) for s in axes]
            line = [-0.14 if p is None else p for p in places]
            line.append((shown.inside(t["values"][0]) - shown.low) / (shown.high - shown.low))
            spots = list(range(len(line)))
            first = t["number"] == f["best"]
            look: dict[str, Any] = {"color": MUTED, "lw": 0.6, "alpha": 0.4, "zorder": 2}
            if t["number"] in leaders:
                look = {"color": ACCENT, "lw": 2.0 if first else 1.0, "alpha": 1.0 if first else 0.7, "zorder": 3}
            ax.plot(*((spots, line) if across else (line, spots)), solid_joinstyle="round", **look)
        _rails(ax, f, axes, shown, across)
        return figure

    tall = 46 * (len(axes) + 1) + 30

    best = "the best" if len(leaders) == 1 else f"the {len(leaders)} best"
    caption = f"One line a completed trial; {best} in colour, the winner bold."
    if front:
        caption = "One line a completed trial; the Pareto set in colour."
    if order:
        caption += " Axes in order of importance."
    if len(kept) < len(trials):
        caption += f" {len(kept)} of {len(trials)} trials are drawn: the best, and others evenly by rank."
    if unset:
        caption += " A hyperparameter that a trial did not have is set on the rim (unset)."
    alt = (
        f"Parallel coordinates of {plural(len(kept), 'trial')} over {listed([short(s.name, 40) for s in axes])}"
        f" and {objective['name']}."
    )
    return Plate(
        "parallel", "Parallel coordinates", caption, alt, draw(WIDE, 330, True), draw(NARROW, tall, False), "full"
    )


def _rails(ax: Axes, f: dict[str, Any], axes: list[Scale], shown: Any, across: bool) -> None:
    from dlsearch.report.figures.scales import nice

    objective = f["objectives"][0]
    box = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "boxstyle": "square,pad=0.12"}
    names = [short(s.name, 18 if len(axes) > 5 else 24) for s in axes] + [label(objective, 24)]
    ticks = [s.ticks(5 if across else 4, 10) for s in axes]
    span = shown.high - shown.low
    ticks.append(
        [
            ((v - shown.low) / span, number(round(100 * v, 4) if objective["percent"] else v, 4))
            for v in nice(shown.low, shown.high, 5 if across else 4)
        ]
    )
    if any(s.name not in t["params"] for s in axes for t in f["trials"] if t["scored"]):
        for i, s in enumerate(axes):
            if any(s.name not in t["params"] for t in f["trials"] if t["scored"]):
                ticks[i] = [(-0.14, "unset"), *ticks[i]]
    for i, (name, marks) in enumerate(zip(names, ticks, strict=True)):
        rail = ([i, i], [0, 1]) if across else ([0, 1], [i, i])
        ax.plot(*rail, color=INK if i == len(axes) else MUTED, lw=0.8, zorder=4)
        if len(marks) > 8:
            marks = marks[:: -(-len(marks) // 8)]
        for at, text in marks:
            x, y = (i, at) if across else (at, i)
            ax.annotate(
                text,
                (x, y),
                xytext=(3, -3) if across else (0, -10),
                textcoords="offset points",
                fontsize=7.5,
                color=MUTED,
                ha="left" if across else "center",
                bbox=box,
                zorder=5,
                annotation_clip=False,
            )
        weight = "bold" if i == len(axes) else "normal"
        if across:
            ax.text(i, 1.06, name, fontsize=8.5, ha="center", color=INK, fontweight=weight)
        else:
            ax.annotate(
                name,
                (0, i),
                xytext=(0, 5),
                textcoords="offset points",
                fontsize=8.5,
                color=INK,
                bbox=box,
                fontweight=weight,
                zorder=6,
            )
    ax.axis("off")
    if across:
        ax.set_xlim(-0.35, len(axes) + 0.45)
        ax.set_ylim(-0.18, 1.12)
    else:
        ax.set_xlim(-0.18, 1.08)
        ax.set_ylim(len(axes) + 0.5, -0.5)


def plane(f: dict[str, Any], axes: list[Scale]) -> Plate | None:
    """The score over the two most important numeric hyperparameters."""
    objective = f["objectives"][0]
    order = [name for name, _ in f["importances"]["values"]] or [s.name for s in axes]
    by_name = {s.name: s for s in axes}
    numeric = [by_name[n] for n in order if n in by_name and not by_name[n].categorical][:2]
    if len(numeric) < 2:
        return None
    across, up = numeric
    points = [t for t in _standing(f) if across.name in t["params"] and up.name in t["params"]]
    done = [t for t in points if t["scored"]]
    if len(done) < 6:
        return None
    figure = canvas(HALF, 340)
    ax = figure.add_subplot()
    _surface(
        ax, [(_place(across, t) or 0.0, _place(up, t) or 0.0, t["values"][0]) for t in done], objective["maximize"]
    )
    few = thinned(points, objective["maximize"])
    for state in ("pruned", "complete"):
        here = [t for t in few if t["state"] == state]
        small = {"ms": 3.2} if len(few) > 100 else {}
        look = {"mfc": INK, "mec": PAPER} if state == "complete" else {}
        dots(
            ax, state, [_place(across, t) or 0.0 for t in here], [_place(up, t) or 0.0 for t in here], **(small | look)
        )
    winner = next((t for t in done if t["number"] == f["best"]), None)
    if winner:
        ring(ax, _place(across, winner) or 0.0, _place(up, winner) or 0.0)
    default = next((t for t in done if t["number"] == f["default"]), None)
    if default:
        diamond(ax, _place(across, default) or 0.0, _place(up, default) or 0.0)
    _ticks(ax, across)
    ticks = up.ticks(6)
    ax.set_yticks([y for y, _ in ticks], [text for _, text in ticks])
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel(short(across.name, 40))
    ax.set_title(short(up.name, 40))
    finish(ax)
    best = "" if winner is None else f" Best: {score(winner['values'][0], objective['percent'])}."
    caption = (
        "The stronger the colour, the better: a kernel average of the completed trials' ranks, blank where no trial"
        f" is near. Ring: best; diamond: default; triangles: pruned trials, which do not enter.{best}"
    )
    alt = f"{objective['name']} over {across.name} and {up.name}, {plural(len(done), 'completed trial')}.{best}"
    return Plate(
        "plane", "The two most important" if f["importances"]["values"] else "Two hyperparameters", caption, alt, figure
    )


def _surface(ax: Axes, points: list[tuple[float, float, float]], maximize: bool) -> None:
    """A Gaussian-kernel average of ranks: ranks, because one diverged trial would flatten all else."""
    import numpy as np
    from scipy.stats import rankdata

    xy = np.array([p[:2] for p in points])
    ranks = rankdata([p[2] if maximize else -p[2] for p in points]) / len(points)
    width = max(0.07, 0.32 * len(points) ** (-1 / 4))
    grid = np.linspace(-0.03, 1.03, 44)
    gx, gy = np.meshgrid(grid, grid)
    d2 = (gx[..., None] - xy[:, 0]) ** 2 + (gy[..., None] - xy[:, 1]) ** 2
    kernel = np.exp(-0.5 * d2 / width**2)
    weight = kernel.sum(-1)
    mean = (kernel * ranks).sum(-1) / np.maximum(weight, 1e-300)
    levels = np.linspace(float(mean.min()), float(mean.max()), 8)
    if levels[-1] - levels[0] < 1e-9:
        return
    shades = [(*_rgb(ACCENT), a) for a in np.linspace(0.03, 0.58, 7)]
    ax.contourf(gx, gy, mean, levels=levels, colors=shades, antialiased=True, zorder=0)
    far = np.sqrt(d2.min(-1)) / (1.8 * width)
    if float(far.max()) > 1:
        ax.contourf(gx, gy, far, levels=[1.0, float(far.max()) + 1], colors=[PAPER], zorder=1)


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return red, green, blue
