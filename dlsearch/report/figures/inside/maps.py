"""The figure of the feature maps of one example, a layer below the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from dlsearch.report.figures.canvas import MUTED
from dlsearch.report.figures.inside.sheet import GAP, LINE_HEIGHT, Sheet
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.figures.tiles import aspect_of, decode_pictures, lines_of
from dlsearch.report.formats import plural, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from dlsearch.inspection.findings import InsideFindings, LayerMaps
    from dlsearch.report.figures.tiles import Tiles

    _Layer: TypeAlias = tuple[LayerMaps, Tiles]

#: Width in CSS pixels of the example and of the column that it is in.
EXAMPLE_WIDTH = 76
EXAMPLE_COLUMN = 92.0
#: Height in CSS pixels of the example where it is above the maps.
EXAMPLE_HEIGHT = 84.0
LAYER_GAP = 8


def draw_feature_maps(inside: InsideFindings) -> Plate | None:
    """Feature maps of one example, a layer below the other."""
    image = decode_pictures(inside.get("image"))
    layers: list[_Layer] = []
    for layer in inside.get("maps") or []:
        tiles = decode_pictures(layer["tiles"])
        if not layer.get("names") and tiles is not None:
            layers.append((layer, tiles))
    if not layers or image is None:
        return None
    names = ", ".join(_name_of(layer) for layer, _ in layers)
    return Plate(
        key="maps",
        title="Feature maps",
        caption=(
            "One validation example and what layers answer to it, after their activation: of each"
            " layer the maps that answer most, each from its least value (black) to its largest"
            " (white)."
        ),
        alt=f"Feature maps of one example: {names}.",
        wide=_drawing(image, layers, WIDE),
        narrow=_drawing(image, layers, NARROW),
        size=PlateSize.FULL,
    )


def _drawing(image: Tiles, layers: Sequence[_Layer], width: int) -> Figure:
    spacious = is_spacious(width)
    columns = 16 if spacious else 8
    left = EXAMPLE_COLUMN if spacious else 0.0
    top = 0.0 if spacious else EXAMPLE_HEIGHT
    side = (width - left - (columns - 1) * GAP) / columns
    heights = [_height_of(tiles, columns, side) for _, tiles in layers]
    sheet = Sheet(width, top + sum(heights))
    example_side = EXAMPLE_WIDTH / max(1.0, aspect_of(image))
    sheet.draw_tiles(
        0,
        LINE_HEIGHT if spacious else 0,
        image,
        1,
        example_side,
    )
    y = top
    for (layer, tiles), height in zip(layers, heights, strict=True):
        _write_heading(
            sheet,
            layer,
            len(tiles),
            left,
            y,
        )
        sheet.draw_tiles(
            left,
            y + LINE_HEIGHT,
            tiles,
            columns,
            side,
        )
        y += height
    return sheet.figure


def _height_of(tiles: Tiles, columns: int, side: float) -> float:
    lines = lines_of(len(tiles), columns)
    return LINE_HEIGHT + lines * (side * aspect_of(tiles) + GAP) + LAYER_GAP


def _write_heading(
    sheet: Sheet,
    layer: LayerMaps,
    shown: int,
    x: float,
    y: float,
) -> None:
    middle = y + LINE_HEIGHT / 2
    sheet.write_text(
        x,
        middle,
        short(layer["layer"], 40),
        weight="bold",
    )
    sides = "×".join(str(side) for side in layer["sides"])
    count = plural(layer["total"], "map")
    if shown != layer["total"]:
        count = f"{shown} of {layer['total']:,} maps"
    sheet.write_text(
        sheet.width,
        middle,
        f"{count}, {sides}",
        color=MUTED,
        ha="right",
    )


def _name_of(layer: LayerMaps) -> str:
    """The name of a layer, and how many maps it has."""
    name = short(layer["layer"], 30)
    return f"{name} ({layer['total']} maps)"
