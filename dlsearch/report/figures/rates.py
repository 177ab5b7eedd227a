"""The figure of a learning-rate range test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report.figures.plate import NARROW, WIDE, Plate, finish, note
from dlsearch.report.figures.scales import Scale
from dlsearch.report.figures.svg import ACCENT, BAD, FAINT, MUTED, PAPER, canvas
from dlsearch.report.formats import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rates(found: dict[str, Any]) -> Plate:
    """The loss by the learning rate: as measured, smoothed, and what it speaks for."""
    xs, losses, smooth = found["rates"], found["losses"], found["smooth"]
    start = sum(smooth[: max(1, len(smooth) // 20)]) / max(1, len(smooth) // 20)
    low, high = min(smooth), max(start, sorted(smooth)[len(smooth) // 2])
    pad = 0.12 * (high - low) or max(abs(high) * 0.05, 1e-6)
    low, high = low - pad, high + 2 * pad

    def draw(width: int) -> Figure:
        figure = canvas(width, 300)
        ax = figure.add_subplot()
        ax.set_xscale("log")
        ax.set_ylim(low, high)
        ax.set_xlim(xs[0], xs[-1])
        if found["begins"] is not None:
            ax.axvspan(found["begins"], found["least"], color=FAINT, lw=0, zorder=0)
        inside = [(x, v) for x, v in zip(xs, losses, strict=True) if low <= v <= high]
        ax.plot([x for x, _ in inside], [v for _, v in inside], ls="none", marker="o", ms=2.4, mfc=MUTED, mec="none",
                alpha=0.55)  # fmt: skip
        ax.plot(xs, smooth, color=ACCENT, lw=1.8)
        if found["suggestion"] is not None:
            at = found["suggestion"]
            ax.axvline(at, color=BAD, lw=1.0)
            y = smooth[min(range(len(xs)), key=lambda i: abs(xs[i] - at))]
            ax.plot([at], [y], "o", ms=5.5, mfc=PAPER, mec=BAD, mew=1.3, zorder=4)
            right = at > (xs[0] * xs[-1]) ** 0.5
            note(ax, f"steepest: {number(at)}", (at, high), (-4 if right else 4, -10), color=BAD, fontsize=8.5,
                 ha="right" if right else "left")  # fmt: skip
        ticks = Scale("lr", "log", xs[0], xs[-1]).ticks(8 if width > 500 else 5)
        ax.set_xticks([xs[0] * (xs[-1] / xs[0]) ** place for place, _ in ticks], [name for _, name in ticks])
        ax.minorticks_off()
        from matplotlib.ticker import MaxNLocator

        ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
        ax.grid(axis="y")
        ax.set_axisbelow(True)
        ax.set_xlabel("learning rate")
        ax.set_title("training loss")
        finish(ax)
        return figure

    caption = (
        f"Loss of each of {len(xs)} training steps (dots) and its moving average (line), the learning rate growing"
    )
    caption += f" from {number(found['low'])} to {number(xs[-1])}"
    caption += ", where it had diverged." if found["diverged"] else "."
    if found["suggestion"] is None:
        caption += " The loss never falls: nothing can be suggested."
    else:
        caption += f" Shaded: from where the loss begins to fall ({number(found['begins'])}) to where it is least"
        caption += f" ({number(found['least'])}); it falls most steeply at {number(found['suggestion'])}."
    return Plate("lr-range", "Learning-rate range test", caption, caption, draw(WIDE), draw(NARROW), "full")
