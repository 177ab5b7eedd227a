"""Figures of the course of a search: trials and best so far, results, curves, the Pareto set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report.figures import plate
from dlsearch.report.figures.plate import HALF, NARROW, WIDE, Plate, diamond, dots, finish, legend, note, ring
from dlsearch.report.figures.scales import Range, focus, label, score_axis, xticks
from dlsearch.report.figures.svg import ACCENT, MUTED, canvas
from dlsearch.report.formats import listed, plural, score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _present(f: dict[str, Any]) -> list[str]:
    shown = [s for s in plate.NAMES if f["accounting"]["counts"][s]]
    return [s for s in shown if s != "running" or any(t["standing"] is not None for t in f["trials"])]


def course(f: dict[str, Any]) -> Plate | None:
    """All trials by number, with the best so far."""
    objective = f["objectives"][0]
    scores = [t["standing"] for t in f["trials"] if t["standing"] is not None]
    if len(scores) < 2:
        return None
    shown = focus(scores, objective["maximize"])
    by_number = {t["number"]: t for t in f["trials"]}
    # Where fresh seeds chose another trial than the search, both are marked.
    confirmed = by_number.get(f["winner"]) if f["winner"] != f["best"] else None
    confirmed = confirmed if confirmed and confirmed["scored"] else None
    steps, last = f["course"]["best_so_far"], f["trials"][-1]["number"]

    def draw(width: int, height: int) -> Figure:
        figure = canvas(width, height)
        ax = figure.add_subplot()
        score_axis(ax, shown, objective["percent"])
        rim = shown.low if objective["maximize"] else shown.high
        for state in _present(f):
            here = [t for t in f["trials"] if t["state"] == state]
            marks = {"ms": 3.2} if len(f["trials"]) > 200 else {}
            if state == "failed":
                dots(ax, state, [t["number"] for t in here], [rim] * len(here), **marks)
                continue
            here = [t for t in here if t["standing"] is not None]
            inside = [t for t in here if not shown.outside(t["standing"])]
            beyond = [t for t in here if shown.outside(t["standing"])]
            dots(ax, state, [t["number"] for t in inside], [t["standing"] for t in inside], **marks)
            dots(ax, state, [t["number"] for t in beyond], [rim] * len(beyond), **(marks | {"alpha": 0.45}))
        if steps:
            xs, ys = [n for n, _ in steps] + [last], [shown.inside(v) for _, v in steps] + [steps[-1][1]]
            ax.step(xs, ys, where="post", color=ACCENT, lw=1.5, zorder=2)
        default, winner = by_number.get(f["default"]), by_number.get(f["best"])
        if default and default["scored"]:
            diamond(ax, default["number"], shown.inside(default["values"][0]))
        if winner:
            ring(ax, winner["number"], winner["values"][0])
            right = winner["number"] > 0.7 * last
            text = f"trial {winner['number']}: {score(winner['values'][0], objective['percent'])}"
            note(
                ax,
                text,
                (winner["number"], winner["values"][0]),
                (-7, 5) if right else (7, 5),
                ha="right" if right else "left",
                weight="bold",
            )
        if confirmed:
            ring(ax, confirmed["number"], shown.inside(confirmed["values"][0]))
            note(
                ax,
                f"winner, trial {confirmed['number']}",
                (confirmed["number"], shown.inside(confirmed["values"][0])),
                (0, -15),
                ha="right" if confirmed["number"] > 0.7 * last else "center",
            )
        pad = max(0.5, 0.012 * last)
        ax.set_xlim(-pad, last + pad)
        xticks(ax, 8 if width > 500 else 5, whole=True)
        ax.set_xlabel("trial")
        ax.set_title(label(objective, 60 if width > 500 else 30))
        finish(ax)
        where: dict[str, Any] = (
            {"loc": "lower right", "bbox_to_anchor": (1, 1.02)}
            if width > 500
            else {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "columns": 3}
        )
        told = bool(default and default["scored"])
        legend(ax, _present(f), winner=winner is not None, default=told, **where)
        return figure

    caption = "Each trial's score by its number; the line is the best so far. Pruned trials stand at their last score"
    caption += "; failed ones on the rim." if f["accounting"]["counts"]["failed"] else "."
    if shown.cut:
        caption += (
            f" The axis shows the better part of the range: {plural(shown.cut, 'trial')} with a"
            f" {'lower' if objective['maximize'] else 'higher'} score stand pale on the rim."
        )
    alt = f"{objective['name']} of {plural(len(scores), 'trial')} by number. " + (
        f"The best so far improves {plural(len(steps), 'time')}, last at trial {steps[-1][0]}"
        f" with {score(steps[-1][1], objective['percent'])}."
        if steps
        else "None is complete."
    )
    return Plate("course", "Course of the search", caption, alt, draw(WIDE, 340), draw(NARROW, 290), "full")


def distribution(f: dict[str, Any]) -> Plate | None:
    """The empirical distribution of the completed trials' scores."""
    points, objective = f["course"]["distribution"], f["objectives"][0]
    done = [t["values"][0] for t in f["trials"] if t["scored"]]
    if len(done) < 2 or len(f["objectives"]) > 1:
        return None
    shown = focus(done, objective["maximize"])
    figure = canvas(HALF, 290)
    ax = figure.add_subplot()
    score_axis(ax, shown, objective["percent"], axis="x")
    before = max((share for x, share in points if x < shown.low), default=0.0)
    inside = [(x, share) for x, share in points if not shown.outside(x)]
    xs = [shown.low, *(x for x, _ in inside), shown.high]
    ys = [before, *(share for _, share in inside)]
    ax.step(xs, [*ys, ys[-1]], where="post", color=ACCENT, lw=1.5, clip_on=False)
    ax.set_ylim(0, 1.04)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    ax.grid(axis="y")
    ax.set_title("share of completed trials at or below (%)")
    ax.set_xlabel(label(objective))
    by_number = {t["number"]: t for t in f["trials"]}
    default = by_number.get(f["default"])
    height = dict(points)
    if default and default["scored"] and not shown.outside(default["values"][0]):
        x = default["values"][0]
        diamond(ax, x, height[x])
        left = x > (shown.low + shown.high) / 2
        note(ax, "default", (x, height[x]), (-7, 4) if left else (7, -9), ha="right" if left else "left")
    finish(ax)
    median = f["course"]["median"]
    caption = f"Half of the {plural(len(done), 'completed trial')} reached {score(median, objective['percent'])} or "
    caption += "more." if objective["maximize"] else "less."
    if shown.cut:
        caption += f" {plural(shown.cut, 'trial')} beyond the axis."
    return Plate(
        "distribution",
        "Distribution of results",
        caption,
        f"Empirical distribution of {objective['name']}: {caption}",
        figure,
    )


