"""The figure of the hyperparameters' importances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import remove_frame
from dlsearch.report.figures.canvas import ACCENT, INK, new_figure
from dlsearch.report.figures.marks import write_note
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import percent, plural, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import Importances, Report

MOST_BARS = 16


def draw_importances(report: Report) -> Plate | None:
    """Bars of the importances."""
    rows = report["importances"]["values"][:MOST_BARS]
    if not rows:
        return None
    shares: list[str] = []
    for name, share in rows:
        shares.append(f"{short(name, 40)} {percent(share, 0)}")
    return Plate(
        key="importances",
        title="Importances",
        caption=_caption(report["importances"]),
        alt=f"Importances: {', '.join(shares)}.",
        wide=_drawing(rows),
    )


def _drawing(rows: Sequence[tuple[str, float]]) -> Figure:
    names = [short(name, 26) for name, _ in rows]
    shares = [share for _, share in rows]
    places = range(len(rows))
    figure = new_figure(HALF, 60 + 27 * len(rows))
    ax = figure.add_subplot()
    ax.barh(
        places,
        shares,
        height=0.56,
        color=ACCENT,
        lw=0,
    )
    for place, share in enumerate(shares):
        write_note(
            ax,
            percent(share, 0),
            (share, place),
            (4, -3),
        )
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, max(shares) * 1.18)
    ax.set_yticks(places, names)
    ax.tick_params(axis="y", labelcolor=INK, pad=4)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    remove_frame(ax)
    return figure


def _caption(importances: Importances) -> str:
    best = percent(importances["target_quantile"], 0)
    trials = plural(importances["trials"], "completed trial")
    return (
        f"Share of each hyperparameter in reaching the best {best} of {trials};"
        " PED-ANOVA, which draws nothing at random."
    )
