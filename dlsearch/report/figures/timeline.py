"""The timeline: what each slot did when, and how many were busy."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from dlsearch.report.figures import plate
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, finish
from dlsearch.report.figures.scales import xticks
from dlsearch.report.figures.svg import ACCENT, BAD, FAINT, INK, MUTED, PAPER, canvas
from dlsearch.report.formats import duration, percent, plural, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Rows that are labelled one by one; beyond, slots are lanes without a name.
LABELLED = 16
#: Attempts that are drawn one by one; beyond, each half point of a lane shows what filled most of it.
DRAWN = 2000


class Clock:
    """Time as the figure shows it: from the first start, without the gaps in which nothing ran."""

    def __init__(self, start: float, end: float, gaps: list[list[float]]) -> None:
        self._start = start
        self._gaps = gaps
        active = end - start - sum(b - a for a, b in gaps)
        self._stub = 0.03 * active
        total = active + self._stub * len(gaps)
        self.unit, self.name = next(
            ((u, n) for u, n in ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours")) if total / u <= 180),
            (3600.0, "hours"),
        )
        self.total = total / self.unit

    def at(self, moment: float) -> float:
        """The place of `moment` in units of the axis."""
        x = moment - self._start
        for a, b in self._gaps:
            if moment >= b:
                x += self._stub - (b - a)
            elif moment > a:
                x += (self._stub - (b - a)) * (moment - a) / (b - a)
        return x / self.unit

    def breaks(self) -> list[tuple[float, float]]:
        """Middle of each gap on the axis, and its length in seconds."""
        return [((self.at(a) + self.at(b)) / 2, b - a) for a, b in self._gaps]


def timeline(f: dict[str, Any]) -> Plate | None:
    """Attempts by slot over time, above the number of busy slots."""
    compute = f["compute"]
    bars = compute["bars"]
    if not bars:
        return None
    start, end = min(b[1] for b in bars), max(b[2] for b in bars)
    if end <= start:
        return None
    clock = Clock(start, end, compute["gaps"])
    slots = compute["slots"]

    def draw(width: int) -> Figure:
        row = 22 if len(slots) <= LABELLED else max(4, 352 // len(slots))
        height = 150 + row * len(slots)
        figure = canvas(width, height)
        lanes, level = figure.subplots(2, 1, sharex=True, height_ratios=[row * len(slots) + 8, 62])
        _lanes(lanes, f, clock, width)
        xs, ys = _level([(clock.at(t), n) for t, n in compute["busy"]], width)
        level.fill_between(xs, ys, step="post", color=ACCENT, alpha=0.18, lw=0)
        level.step(xs, ys, where="post", color=ACCENT, lw=1.1)
        top = max(len(slots), *ys)
        level.set_ylim(0, top * 1.06)
        level.set_yticks([0, top])
        level.grid(axis="y")
        level.set_title("slots busy")
        level.set_xlim(0, clock.total)
        level.set_xlabel(f"{clock.name} since the first trial began")
        if clock.breaks():
            # Past a gap the axis no longer counts what a clock would.
            level.set_xlabel(f"{clock.name} in which the study ran")
        xticks(level, 8 if width > 500 else 5)
        finish(level)
        for x, length in clock.breaks():
            for ax in (lanes, level):
                ax.axvline(x, color=MUTED, lw=0.8, ls=(0, (2, 2)))
            plate.note(lanes, f"idle {duration(length)}", (x, -0.7), (0, 3), ha="center", fontsize=8, color=MUTED)
        return figure

    states = dict.fromkeys(b[3] for b in bars)
    looks = {
        "complete": "completed solid",
        "pruned": "pruned pale",
        "failed": "failed and lost attempts outlined with a cross at their end",
        "running": "running outlined",
    }
    caption = f"One bar an attempt ({', '.join(looks[s] for s in looks if s in states)})"
    caption += ", with its trial's number where there is room." if len(bars) < 300 else "."
    if len(bars) > DRAWN:
        caption += " Bars too thin to tell apart are drawn as one."
    if compute["utilisation"] is not None:
        caption += f" The slots were busy {percent(compute['utilisation'])} of the time."
    alt = (
        f"Timeline of {plural(len(bars), 'attempt')} on {plural(len(slots), 'slot')}"
        f" over {duration(clock.total * clock.unit)}. {caption}"
    )
    return Plate("timeline", "Timeline", caption, alt, draw(WIDE), draw(NARROW), "full")


def _level(steps: list[tuple[float, float]], width: int) -> tuple[list[float], list[float]]:
    """How many slots are busy; of more steps than the figure has half points, the mean over each of those."""
    import numpy as np

    xs, ys = np.array(steps).T
    if len(xs) > 4 * width:
        edges = np.linspace(xs[0], xs[-1], 2 * width)
        total = np.concatenate([[0.0], np.cumsum(np.diff(xs) * ys[:-1])])
        ys = np.diff(np.interp(edges, xs, total)) / np.diff(edges)
        xs, ys = edges, np.append(ys, ys[-1])
    return xs.tolist(), ys.tolist()


def _merged(
    bars: list[Any], places: dict[str, int], clock: Clock, scale: float
) -> dict[str, list[tuple[int, float, float]]]:
    """What filled most of each half point of a lane, by state: (lane, from, to), neighbours joined."""
    import numpy as np

    columns = max(1, math.ceil(2 * scale * clock.total))
    wide = clock.total / columns
    states = list(dict.fromkeys(b[3] for b in bars))
    filled = np.zeros((len(places), len(states), columns))
    for slot, began, ended, state, _ in bars:
        a, b = clock.at(began) / wide, clock.at(ended) / wide
        row = filled[places[slot], states.index(state)]
        first, last = min(int(a), columns - 1), min(int(b), columns - 1)
        row[first : last + 1] += 1
        row[first] -= a - first
        row[last] -= last + 1 - b
    found: dict[str, list[tuple[int, float, float]]] = {state: [] for state in states}
    for lane, share in enumerate(filled):
        shown = np.where(share.sum(axis=0) > 0, share.argmax(axis=0), -1)
        edges = [0, *(np.flatnonzero(np.diff(shown)) + 1).tolist(), columns]
        for first, last in itertools.pairwise(edges):
            if shown[first] >= 0:
                found[states[shown[first]]].append((lane, first * wide, last * wide))
    return {state: spans for state, spans in found.items() if spans}


def _boxes(spans: list[tuple[int, float, float]], thick: float) -> Path:
    """One path for all of them: an element each would make the figure as large as its study."""
    corners = [
        ((a, lane - thick / 2), (b, lane - thick / 2), (b, lane + thick / 2), (a, lane + thick / 2), (a, 0))
        for lane, a, b in spans
    ]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(spans)
    return Path([point for box in corners for point in box], codes)


def _lanes(ax: Axes, f: dict[str, Any], clock: Clock, width: int) -> None:
    slots, bars = f["compute"]["slots"], f["compute"]["bars"]
    places = {name: i for i, name in enumerate(slots)}
    thick = 0.68
    for i in range(len(slots)):
        ax.axhspan(i - thick / 2, i + thick / 2, color=FAINT, lw=0, zorder=0)
    looks: dict[str, dict[str, Any]] = {
        "complete": {"facecolor": ACCENT, "alpha": 0.85, "edgecolor": PAPER, "lw": 0.5},
        "pruned": {"facecolor": ACCENT, "alpha": 0.3, "edgecolor": PAPER, "lw": 0.5},
        "failed": {"facecolor": PAPER, "edgecolor": BAD, "lw": 0.9},
        "running": {"facecolor": PAPER, "edgecolor": ACCENT, "lw": 0.9},
        "waiting": {"facecolor": PAPER, "edgecolor": MUTED, "lw": 0.9},
    }
    scale = (width - 120) / clock.total
    if len(bars) > DRAWN:
        for state, spans in _merged(bars, places, clock, scale).items():
            ax.add_patch(PathPatch(_boxes(spans, thick), **{**looks[state], "lw": 0}, zorder=2))
        bars = []
    dense = len(bars) >= 300 or len(slots) > LABELLED
    for slot, began, ended, state, n in bars:
        a, b = clock.at(began), clock.at(ended)
        ax.add_patch(Rectangle((a, places[slot] - thick / 2), b - a, thick, **looks[state], zorder=2))
        room = (b - a) * scale
        if dense:
            continue
        if state == "failed":
            ax.plot([b], [places[slot]], "x", color=BAD, ms=4.5, mew=1.3, zorder=4, clip_on=False)
            room -= 8
        if room > 7 * len(str(n)) + 4:
            colour = PAPER if state == "complete" else INK
            ax.text(
                (a + b) / 2,
                places[slot],
                str(n),
                fontsize=7.5,
                color=colour,
                ha="center",
                va="center_baseline",
                zorder=5,
            )
    ax.set_ylim(len(slots) - 0.5, -0.5)
    ax.tick_params(axis="x", length=0, labelbottom=False)
    ax.spines["bottom"].set_visible(False)
    if len(slots) <= LABELLED:
        ax.set_yticks(range(len(slots)), [short(s, 22 if width > 500 else 12) for s in slots])
    else:
        ax.set_yticks([])
        ax.set_title(plural(len(slots), "slot"))
    finish(ax)