def expected(f: dict[str, Any]) -> Plate | None:
    """What a budget of n trials buys, where the trials are independent."""
    rows, objective = f["course"]["expected_best"], f["objectives"][0]
    if not rows:
        return None
    figure = canvas(HALF, 290)
    ax = figure.add_subplot()
    # One trial alone is expected to be poor; the axis begins with the best of two, to leave room for the rest.
    means, best = [row[1] for row in rows[1:]], rows[-1][1]
    worst = min(means) if objective["maximize"] else max(means)
    pad = 0.05 * abs(best - worst) or max(abs(best) * 0.01, 1e-3)
    shown = Range(min(worst, best) - pad, max(worst, best) + pad, 0)
    score_axis(ax, shown, objective["percent"])
    xs = [r[0] for r in rows]
    ax.fill_between(xs, [r[2] for r in rows], [r[3] for r in rows], color=ACCENT, alpha=0.16, lw=0)
    ax.plot(xs, [r[1] for r in rows], color=ACCENT, lw=1.6)
    ax.set_xlim(1, max(xs))
    xticks(ax, 6, whole=True)
    ax.set_xlabel("trials")
    ax.set_title(f"expected best {label(objective)}")
    finish(ax)
    total, at = len(rows), max(1, len(rows) // 2)
    caption = (
        f"Expected best score of n of these {total} trials (line) and its quartiles (band), by the unbiased estimator"
        f" of Tang et al. (2020). Half the trials would have reached {score(rows[at - 1][1], objective['percent'])} on"
        f" average, all reached {score(rows[-1][1], objective['percent'])}. Pruned trials count with their last score."
    )
    return Plate("budget", "What the budget bought", caption, caption, figure)


def curves(f: dict[str, Any]) -> Plate | None:
    """Learning curves of the leaders before those of the others."""
    if not f["leaders"] or len(f["objectives"]) > 1:
        return None
    objective = f["objectives"][0]
    leaders = [next(t for t in f["trials"] if t["number"] == n) for n in f["leaders"]]
    others = plate.thinned(
        [t for t in f["trials"] if len(t["intermediate"]) > 1 and t["number"] not in f["leaders"]],
        objective["maximize"],
        60,
    )
    late = [v for t in leaders for _, v in t["intermediate"]] + [t["standing"] for t in others]
    shown = focus(late, objective["maximize"])
    figure = canvas(HALF, 290)
    ax = figure.add_subplot()
    score_axis(ax, shown, objective["percent"])
    for t in others:
        ax.plot(*zip(*t["intermediate"], strict=True), color=MUTED, lw=0.6, alpha=0.35)
    for i, t in reversed(list(enumerate(leaders))):
        xs, ys = zip(*t["intermediate"], strict=True)
        ax.plot(xs, ys, color=ACCENT, lw=1.9 if i == 0 else 1.0, alpha=1 if i == 0 else 0.65)
        if t["best_epoch"] in xs:
            ax.plot([t["best_epoch"]], [ys[xs.index(t["best_epoch"])]], "o", ms=3.6, color=ACCENT)
    _end_labels(ax, leaders)
    first = min(x for t in leaders for x, _ in t["intermediate"])
    ax.set_xlim(first, max(x for t in [*leaders, *others] for x, _ in t["intermediate"]))
    xticks(ax, 6, whole=True)
    ax.set_xlabel("epoch")
    ax.set_title(label(objective))
    finish(ax)
    names = listed([str(t["number"]) for t in leaders])
    caption = f"Trials {names} in colour, the best one bold," if len(leaders) > 1 else f"Trial {names} in colour,"
    caption += " with a dot at the best epoch; other trials grey." if others else " with a dot at the best epoch."
    if shown.cut:
        caption += " Scores below the axis are cut off." if objective["maximize"] else " Higher scores are cut off."
    return Plate("curves", "Curves of the leaders", caption, f"{objective['name']} by epoch. {caption}", figure)


def _end_labels(ax: Any, leaders: list[dict[str, Any]]) -> None:
    """Number each curve at its end, kept apart from one another."""
    low, high = ax.get_ylim()
    gap = 0.05 * (high - low)
    ends = sorted((t["intermediate"][-1][1], t["intermediate"][-1][0], t["number"]) for t in leaders)
    placed: list[float] = []
    for y, _, _ in ends:
        placed.append(max(y, placed[-1] + gap) if placed else y)
    shift = max(0.0, placed[-1] - high + gap / 2)
    right = max(x for _, x, _ in ends)
    for at, (y, x, n) in zip(placed, ends, strict=True):
        note(
            ax,
            str(n),
            (right, at - shift),
            (5, -3),
            color=ACCENT,
            fontsize=8,
            weight="bold" if n == leaders[0]["number"] else "normal",
        )
        if x < right:
            ax.plot([x, right], [y, at - shift], color=ACCENT, lw=0.5, ls=(0, (1, 2)), alpha=0.6)
