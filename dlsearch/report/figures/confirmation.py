"""Figures of the confirmation: every replica with its mean and interval, paired differences, and optimism."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report.figures.plate import HALF, NARROW, WIDE, Plate, finish, note
from dlsearch.report.figures.scales import Range, label, score_axis
from dlsearch.report.figures.svg import ACCENT, FAINT, INK, MUTED, PAPER, canvas
from dlsearch.report.formats import difference, interval, listed, plural, probability, score, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A wide line with square ends at its ends, so that it is as long as the interval.
_BAND: dict[str, Any] = {"lw": 6, "alpha": 0.28, "solid_capstyle": "butt"}
_DOT: dict[str, Any] = {"ls": "none", "marker": "o", "ms": 4.4, "mew": 0.8, "zorder": 4, "clip_on": False}


def _whole(values: Sequence[float]) -> Range:
    """A range that cuts nothing off: of a handful of replicas each one counts."""
    low, high = min(values), max(values)
    pad = 0.07 * (high - low) or max(abs(high) * 0.01, 1e-3)
    return Range(low - pad, high + pad, 0)


def _stacked(xs: Sequence[float], y: float, shown: Range) -> tuple[list[float], list[float]]:
    """Places of marks along a row; those that would cover one another go below one another."""
    near = 0.008 * (shown.high - shown.low)
    rows: list[float] = []
    places = sorted(xs)
    out: list[float] = []
    for x in places:
        row = next((i for i, last in enumerate(rows) if x - last > near), len(rows))
        rows[row : row + 1] = [x]
        out.append(y + 0.11 * row)
    return places, out


def _look(row: dict[str, Any]) -> str:
    return ACCENT if row["winner"] else MUTED


def _name(row: dict[str, Any]) -> str:
    if row["default"]:
        return "default" + (f" ({row['trial_number']})" if row["trial_number"] is not None else "")
    return f"trial {row['trial_number']}" if row["trial_number"] is not None else "no trial"


def replicas(f: dict[str, Any]) -> Plate | None:
    """Every replica's score, a row a finalist, with mean, interval and the score of the search."""
    c, objective = f["confirmation"], f["objectives"][0]
    rows = [r for r in c["finalists"] if r["n"]] if c else []
    if not rows:
        return None
    values = [v["value"] for r in rows for v in r["replicas"] if v["value"] is not None]
    values += [r["search_value"] for r in rows if r["search_value"] is not None]
    values += [x for r in rows for x in r["interval"] or ()]
    shown = _whole(values)

    def draw(width: int) -> Figure:
        figure = canvas(width, 78 + 54 * len(rows))
        ax = figure.add_subplot()
        score_axis(ax, shown, objective["percent"], axis="x", most=7 if width > 500 else 4)
        ax.grid(axis="x")
        for y, r in enumerate(rows):
            colour = _look(r)
            ax.axhline(y, color=FAINT, lw=1, zorder=0)
            if r["interval"] or r["student"]:
                ax.plot(r["interval"] or r["student"], [y, y], color=colour, zorder=2, **_BAND)
            xs = [v["value"] for v in r["replicas"] if v["value"] is not None]
            ax.plot(*_stacked(xs, y + 0.22, shown), mfc=PAPER, mec=colour, **_DOT)
            ax.plot([r["mean"]] * 2, [y - 0.17, y + 0.17], color=colour, lw=2.2, zorder=5)
            if r["search_value"] is not None:
                ax.plot([r["search_value"]], [y - 0.27], marker="v", ms=4.6, mfc="none", mec=INK, mew=0.9, ls="none")
        names = [_name(r) + (" ★" if r["winner"] else "") for r in rows]
        ax.set_yticks(range(len(rows)), names)
        for tick, r in zip(ax.get_yticklabels(), rows, strict=True):
            tick.set_color(INK)
            tick.set_fontweight("bold" if r["winner"] else "normal")
        ax.set_ylim(len(rows) - 0.3, -0.5)
        ax.set_xlabel(label(objective))
        finish(ax)
        _key(ax, width)
        for y, r in enumerate(rows):
            if r["dropped_after"] is not None and width > 500:
                text = f"dropped after {plural(r['dropped_after'], 'seed')}"
                note(ax, text, (shown.high, y), (0, 4), ha="right", fontsize=8, color=MUTED)
        return figure

    caption = "One row a configuration, the winner first: a ring each replica, the upright line their mean, the band"
    methods = sorted({r["method"] or "Student" for r in rows if r["interval"] or r["student"]})
    caption += f" its 95 % interval ({listed(methods)})." if methods else " its interval, where there is one."
    caption += " The triangle is the score of the search, from one training."
    dropped = [r for r in rows if r["dropped_after"] is not None]
    if dropped:
        caption += " Racing dropped " + listed(
            [f"{_name(r)} after {plural(r['dropped_after'], 'seed')}" for r in dropped]
        )
        caption += ": the others' lead could not be caught up."
    alt = f"{objective['name']} over fresh seeds. " + " ".join(
        f"{_name(r)}: mean {score(r['mean'], objective['percent'])} of {plural(r['n'], 'replica')}"
        + (f", interval {interval(r['interval'], objective['percent'])}." if r["interval"] else ".")
        for r in rows
    )
    return Plate("confirmation", "Every replica", caption, alt, draw(WIDE), draw(NARROW), "full")


