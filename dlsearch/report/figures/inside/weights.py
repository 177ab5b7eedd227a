"""The figure of the weights of the first layer, as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.canvas import new_figure
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.figures.tiles import assemble_tiles, decode_pictures, lines_of
from dlsearch.report.formats import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlsearch.inspection.findings import FirstLayer
    from dlsearch.report.figures.tiles import Tiles

#: Pixels of a tile's longer side, at least, and between tiles.
TILE_PIXELS = 40
GAP_PIXELS = 3
#: Height of the figure in CSS pixels.
LEAST_HEIGHT = 110
MOST_HEIGHT = 420
#: Filters in a row, from few filters to many: up to so many filters, so many columns.
MOST_COLUMNS = ((6, 6), (12, 10))
COLUMNS_OF_MANY = 16
#: Width of the arrangement by its height, about.
ASPECT = 1.6


def draw_weights(first_layer: FirstLayer | None) -> Plate | None:
    """The filters of the first layer as pictures, each scaled by its largest weight."""
    tiles = decode_pictures(first_layer or None)
    if first_layer is None or tiles is None:
        return None
    caption = _caption(first_layer, tiles)
    return Plate(
        key="weights",
        title="Weights of the first layer",
        caption=caption,
        alt=caption,
        wide=_drawing(tiles),
    )


def _drawing(tiles: Tiles) -> Figure:
    n, height, width = tiles.shape[:3]
    columns = _columns_of(n)
    lines = lines_of(n, columns)
    height_of_tiles = 400 * lines * (height + 1) / (columns * (width + 1))
    figure = new_figure(HALF, min(MOST_HEIGHT, max(LEAST_HEIGHT, 24 + height_of_tiles)))
    ax = figure.add_subplot()
    scale = max(1, TILE_PIXELS // max(height, width))
    picture = assemble_tiles(
        tiles,
        columns,
        scale,
        GAP_PIXELS,
    )
    ax.imshow(picture, interpolation="nearest", aspect="equal")
    ax.set_axis_off()
    return figure


def _columns_of(n: int) -> int:
    most = next((columns for up_to, columns in MOST_COLUMNS if n <= up_to), COLUMNS_OF_MANY)
    even = max(1, round((n * ASPECT) ** 0.5))
    return min(n, most, even)


def _caption(first_layer: FirstLayer, tiles: Tiles) -> str:
    n, height, width = tiles.shape[:3]
    kind = "filters" if first_layer["type"].startswith("Conv") else "rows"
    total = first_layer["total"]
    which = str(n) if n == total else f"first {n} of {total:,}"
    layer = short(first_layer["layer"] or "the net", 40)
    layer_type = short(first_layer["type"], 20)
    tones = "mid-grey is zero"
    if not _is_coloured(tiles):
        tones += ", light positive, dark negative"
    return (
        f"The {which} {kind} of {layer} ({layer_type}), {width} × {height} pixels, each scaled by"
        f" its largest weight: {tones}."
    )


def _is_coloured(tiles: Tiles) -> bool:
    import numpy as np

    return not np.allclose(tiles[..., 0], tiles[..., 1])
