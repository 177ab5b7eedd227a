"""What a figure is in the report, and the marks that all figures share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlsearch.report.figures.svg import ACCENT, BAD, INK, MUTED, PAPER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Widths in CSS pixels: across the page, on a phone, two in a row, three in a row.
WIDE, NARROW, HALF, THIRD = 920, 340, 420, 300

#: Marks drawn one by one in one figure; beyond, the best stay and the others are thinned evenly by rank.
MOST = 400

#: How a state looks: told apart by shape, filling and colour at once.
MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "ms": 4.6, "mfc": ACCENT, "mec": PAPER, "mew": 0.5},
    "pruned": {"marker": "v", "ms": 4.4, "mfc": "none", "mec": MUTED, "mew": 0.8},
    "failed": {"marker": "x", "ms": 4.4, "mfc": "none", "mec": BAD, "mew": 1.2},
    "running": {"marker": "s", "ms": 4.0, "mfc": "none", "mec": ACCENT, "mew": 0.9},
}
NAMES = {"complete": "completed", "pruned": "pruned", "failed": "failed", "running": "running"}


@dataclass(frozen=True)
class Plate:
    """One figure of the report.

    Attributes:
        key: Name of its file, and prefix of its ids.
        title: What it shows, in a few words.
        caption: How to read it.
        alt: What it says, for one who does not see it.
        wide: The drawing.
        narrow: The drawing for a phone, where the wide one would be too small to read.
        size: ``full``, ``half`` or ``third`` of the page's width.
    """

    key: str
    title: str
    caption: str
    alt: str
    wide: Figure
    narrow: Figure | None = None
    size: str = "half"


def dots(ax: Axes, state: str, xs: Iterable[float], ys: Iterable[float], **change: Any) -> None:
    """Draw trials of one state."""
    xs, ys = list(xs), list(ys)
    if xs:
        ax.plot(xs, ys, ls="none", clip_on=False, **(MARKS[state] | {"zorder": 3} | change))


def ring(ax: Axes, x: float, y: float) -> None:
    """Mark the winner."""
    ax.plot([x], [y], ls="none", marker="o", ms=9.5, mfc="none", mec=ACCENT, mew=1.4, zorder=5, clip_on=False)


def diamond(ax: Axes, x: float, y: float) -> None:
    """Mark the default configuration."""
    ax.plot([x], [y], ls="none", marker="D", ms=5.2, mfc=PAPER, mec=INK, mew=1.2, zorder=5, clip_on=False)


def note(ax: Axes, text: str, xy: tuple[float, float], offset: tuple[float, float], **options: Any) -> None:
    """Write beside a point what it is."""
    look: dict[str, Any] = {"fontsize": 8.5, "color": INK, "zorder": 6} | options
    ax.annotate(text, xy, xytext=offset, textcoords="offset points", annotation_clip=False, **look)


def legend(ax: Axes, states: Sequence[str], *, winner: bool, default: bool, columns: int = 6, **where: Any) -> None:
    """The key to the marks that a figure shows."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], ls="none", label=NAMES[s], **MARKS[s]) for s in states]
    if winner:
        handles.append(Line2D([], [], ls="none", marker="o", ms=8, mfc="none", mec=ACCENT, mew=1.4, label="best"))
    if default:
        handles.append(Line2D([], [], ls="none", marker="D", ms=5, mfc=PAPER, mec=INK, mew=1.2, label="default"))
    if handles:
        ax.legend(handles=handles, ncols=min(columns, len(handles)), handlelength=1.2, **where)


def thinned(trials: Sequence[dict[str, Any]], maximize: bool, most: int = MOST) -> list[dict[str, Any]]:
    """At most `most` trials: the best quarter of that number, and the others evenly by rank."""
    if len(trials) <= most:
        return list(trials)
    sign = -1 if maximize else 1
    ranked = sorted(trials, key=lambda t: (sign * t["standing"], t["number"]))
    head, tail = ranked[: most // 4], ranked[most // 4 :]
    places = most - len(head)
    kept = head + [tail[i * (len(tail) - 1) // (places - 1)] for i in range(places)]
    return sorted(kept, key=lambda t: t["number"])


def finish(ax: Axes) -> None:
    """Take away the frame that says nothing."""
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", pad=2)
