"""The figure of what excites features most: projections to pixels, and the parts of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.figures.canvas import MUTED
from dlsearch.report.figures.inside.sheet import GAP, LINE_HEIGHT, Sheet
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.figures.tiles import aspect_of, decode_pictures, lines_of
from dlsearch.report.formats import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from dlsearch.inspection.findings import DeconvolvedLayer, InsideFindings
    from dlsearch.report.figures.tiles import Tiles

CELL_GAP = 16.0
MOST_SIDE = 56.0
HEADING_HEIGHT = LINE_HEIGHT + 2
#: Height in CSS pixels between the cells of a layer, and between layers.
ROW_GAP = 6
LAYER_GAP = 10


@dataclass(frozen=True)
class _Layer:
    """One layer: what its maps look for, above the parts of the images that excite them."""

    row: DeconvolvedLayer
    projections: Tiles
    patches: Tiles


@dataclass(frozen=True)
class _Grid:
    """The places of the cells, one a map, in CSS pixels.

    Attributes:
        columns: Cells in a row.
        images: Images in a cell.
        side: Width of an image.
    """

    columns: int
    images: int
    side: float

    @property
    def cell_width(self) -> float:
        """Width of the images of a map, with the gaps between them."""
        return self.images * self.side + (self.images - 1) * GAP

    def step_of(self, layer: _Layer) -> float:
        """Height of a row of cells."""
        return LINE_HEIGHT + 2 * self.side * aspect_of(layer.projections) + GAP + ROW_GAP

    def height_of(self, layer: _Layer) -> float:
        """Height of all cells of a layer."""
        lines = lines_of(len(layer.row["channels"]), self.columns)
        return lines * self.step_of(layer)


def draw_deconvolution(inside: InsideFindings) -> Plate | None:
    """What excites features most: projections to pixels over the parts of the images that did."""
    layers = [_decoded_layer(row) for row in inside.get("deconvolution") or []]
    shown = [layer for layer in layers if layer is not None]
    if not shown:
        return None
    images = max(layer.row["images"] for layer in shown)
    names = ", ".join(short(layer.row["layer"], 30) for layer in shown)
    return Plate(
        key="deconvolution",
        title="What features look for",
        caption=_caption(images),
        alt=f"Features of {names}, projected back to pixels.",
        wide=_drawing(shown, images, WIDE),
        narrow=_drawing(shown, images, NARROW),
        size=PlateSize.FULL,
    )


def _decoded_layer(row: DeconvolvedLayer) -> _Layer | None:
    projections = decode_pictures(row["projections"])
    patches = decode_pictures(row["patches"])
    if projections is None or patches is None or len(projections) != len(patches):
        return None
    return _Layer(row, projections, patches)


def _drawing(layers: Sequence[_Layer], images: int, width: int) -> Figure:
    most_channels = max(len(layer.row["channels"]) for layer in layers)
    grid = _grid_of(width, images, most_channels)
    heights = [HEADING_HEIGHT + grid.height_of(layer) + LAYER_GAP for layer in layers]
    sheet = Sheet(width, sum(heights))
    y = 0.0
    for layer in layers:
        _write_heading(sheet, layer.row, y)
        y += HEADING_HEIGHT
        for index in range(len(layer.row["channels"])):
            _draw_cell(
                sheet,
                layer,
                index,
                grid,
                y,
            )
        y += grid.height_of(layer) + LAYER_GAP
    return sheet.figure


def _grid_of(width: int, images: int, most_channels: int) -> _Grid:
    columns = min(most_channels, 6 if is_spacious(width) else 2)
    gaps = (columns - 1) * CELL_GAP + columns * (images - 1) * GAP
    side = (width - gaps) / (columns * images)
    return _Grid(columns, images, min(side, MOST_SIDE))


def _write_heading(sheet: Sheet, row: DeconvolvedLayer, y: float) -> None:
    middle = y + LINE_HEIGHT / 2
    sides = "×".join(str(side) for side in row["field"])
    sheet.write_text(
        0,
        middle,
        short(row["layer"], 40),
        weight="bold",
    )
    sheet.write_text(
        sheet.width,
        middle,
        f"a unit sees {sides} pixels",
        color=MUTED,
        ha="right",
    )


def _draw_cell(
    sheet: Sheet,
    layer: _Layer,
    index: int,
    grid: _Grid,
    y: float,
) -> None:
    line, column = divmod(index, grid.columns)
    x = column * (grid.cell_width + CELL_GAP)
    top = y + line * grid.step_of(layer)
    count = layer.row["images"]
    part = slice(index * count, (index + 1) * count)
    sheet.write_text(
        x,
        top + LINE_HEIGHT / 2,
        f"map {layer.row['channels'][index]}",
        color=MUTED,
        fontsize=8,
    )
    above = top + LINE_HEIGHT
    below = above + grid.side * aspect_of(layer.projections) + GAP
    sheet.draw_tiles(
        x,
        above,
        layer.projections[part],
        grid.images,
        grid.side,
    )
    sheet.draw_tiles(
        x,
        below,
        layer.patches[part],
        grid.images,
        grid.side,
    )


def _caption(images: int) -> str:
    return (
        f"For some maps of each layer, the {images} validation images that excite them most. Above:"
        " what of the image did, by the deconvolutional net of Zeiler and Fergus (2014), mid-grey"
        " being nothing. Below: the image, cut to what the unit sees."
    )
