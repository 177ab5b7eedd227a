"""The figures of a comparison: confirmed scores, and what equal budgets buy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.compare.models import BudgetCurve
from dlsearch.report.facts.intervals import quote_interval
from dlsearch.report.figures.axes import (
    Range,
    objective_label,
    padded_range,
    remove_frame,
    set_round_xticks,
    set_score_axis,
)
from dlsearch.report.figures.canvas import ACCENT, BAD, INK, MUTED, new_figure
from dlsearch.report.figures.marks import draw_mark
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.formats import listed, score, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.compare.models import (
        BestTrial,
        ComparedStudy,
        Comparison,
        ConfirmedMean,
        ObjectiveFacts,
    )
    from dlsearch.report.figures.marks import Look, Place

#: One line a study: colour and dashes, so that they are distinct without colour too.
LINES: tuple[Look, ...] = (
    {"color": ACCENT, "ls": "-"},
    {"color": BAD, "ls": (0, (5, 2))},
    {"color": INK, "ls": (0, (1, 1.5))},
    {"color": MUTED, "ls": (0, (6, 2, 1, 2))},
    {"color": ACCENT, "ls": (0, (2, 2))},
    {"color": BAD, "ls": "-"},
)
#: Share by which a range is wider than the scores.
PAD_SHARE = 0.08
MARGIN_HEIGHT = 90
ROW_HEIGHT = 44


@dataclass(frozen=True)
class _Row:
    """A study with a confirmed winner."""

    name: str
    confirmed: ConfirmedMean
    best: BestTrial | None


@dataclass(frozen=True)
class _Curve:
    """What budgets buy in one study: numbers of trials, and the score of each."""

    name: str
    points: list[Place]

    @property
    def end(self) -> Place:
        """The whole budget, and its score."""
        return self.points[-1]


def draw_confirmed(comparison: Comparison) -> Plate | None:
    """Each training of each winner, with mean and interval."""
    rows = [
        _Row(study["name"], study["confirmed"], study["best"])
        for study in comparison["studies"]
        if study["confirmed"] is not None
    ]
    if not rows:
        return None
    objective = comparison["objective"]
    percent = objective["percent"]
    shown = _range_of_rows(rows)
    means: list[str] = []
    for row in rows:
        mean = score(row.confirmed["mean"], percent)
        means.append(f"{row.name} {mean}")
    return Plate(
        key="confirmed",
        title="Confirmed scores",
        caption=(
            "Rings: each winner's trainings on fresh seeds; bar and band: their mean and its 95 %"
            f" interval ({_methods_of(rows)}); cross: the best score of the search."
        ),
        alt=f"Confirmed means of {objective['name']}: {', '.join(means)}.",
        wide=_draw_rows(
            rows,
            shown,
            objective,
            WIDE,
        ),
        narrow=_draw_rows(
            rows,
            shown,
            objective,
            NARROW,
        ),
        size=PlateSize.FULL,
    )


def _ends_of(row: _Row) -> Sequence[float]:
    """Of the interval that is quoted; none where there is none."""
    quoted = quote_interval(row.confirmed)
    return () if quoted is None else quoted.ends


def _methods_of(rows: Sequence[_Row]) -> str:
    quoted = [quote_interval(row.confirmed) for row in rows]
    methods = {each.method for each in quoted if each is not None}
    return listed(sorted(methods)) if methods else "where there is one"


def _range_of_rows(rows: Sequence[_Row]) -> Range:
    values: list[float] = []
    for row in rows:
        values += row.confirmed["values"]
        values += _ends_of(row)
        if row.best is not None:
            values.append(row.best["value"])
    return padded_range(values, PAD_SHARE)


def _draw_rows(
    rows: Sequence[_Row],
    shown: Range,
    objective: ObjectiveFacts,
    width: int,
) -> Figure:
    spacious = is_spacious(width)
    figure = new_figure(width, MARGIN_HEIGHT + ROW_HEIGHT * len(rows))
    ax = figure.add_subplot()
    set_score_axis(
        ax,
        shown,
        objective["percent"],
        axis="x",
        most=6 if spacious else 4,
    )
    for y, row in enumerate(rows):
        _draw_row(ax, row, y)
    names = [short(row.name, 24 if spacious else 12) for row in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="x")
    ax.set_xlabel(objective_label(objective, 60 if spacious else 30))
    remove_frame(ax)
    return figure


def _draw_row(ax: Axes, row: _Row, y: int) -> None:
    confirmed = row.confirmed
    ends = _ends_of(row)
    if ends:
        ax.plot(
            ends,
            [y, y],
            color=ACCENT,
            lw=5,
            alpha=0.25,
            solid_capstyle="butt",
        )
    ax.plot(
        confirmed["values"],
        [y] * confirmed["n"],
        ls="none",
        marker="o",
        ms=4.6,
        mfc="none",
        mec=MUTED,
        mew=0.9,
    )
    draw_mark(
        ax,
        confirmed["mean"],
        y,
        "|",
        ms=17,
        mew=2.2,
        color=ACCENT,
        zorder=4,
    )
    if row.best is not None:
        draw_mark(
            ax,
            row.best["value"],
            y,
            "x",
            ms=6,
            mew=1.3,
            color=BAD,
            zorder=3,
        )


def draw_budget(comparison: Comparison) -> Plate | None:
    """What budgets bought: the expected best of n trials, or the best so far."""
    kind = comparison["curves"]["kind"]
    if kind is None:
        return None
    expected = kind == BudgetCurve.EXPECTED
    curves = _expected_curves(comparison) if expected else _best_so_far_curves(comparison)
    objective = comparison["objective"]
    percent = objective["percent"]
    caption = _budget_caption(expected)
    ends: list[str] = []
    for curve in curves:
        _, last = curve.end
        ends.append(f"{curve.name} {score(last, percent)}")
    return Plate(
        key="budget",
        title="What equal budgets buy",
        caption=caption,
        alt=f"{caption} In the end: {', '.join(ends)}.",
        wide=_draw_curves(
            curves,
            objective,
            WIDE,
            expected=expected,
        ),
        narrow=_draw_curves(
            curves,
            objective,
            NARROW,
            expected=expected,
        ),
        size=PlateSize.FULL,
    )


def _expected_curves(comparison: Comparison) -> list[_Curve]:
    curves: list[_Curve] = []
    for study in comparison["studies"]:
        points: list[Place] = [(n, mean) for n, mean, _, _ in study["expected_best"]]
        curves.append(_Curve(study["name"], points))
    return curves


def _best_so_far_curves(comparison: Comparison) -> list[_Curve]:
    with_scores = [study for study in comparison["studies"] if study["best_so_far"]]
    return [_Curve(study["name"], _best_so_far_points(study)) for study in with_scores]


def _best_so_far_points(study: ComparedStudy) -> list[Place]:
    """The steps of the best score by the count of trials, up to the last trial."""
    steps: list[Place] = [(number + 1, value) for number, value in study["best_so_far"]]
    last_count, last_value = steps[-1]
    return [*steps, (max(study["trials"]["run"], last_count), last_value)]


def _range_of_curves(curves: Sequence[_Curve]) -> Range:
    """From the second trial on there is something to see: one trial alone may be poor."""
    values = [value for curve in curves for count, value in curve.points if count >= 2]
    return padded_range(values or [curve.points[0][1] for curve in curves], PAD_SHARE)


def _draw_curves(
    curves: Sequence[_Curve],
    objective: ObjectiveFacts,
    width: int,
    *,
    expected: bool,
) -> Figure:
    shown = _range_of_curves(curves)
    figure = new_figure(width, 320 if is_spacious(width) else 280)
    ax = figure.add_subplot()
    set_score_axis(ax, shown, objective["percent"])
    for index, curve in enumerate(curves):
        look: Look = {
            **LINES[index % len(LINES)],
            "lw": 1.7,
            "label": short(curve.name, 24),
        }
        _draw_curve(
            ax,
            curve,
            shown,
            look,
            expected=expected,
        )
    ax.set_xlim(1, max(2, *(curve.end[0] for curve in curves)))
    set_round_xticks(ax, 8 if is_spacious(width) else 5, whole=True)
    ax.set_xlabel("trials")
    what = "expected best" if expected else "best so far"
    ax.set_title(f"{what}, {objective_label(objective, 30)}")
    ax.legend(
        loc="lower right" if objective["maximize"] else "upper right",
        handlelength=3.2,
        handletextpad=0.6,
    )
    remove_frame(ax)
    return figure


def _draw_curve(
    ax: Axes,
    curve: _Curve,
    shown: Range,
    look: Look,
    *,
    expected: bool,
) -> None:
    counts = [count for count, _ in curve.points]
    values = [shown.clamp(value) for _, value in curve.points]
    if expected:
        ax.plot(counts, values, **look)
    else:
        ax.step(
            counts,
            values,
            where="post",
            **look,
        )


def _budget_caption(expected: bool) -> str:
    if expected:
        return (
            "Expected best score of n trials, by the unbiased estimator of Tang et al. (2020): the"
            " samplers do not look at earlier results, so that any order is as likely. Pruned"
            " trials count with their last score."
        )
    return (
        "Best score so far, in the order of the trials. A sampler that learns from earlier results"
        " has one course only: this is no expectation of what another search would find."
    )
