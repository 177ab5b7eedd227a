"""The figure of what a budget buys: the expected best of n trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import (
    Range,
    objective_label,
    remove_frame,
    set_round_xticks,
    set_score_axis,
)
from dlsearch.report.figures.canvas import ACCENT, new_figure
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import ObjectiveRow, Report

#: n, the expected best of n trials, and its quartiles.
_Row = tuple[int, float, float, float]


def draw_expected_best(report: Report) -> Plate | None:
    """What a budget of n trials buys, where the trials are independent."""
    rows = report["course"]["expected_best"]
    if not rows:
        return None
    objective = report["objectives"][0]
    caption = _caption(rows, objective)
    return Plate(
        key="budget",
        title="What the budget bought",
        caption=caption,
        alt=caption,
        wide=_drawing(rows, objective),
    )


def _drawing(rows: Sequence[_Row], objective: ObjectiveRow) -> Figure:
    figure = new_figure(HALF, 290)
    ax = figure.add_subplot()
    set_score_axis(ax, _range_shown(rows, objective["maximize"]), objective["percent"])
    numbers = [n for n, _, _, _ in rows]
    ax.fill_between(
        numbers,
        [low for _, _, low, _ in rows],
        [high for _, _, _, high in rows],
        color=ACCENT,
        alpha=0.16,
        lw=0,
    )
    ax.plot(
        numbers,
        [mean for _, mean, _, _ in rows],
        color=ACCENT,
        lw=1.6,
    )
    ax.set_xlim(1, max(numbers))
    set_round_xticks(ax, 6, whole=True)
    ax.set_xlabel("trials")
    ax.set_title(f"expected best {objective_label(objective)}")
    remove_frame(ax)
    return figure


def _range_shown(rows: Sequence[_Row], maximize: bool) -> Range:
    """From the best of two on: one trial alone is expected to be poor."""
    means = [mean for _, mean, _, _ in rows[1:]]
    worst = min(means) if maximize else max(means)
    best = rows[-1][1]
    pad = 0.05 * abs(best - worst) or max(abs(best) * 0.01, 1e-3)
    return Range(min(worst, best) - pad, max(worst, best) + pad)


def _caption(rows: Sequence[_Row], objective: ObjectiveRow) -> str:
    half = rows[max(1, len(rows) // 2) - 1]
    of_half = score(half[1], objective["percent"])
    of_all = score(rows[-1][1], objective["percent"])
    return (
        f"Expected best score of n of these {len(rows)} trials (line) and its quartiles (band),"
        " by the unbiased estimator of Tang et al. (2020)."
        f" Half the trials would have reached {of_half} on average, all reached {of_all}."
        " Pruned trials count with their last score."
    )
