"""The marks that the figures share: trials by state, the best, the default, notes, the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from dlsearch.report.figures.canvas import ACCENT, BAD, INK, MUTED, PAPER
from dlsearch.report.figures.inputs import standing_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from dlsearch.report.facts.contents import TrialRow

#: Keyword arguments of a matplotlib artist.
Look: TypeAlias = Mapping[str, Any]
#: A place on the axes.
Place: TypeAlias = tuple[float, float]

#: Marks drawn one by one in one figure; beyond, the best stay and the others are thinned evenly by
#: rank.
MOST_MARKS = 400

#: How a state looks: they differ in shape, filling and colour at once.
STATE_LOOKS: Mapping[str, Look] = {
    "complete": {
        "marker": "o",
        "ms": 4.6,
        "mfc": ACCENT,
        "mec": PAPER,
        "mew": 0.5,
    },
    "pruned": {
        "marker": "v",
        "ms": 4.4,
        "mfc": "none",
        "mec": MUTED,
        "mew": 0.8,
    },
    "failed": {
        "marker": "x",
        "ms": 4.4,
        "mfc": "none",
        "mec": BAD,
        "mew": 1.2,
    },
    "running": {
        "marker": "s",
        "ms": 4.0,
        "mfc": "none",
        "mec": ACCENT,
        "mew": 0.9,
    },
}
STATE_NAMES = {
    "complete": "completed",
    "pruned": "pruned",
    "failed": "failed",
    "running": "running",
}
_NO_LINE = "none"


def draw_trials(
    ax: Axes,
    state: str,
    places: Sequence[Place],
    **change: Any,
) -> None:
    """Draw trials of one state."""
    if not places:
        return
    look: Look = {
        **STATE_LOOKS[state],
        "zorder": 3,
        **change,
    }
    ax.plot(
        [x for x, _ in places],
        [y for _, y in places],
        ls=_NO_LINE,
        clip_on=False,
        **look,
    )


def draw_mark(
    ax: Axes,
    x: float,
    y: float,
    marker: str,
    **look: Any,
) -> None:
    """Draw one mark without a line."""
    ax.plot(
        [x],
        [y],
        ls=_NO_LINE,
        marker=marker,
        **look,
    )


def draw_best_ring(ax: Axes, x: float, y: float) -> None:
    """Mark the best trial."""
    draw_mark(
        ax,
        x,
        y,
        "o",
        ms=9.5,
        mfc="none",
        mec=ACCENT,
        mew=1.4,
        zorder=5,
        clip_on=False,
    )


def draw_default_diamond(ax: Axes, x: float, y: float) -> None:
    """Mark the default configuration."""
    draw_mark(
        ax,
        x,
        y,
        "D",
        ms=5.2,
        mfc=PAPER,
        mec=INK,
        mew=1.2,
        zorder=5,
        clip_on=False,
    )


def write_note(
    ax: Axes,
    text: str,
    place: Place,
    offset: Place,
    **options: Any,
) -> None:
    """Write beside a point what it is; the offset is in points."""
    look: Look = {
        "fontsize": 8.5,
        "color": INK,
        "zorder": 6,
        **options,
    }
    ax.annotate(
        text,
        place,
        xytext=offset,
        textcoords="offset points",
        annotation_clip=False,
        **look,
    )


def key_handle(label: str, **look: Any) -> Line2D:
    """A line of the key to a figure."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        label=label,
        **look,
    )


def mark_handle(label: str, **look: Any) -> Line2D:
    """A line of the key that shows a mark alone."""
    return key_handle(label, ls=_NO_LINE, **look)


def write_key(
    ax: Axes,
    states: Sequence[str],
    *,
    winner: bool,
    default: bool,
    columns: int = 6,
    **place: Any,
) -> None:
    """The key to the marks of trials that a figure shows."""
    handles = [mark_handle(STATE_NAMES[state], **STATE_LOOKS[state]) for state in states]
    if winner:
        ring = mark_handle(
            "best",
            marker="o",
            ms=8,
            mfc="none",
            mec=ACCENT,
            mew=1.4,
        )
        handles.append(ring)
    if default:
        diamond = mark_handle(
            "default",
            marker="D",
            ms=5,
            mfc=PAPER,
            mec=INK,
            mew=1.2,
        )
        handles.append(diamond)
    if handles:
        ax.legend(
            handles=handles,
            ncols=min(columns, len(handles)),
            handlelength=1.2,
            **place,
        )


def key_above(ax: Axes, columns: int, **options: Any) -> None:
    """Put the key above the axes, at their right end."""
    ax.legend(
        ncols=columns,
        loc="lower right",
        bbox_to_anchor=(1, 1.01),
        **options,
    )


def thin_trials(
    trials: Sequence[TrialRow],
    maximize: bool,
    most: int = MOST_MARKS,
) -> list[TrialRow]:
    """At most `most` trials: the best quarter of that number, and the others evenly by rank."""
    if len(trials) <= most:
        return list(trials)
    sign = -1 if maximize else 1
    ranked = sorted(trials, key=lambda trial: (sign * standing_of(trial), trial["number"]))
    head = ranked[: most // 4]
    tail = ranked[most // 4 :]
    places = most - len(head)
    step = (len(tail) - 1, places - 1)
    thinned = [tail[i * step[0] // step[1]] for i in range(places)]
    return sorted(head + thinned, key=lambda trial: trial["number"])
