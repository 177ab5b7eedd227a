"""The figure of fixed kernels: what each answers to one example, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.figures.inside.sheet import LINE_HEIGHT, Sheet
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, PlateSize, is_spacious
from dlsearch.report.figures.tiles import aspect_of, decode_pictures, lines_of
from dlsearch.report.formats import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from dlsearch.inspection.findings import InsideFindings, LayerMaps
    from dlsearch.report.figures.tiles import Tiles

#: Side of a kernel's picture as a share of the answer in whose corner it is.
INSET_SHARE = 0.3
ROW_GAP = 12
#: Pixels of a kernel's picture, at least, and of the frame around it.
KERNEL_PIXELS = 40
FRAME_PIXELS = 3


@dataclass(frozen=True)
class _Kernels:
    """What the figure shows: the example, the answers to it, and the kernels where known."""

    layer: LayerMaps
    image: Tiles
    answers: Tiles
    kernels: Tiles | None
    names: list[str]

    def cell(self, index: int) -> tuple[str, Tiles, Tiles | None]:
        """Name, picture and kernel of a cell; the first one is the example's."""
        if index == 0:
            return "the image", self.image, None
        part = slice(index - 1, index)
        kernel = None
        if self.kernels is not None and index <= len(self.kernels):
            kernel = self.kernels[part]
        return self.names[index - 1], self.answers[part], kernel


def draw_fixed_kernels(inside: InsideFindings) -> Plate | None:
    """What fixed kernels answer to one example, by their names."""
    data = _collect(inside)
    if data is None:
        return None
    names = [_kernel_name(name) for name in data.names]
    layer = short(data.layer["layer"], 40)
    return Plate(
        key="kernels",
        title="Fixed kernels",
        caption=(
            f"One validation example under the {len(data.answers)} fixed kernels of {layer}, each"
            " answer from its least value (black) to its largest (white), the kernel in its corner:"
            " mid-grey is zero."
        ),
        alt=f"Answers of fixed kernels to one example: {', '.join(names)}.",
        wide=_drawing(data, WIDE),
        narrow=_drawing(data, NARROW),
        size=PlateSize.FULL,
    )


def _collect(inside: InsideFindings) -> _Kernels | None:
    layer = _layer_of_fixed_kernels(inside.get("maps") or [])
    image = decode_pictures(inside.get("image"))
    if layer is None or image is None:
        return None
    answers = decode_pictures(layer["tiles"])
    if answers is None:
        return None
    names = [str(name) for name in layer["names"] or []]
    return _Kernels(
        layer=layer,
        image=image,
        answers=answers,
        kernels=decode_pictures(layer.get("kernels") or None),
        names=names[: len(answers)],
    )


def _layer_of_fixed_kernels(layers: Sequence[LayerMaps]) -> LayerMaps | None:
    return next((layer for layer in layers if layer.get("names")), None)


def _drawing(data: _Kernels, width: int) -> Figure:
    columns, gap = (7, 14.0) if is_spacious(width) else (3, 12.0)
    side = (width - (columns - 1) * gap) / columns
    step = LINE_HEIGHT + side * aspect_of(data.answers) + ROW_GAP
    cells = 1 + len(data.names)
    sheet = Sheet(width, lines_of(cells, columns) * step)
    for index in range(cells):
        line, column = divmod(index, columns)
        _draw_cell(
            sheet,
            data,
            index,
            (column * (side + gap), line * step),
            side,
        )
    return sheet.figure


def _draw_cell(
    sheet: Sheet,
    data: _Kernels,
    index: int,
    corner: tuple[float, float],
    side: float,
) -> None:
    x, y = corner
    name, picture, kernel = data.cell(index)
    sheet.write_text(
        x,
        y + LINE_HEIGHT / 2,
        _kernel_name(name),
        fontsize=7.5,
        weight="bold" if index == 0 else "normal",
    )
    sheet.draw_tiles(
        x,
        y + LINE_HEIGHT,
        picture,
        1,
        side,
    )
    if kernel is not None:
        inset = INSET_SHARE * side
        bottom = y + LINE_HEIGHT + side * aspect_of(data.answers)
        sheet.draw_tiles(
            x + side - inset,
            bottom - inset,
            _framed(kernel),
            1,
            inset,
        )


def _kernel_name(name: str) -> str:
    if name.startswith("gabor "):
        return short(f"G{name[1:]}", 24)
    return short(name.replace("_", " "), 24)


def _framed(tiles: Tiles) -> Tiles:
    """With a white frame, which sets a tile apart from the one it lies on."""
    import numpy as np

    scale = max(1, KERNEL_PIXELS // max(tiles.shape[1:3]))
    large = np.repeat(np.repeat(tiles, scale, axis=1), scale, axis=2)
    frame = (FRAME_PIXELS, FRAME_PIXELS)
    return np.pad(large, ((0, 0), frame, frame, (0, 0)), constant_values=1.0)
