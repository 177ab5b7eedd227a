"""The figure of the test: the confusion matrix."""

from __future__ import annotations

from typing import Any

from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.figures.svg import ACCENT, FAINT, INK, MUTED, PAPER, canvas
from dlsearch.report.formats import plural, short

#: Classes up to which each cell carries its count, and up to which cells are drawn one by one.
COUNTED, DRAWN = 14, 30


def shade(share: float) -> tuple[float, str]:
    """How strong a cell with this share of the most frequent error is, and the colour in which its count can be read.

    Between 0.52 and 0.82 neither ink nor paper has a contrast of 4.5 in both the light and the dark palette.
    """
    return (round(0.1 + 0.8 * share, 3), INK) if share <= 0.5 else (round(0.84 + 0.3 * (share - 0.5), 3), PAPER)


def confusion(f: dict[str, Any]) -> Plate | None:
    """Labels by predictions; errors in colour, since the diagonal is what all matrices have in common."""
    main = f["test"]["main"]
    if main is None or not main["confusion"]:
        return None
    import numpy as np
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    table, classes = np.array(main["confusion"]), main["classes"]
    n = len(classes)
    off = table.copy()
    np.fill_diagonal(off, 0)
    most = max(1, int(off.max()))
    figure = canvas(HALF, 410)
    ax = figure.add_subplot()
    if n <= DRAWN:
        for i in range(n):
            for j in range(n):
                count = int(table[i, j])
                if i == j:
                    ax.add_patch(Rectangle((j, i), 1, 1, facecolor=FAINT, edgecolor=PAPER, lw=1))
                elif count:
                    ax.add_patch(
                        Rectangle(
                            (j, i),
                            1,
                            1,
                            facecolor=ACCENT,
                            alpha=shade(count / most)[0],
                            edgecolor=PAPER,
                            lw=1,
                        )
                    )
                if n <= COUNTED and count:
                    colour = MUTED if i == j else shade(count / most)[1]
                    ax.text(
                        j + 0.5, i + 0.5, f"{count:,}", fontsize=7.5, ha="center", va="center_baseline", color=colour
                    )
    else:
        # Thousands of cells go into one small picture.
        pixels = np.zeros((n, n, 4))
        pixels[..., :3] = to_rgb(ACCENT)
        pixels[..., 3] = np.where(off > 0, 0.1 + 0.85 * off / most, 0.0)
        ax.imshow(pixels, extent=(0, n, n, 0), interpolation="nearest")
        ax.plot([0, n], [0, n], color=MUTED, lw=0.6)
    every = max(1, -(-n // 20))
    places = list(range(0, n, every))
    names = [short(classes[i], 12) for i in places]
    long = max(map(len, names)) > 3
    ax.set_xticks([i + 0.5 for i in places], names, rotation=90 if long else 0)
    ax.set_yticks([i + 0.5 for i in places], names)
    ax.set_xlim(0, n)
    ax.set_ylim(n, 0)
    ax.set_aspect("equal")
    ax.tick_params(length=0, labelcolor=INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xlabel("predicted")
    ax.set_title("label")
    wrong = int(off.sum())
    caption = f"Rows are labels, columns predictions; the {plural(wrong, 'error')} in colour, the diagonal grey."
    worst = main["confusions"][:1]
    alt = f"Confusion matrix of {plural(n, 'class', 'classes')}, {plural(wrong, 'error')} in {main['n']:,} examples."
    if worst:
        w = worst[0]
        alt += f" Most often, {short(w['label'])} is taken for {short(w['prediction'])} ({w['count']} times)."
    return Plate("confusion", "Confusion matrix", caption, alt, figure)
