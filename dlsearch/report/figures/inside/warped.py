"""The figure of a spatial transformer: what it samples of images, above what it makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.inside.sheet import Sheet
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.figures.tiles import aspect_of, decode_pictures, lines_of
from dlsearch.report.formats import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlsearch.inspection.findings import InsideFindings
    from dlsearch.report.figures.marks import Place
    from dlsearch.report.figures.tiles import Tiles

COLUMN_GAP = 10.0
MOST_SIDE = 110.0
#: Height in CSS pixels between an image and what became of it, and between rows.
PAIR_GAP = 6
ROW_GAP = 14
#: What the last row leaves free below it.
LAST_GAP = 8
CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))


def draw_warped(inside: InsideFindings) -> Plate | None:
    """Images with the part that a spatial transformer samples, above what it makes of them."""
    found = inside.get("warped")
    if not found:
        return None
    images = decode_pictures(found["images"])
    warped = decode_pictures(found["warped"])
    matrices = found["maps"]
    if images is None or warped is None:
        return None
    if len(images) != len(warped) or len(matrices) != len(warped):
        return None
    layer = short(found["layer"], 40)
    caption = (
        f"Above: {len(images)} validation images, with the frame from which {layer} samples, its"
        " top side thick. Below: what it hands on."
    )
    return Plate(
        key="warped",
        title="What the spatial transformer makes of its inputs",
        caption=caption,
        alt=caption,
        wide=_drawing(
            images,
            warped,
            matrices,
            WIDE,
        ),
        narrow=_drawing(
            images,
            warped,
            matrices,
            NARROW,
        ),
        size=PlateSize.FULL,
    )


def _drawing(
    images: Tiles,
    warped: Tiles,
    matrices: list[list[list[float]]],
    width: int,
) -> Figure:
    n = len(images)
    columns = min(n, 8 if is_spacious(width) else 4)
    side = min((width - (columns - 1) * COLUMN_GAP) / columns, MOST_SIDE)
    height = side * aspect_of(images)
    step = 2 * height + PAIR_GAP + ROW_GAP
    sheet = Sheet(width, lines_of(n, columns) * step - LAST_GAP)
    for index in range(n):
        line, column = divmod(index, columns)
        x = column * (side + COLUMN_GAP)
        y = line * step
        part = slice(index, index + 1)
        sheet.draw_tiles(
            x,
            y,
            images[part],
            1,
            side,
        )
        sheet.draw_tiles(
            x,
            y + height + PAIR_GAP,
            warped[part],
            1,
            side,
        )
        sheet.draw_outline(_sampled_frame(matrices[index]), (x, y, side, height))
    return sheet.figure


def _sampled_frame(matrix: list[list[float]]) -> list[Place]:
    """The output's corners in the input, in [0, 1].

    The matrix maps [−1, 1] of the output to the input (equation 1 of Jaderberg et al., 2015).
    """
    (a, b, c), (d, e, f) = matrix
    frame: list[Place] = []
    for x, y in CORNERS:
        input_x = a * x + b * y + c
        input_y = d * x + e * y + f
        frame.append(((input_x + 1) / 2, (input_y + 1) / 2))
    return frame
