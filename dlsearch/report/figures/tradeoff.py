"""The figure of a study of several objectives: the Pareto set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report.figures.plate import NARROW, WIDE, Plate, diamond, dots, finish, note
from dlsearch.report.figures.scales import Scale, focus, label
from dlsearch.report.figures.svg import ACCENT, MUTED, canvas
from dlsearch.report.formats import number, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Ratio of the largest to the smallest value from which an objective is drawn on a logarithmic axis.
DECADES = 30


def pareto(f: dict[str, Any]) -> Plate | None:
    """The first two objectives of all completed trials, with the Pareto set."""
    done = [t for t in f["trials"] if t["scored"]]
    if len(f["objectives"]) < 2 or not done:
        return None
    first, second = f["objectives"][:2]
    front = [t for t in done if t["number"] in f["pareto"]]
    up, across = (_scale(f, done, front, i) for i in (0, 1))

    def place(t: dict[str, Any]) -> tuple[float, float]:
        x, y = across.at(t["values"][1]), up.at(t["values"][0])
        return min(max(x or 0.0, 0.0), 1.0), min(max(y or 0.0, 0.0), 1.0)

    def draw(width: int, height: int) -> Figure:
        figure = canvas(width, height)
        ax = figure.add_subplot()
        rest = [place(t) for t in done if t not in front]
        hollow = {"mfc": "none", "mec": MUTED, "mew": 0.8}
        dots(ax, "complete", [x for x, _ in rest], [y for _, y in rest], **hollow)
        border = sorted(place(t) for t in front)
        if len(f["objectives"]) == 2 and len(border) > 1:
            # A trial stands for all that it dominates: the set's border is a stair.
            xs, ys = zip(*border, strict=True)
            ax.step(xs, ys, where="pre" if second["maximize"] else "post", color=ACCENT, lw=1.2, zorder=2)
        dots(ax, "complete", [x for x, _ in border], [y for _, y in border], ms=6)
        for t in front if len(front) <= 14 else []:
            note(ax, str(t["number"]), place(t), (0, 6), fontsize=8, ha="center")
        default = next((t for t in done if t["number"] == f["default"]), None)
        if default:
            diamond(ax, *place(default))
        for scale, objective, ticks, limits in (
            (across, second, ax.set_xticks, ax.set_xlim),
            (up, first, ax.set_yticks, ax.set_ylim),
        ):
            marks = scale.ticks(6 if width > 500 else 4)
            if objective["percent"]:
                # As the label says, in per cent.
                wide = Scale(scale.name, scale.kind, 100 * scale.low, 100 * scale.high)
                marks = wide.ticks(6 if width > 500 else 4)
            ticks([at for at, _ in marks], [text for _, text in marks])
            limits(-0.04, 1.06)
        ax.grid(axis="y")
        ax.set_axisbelow(True)
        ax.set_xlabel(label(second))
        ax.set_title(label(first))
        finish(ax)
        return figure

    caption = (
        f"Filled: the {plural(len(front), 'trial')} that no other dominates, by number; rings: other completed trials;"
        " diamond: the default configuration."
    )
    if len(f["objectives"]) > 2:
        caption += f" The first two of {number(len(f['objectives']))} objectives."
    alt = f"{first['name']} against {second['name']} for {plural(len(done), 'completed trial')}. {caption}"
    return Plate("pareto", "Pareto set", caption, alt, draw(WIDE, 380), draw(NARROW, 320), "full")


def _scale(f: dict[str, Any], done: list[dict[str, Any]], front: list[dict[str, Any]], i: int) -> Scale:
    """The scale of objective `i`: every member of the set lies on it, whatever becomes of the poorest trials."""
    name, values = str(f["objectives"][i]["name"]), [t["values"][i] for t in done]
    if min(values) > 0 and max(values) / min(values) >= DECADES:
        return Scale(name, "log", min(values), max(values))
    shown = focus(values, f["objectives"][i]["maximize"])
    kept = [t["values"][i] for t in front]
    return Scale(name, "linear", min(shown.low, *kept), max(shown.high, *kept))
