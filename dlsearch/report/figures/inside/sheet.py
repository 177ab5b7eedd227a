"""A figure whose parts are placed by CSS pixels: texts, tiles, outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report.figures.canvas import ACCENT, INK, PAPER, new_figure
from dlsearch.report.figures.tiles import assemble_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.report.figures.marks import Look, Place
    from dlsearch.report.figures.tiles import Tiles

#: Height of a line of text, and the gap between tiles, in CSS pixels.
LINE_HEIGHT = 18.0
GAP = 3.0
#: Pixels of an image to a CSS pixel.
PIXEL_DENSITY = 2


class Sheet:
    """A figure whose parts are placed by CSS pixels, from the top left corner.

    Args:
        width: Of the figure.
        height: Of the figure.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width = width
        self.figure = new_figure(width, height, layout="none")
        self._ax = self.figure.add_axes((0, 0, 1, 1))
        self._ax.set_xlim(0, width)
        self._ax.set_ylim(height, 0)
        self._ax.set_autoscale_on(False)
        self._ax.set_axis_off()

    def write_text(
        self,
        x: float,
        y: float,
        words: str,
        **look: Any,
    ) -> None:
        """Words whose first line's middle is at y."""
        style: Look = {
            "fontsize": 8.5,
            "color": INK,
            "va": "center_baseline",
            "ha": "left",
            **look,
        }
        self._ax.text(
            x,
            y,
            words,
            **style,
        )

    def draw_tiles(
        self,
        x: float,
        y: float,
        tiles: Tiles,
        columns: int,
        side: float,
    ) -> None:
        """Pictures as one image whose tiles are `side` wide, `columns` in a row."""
        height, width = tiles.shape[1:3]
        # so fine that a gap is whole pixels, nearly
        scale = max(1, round(PIXEL_DENSITY * side / max(height, width)))
        gap = max(1, round(GAP * width * scale / side))
        image = assemble_tiles(
            tiles,
            columns,
            scale,
            gap,
        )
        factor = side / (width * scale)
        right = x + image.shape[1] * factor
        bottom = y + image.shape[0] * factor
        self._ax.imshow(
            image,
            extent=(x, right, bottom, y),
            interpolation="none",
            aspect="auto",
        )

    def draw_outline(
        self,
        points: Sequence[Place],
        box: tuple[float, float, float, float],
    ) -> None:
        """A closed line whose first stretch is thick.

        Args:
            points: Places in [0, 1] of the box.
            box: x, y, width and height; what lies outside is cut off.
        """
        from matplotlib.patches import Rectangle

        x, y, width, height = box
        xs = [x + width * point[0] for point in points]
        ys = [y + height * point[1] for point in points]
        edge = Rectangle(
            (x, y),
            width,
            height,
            transform=self._ax.transData,
        )
        n = len(points)
        for stretch, colour, line_width in (
            (n, PAPER, 2.6),
            (n, ACCENT, 1.1),
            (2, ACCENT, 2.6),
        ):
            (line,) = self._ax.plot(
                xs[:stretch],
                ys[:stretch],
                color=colour,
                lw=line_width,
                alpha=0.75 if colour == PAPER else 1.0,
            )
            line.set_clip_path(edge)
