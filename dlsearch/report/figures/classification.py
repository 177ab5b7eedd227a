"""The figure of a test of a classifier: the confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.canvas import ACCENT, FAINT, INK, MUTED, PAPER, new_figure
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import plural, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import MainScore, Report
    from dlsearch.report.figures.marks import Look

#: Classes up to which each cell carries its count, and up to which cells are drawn one by one.
MOST_COUNTED = 14
MOST_DRAWN = 30
#: Classes that are named along an axis.
MOST_NAMED = 20
#: Letters from which the names along x are turned.
LONG_NAME = 3


def cell_shade(share: float) -> tuple[float, str]:
    """How strong a cell is, and the colour in which its count can be read.

    Between 0.52 and 0.82 neither ink nor paper has a contrast of 4.5 in both the light and the dark
    palette.

    Args:
        share: Its count as a share of the most frequent error's.
    """
    if share <= 0.5:
        return round(0.1 + 0.8 * share, 3), INK
    return round(0.84 + 0.3 * (share - 0.5), 3), PAPER


def draw_confusion_matrix(report: Report) -> Plate | None:
    """Labels by predictions; errors in colour: all matrices have the diagonal in common."""
    main = report["test"]["main"]
    if main is None or not main["confusion"]:
        return None
    errors = plural(_count_errors(main["confusion"]), "error")
    return Plate(
        key="confusion",
        title="Confusion matrix",
        caption=f"Rows are labels, columns predictions; the {errors} in colour, the diagonal grey.",
        alt=_alternative_text(main, errors),
        wide=_drawing(main),
    )


def _errors_of(matrix: Sequence[Sequence[int]]) -> list[list[int]]:
    """The matrix with a diagonal of zeros."""
    return [
        [0 if column == row else count for column, count in enumerate(counts)]
        for row, counts in enumerate(matrix)
    ]


def _count_errors(matrix: Sequence[Sequence[int]]) -> int:
    return sum(sum(counts) for counts in _errors_of(matrix))


def _drawing(main: MainScore) -> Figure:
    matrix = main["confusion"]
    figure = new_figure(HALF, 410)
    ax = figure.add_subplot()
    if len(matrix) <= MOST_DRAWN:
        _draw_cells(ax, matrix)
    else:
        _draw_picture(ax, matrix)
    _name_classes(ax, main["classes"])
    ax.set_aspect("equal")
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xlabel("predicted")
    ax.set_title("label")
    return figure


def _most_frequent_error(matrix: Sequence[Sequence[int]]) -> int:
    return max(1, max(max(counts) for counts in _errors_of(matrix)))


def _draw_cells(ax: Axes, matrix: Sequence[Sequence[int]]) -> None:
    most = _most_frequent_error(matrix)
    for row, counts in enumerate(matrix):
        for column, count in enumerate(counts):
            is_right = row == column
            strength, ink = cell_shade(count / most)
            if is_right:
                _draw_cell(
                    ax,
                    row,
                    column,
                    {"facecolor": FAINT},
                )
            elif count:
                _draw_cell(
                    ax,
                    row,
                    column,
                    {"facecolor": ACCENT, "alpha": strength},
                )
            if count and len(matrix) <= MOST_COUNTED:
                _write_count(
                    ax,
                    row,
                    column,
                    count,
                    MUTED if is_right else ink,
                )


def _draw_cell(
    ax: Axes,
    row: int,
    column: int,
    look: Look,
) -> None:
    from matplotlib.patches import Rectangle

    cell = Rectangle(
        (column, row),
        1,
        1,
        edgecolor=PAPER,
        lw=1,
        **look,
    )
    ax.add_patch(cell)


def _write_count(
    ax: Axes,
    row: int,
    column: int,
    count: int,
    colour: str,
) -> None:
    ax.text(
        column + 0.5,
        row + 0.5,
        f"{count:,}",
        fontsize=7.5,
        ha="center",
        va="center_baseline",
        color=colour,
    )


def _draw_picture(ax: Axes, matrix: Sequence[Sequence[int]]) -> None:
    """Thousands of cells as one small picture."""
    import numpy as np
    from matplotlib.colors import to_rgb

    n = len(matrix)
    errors = np.array(_errors_of(matrix))
    strength = 0.1 + 0.85 * errors / _most_frequent_error(matrix)
    pixels = np.zeros((n, n, 4))
    pixels[..., :3] = to_rgb(ACCENT)
    pixels[..., 3] = np.where(errors > 0, strength, 0.0)
    ax.imshow(pixels, extent=(0, n, n, 0), interpolation="nearest")
    ax.plot(
        [0, n],
        [0, n],
        color=MUTED,
        lw=0.6,
    )


def _name_classes(ax: Axes, classes: Sequence[str]) -> None:
    n = len(classes)
    step = max(1, -(-n // MOST_NAMED))
    indices = range(0, n, step)
    middles = [index + 0.5 for index in indices]
    names = [short(classes[index], 12) for index in indices]
    longest = max(len(name) for name in names)
    ax.set_xticks(middles, names, rotation=90 if longest > LONG_NAME else 0)
    ax.set_yticks(middles, names)
    ax.set_xlim(0, n)
    ax.set_ylim(n, 0)
    ax.tick_params(length=0, labelcolor=INK)


def _alternative_text(main: MainScore, errors: str) -> str:
    classes = plural(len(main["classes"]), "class", "classes")
    text = f"Confusion matrix of {classes}, {errors} in {main['n']:,} examples."
    for worst in main["confusions"][:1]:
        label = short(worst["label"])
        prediction = short(worst["prediction"])
        count = worst["count"]
        text += f" Most often, {label} is taken for {prediction} ({count} times)."
    return text