def _key(ax: Axes, width: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="none", marker="o", ms=4.4, mfc=PAPER, mec=ACCENT, mew=0.8, label="replica"),
        Line2D([], [], ls="none", marker="|", ms=9, mec=ACCENT, mew=2.2, label="mean"),
        Line2D([], [], color=ACCENT, **_BAND, label="95 % interval"),
        Line2D([], [], ls="none", marker="v", ms=4.6, mfc="none", mec=INK, mew=0.9, label="in the search"),
    ]
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1.01)}
    if width < 500:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1.01)}
    ax.legend(handles=handles, ncols=4 if width > 500 else 2, handlelength=1.8, handletextpad=0.5, **place)


def differences(f: dict[str, Any]) -> Plate | None:
    """The winner minus each other finalist, on the same seeds."""
    c, objective = f["confirmation"], f["objectives"][0]
    rows = [r for r in c["comparisons"] if r["n"]] if c else []
    if not rows:
        return None
    scale = 100 if objective["percent"] else 1
    values = [scale * d for r in rows for d in r["differences"]] + [0.0]
    values += [scale * x for r in rows for x in r["interval"] or ()]
    shown = _whole(values)
    figure = canvas(HALF, 84 + 54 * len(rows))
    ax = figure.add_subplot()
    score_axis(ax, shown, False, axis="x", most=5)
    ax.grid(axis="x")
    ax.axvline(0, color=INK, lw=1, zorder=1)
    for y, r in enumerate(rows):
        ax.axhline(y, color=FAINT, lw=1, zorder=0)
        if r["interval"] or r["student"]:
            ends = [scale * x for x in r["interval"] or r["student"]]
            ax.plot([min(max(x, shown.low), shown.high) for x in ends], [y, y], color=ACCENT, **_BAND)
        xs = [scale * d for d in r["differences"]]
        ax.plot(*_stacked(xs, y + 0.22, shown), mfc=PAPER, mec=ACCENT, **_DOT)
        ax.plot([scale * r["mean"]] * 2, [y - 0.17, y + 0.17], color=ACCENT, lw=2.2, zorder=5)
    ax.set_yticks(range(len(rows)), [f"against {_name(c['finalists'][r['with']])}" for r in rows])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_ylim(len(rows) - 0.3, -0.5)
    unit = "percentage points" if objective["percent"] else short(str(objective["name"]), 30)
    ax.set_xlabel(f"winner better by ({unit})")
    finish(ax)
    told = [
        f"{_name(c['finalists'][r['with']])} {probability(r['probability'])}"
        for r in rows
        if r["probability"] is not None
    ]
    caption = "Difference to the winner, seed by seed; right of the line the winner is better."
    if told:
        caption += f" Probability that its mean is better: against {listed(told)}."
    alt = "Paired differences over the seeds. " + " ".join(
        f"Against {_name(c['finalists'][r['with']])}: {difference(r['mean'], objective['percent'])} on average,"
        f" better on {r['better']} of {r['n']}."
        for r in rows
    )
    return Plate("differences", "Seed by seed", caption, alt, figure)


def optimism(f: dict[str, Any]) -> Plate | None:
    """From the score of the search to the mean over fresh seeds, a line each finalist."""
    c, o, objective = f["confirmation"], f["optimism"], f["objectives"][0]
    if o is None:
        return None
    rows = [r for r in c["finalists"] if r["search_value"] is not None and r["mean"] is not None]
    if not rows:
        return None
    values = [x for r in rows for x in (r["search_value"], r["mean"], *(r["interval"] or ()))]
    shown = _whole(values)
    figure = canvas(HALF, 270)
    ax = figure.add_subplot()
    score_axis(ax, shown, objective["percent"])
    for r in sorted(rows, key=lambda r: r["winner"]):
        colour, first = _look(r), r["winner"]
        ax.plot([0, 1], [r["search_value"], r["mean"]], color=colour, lw=2 if first else 1.1, zorder=3 + first)
        ax.plot([0], [r["search_value"]], marker="v", ms=5, mfc=PAPER, mec=colour, ls="none", zorder=5)
        ax.plot([1], [r["mean"]], marker="o", ms=5, mfc=colour, mec=PAPER, mew=0.6, ls="none", zorder=5)
        if r["interval"] and (first or r["default"]):
            ax.plot([1, 1], r["interval"], color=colour, zorder=2, **_BAND)
    gap = 0.06 * (shown.high - shown.low)
    placed = shown.low - 1
    for r in sorted(rows, key=lambda r: r["mean"]):
        placed = max(r["mean"], placed + gap)
        weight = "bold" if r["winner"] else "normal"
        note(ax, _name(r), (1, placed), (9, -3), color=_look(r), weight=weight, fontsize=8.5)
    ax.set_xlim(-0.12, 1.42)
    ax.set_xticks([0, 1], ["in the search\n(one training)", "mean of\nfresh seeds"])
    ax.tick_params(axis="x", length=0)
    ax.spines["bottom"].set_visible(False)
    ax.set_title(label(objective))
    finish(ax)
    drop = difference(o["drop"], objective["percent"]).lstrip("+−")
    if o["drop"] > 0:
        told = f"{drop} less than the best score that the search saw"
    else:
        told = f"no less than the best score that the search saw ({drop} more)" if o["drop"] else "what the search saw"
    caption = (
        f"The winner's mean is {told}; the band is its 95 % interval."
        if o["interval"]
        else (f"The winner's mean is {told}.")
    )
    return Plate("optimism", "Search against fresh seeds", caption, f"{objective['name']}. {caption}", figure)
