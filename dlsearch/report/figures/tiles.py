"""Small pictures: from the bytes of a record to arrays, and many of them in one image."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlsearch.inspection.findings import Pictures

    #: Pictures: (n, height, width, 3) in [0, 1].
    Tiles: TypeAlias = NDArray[Any]


#: Channels of a picture.
GREY = 1
COLOURED = 3
BRIGHTEST = 255


def decode_pictures(pictures: Pictures | None) -> Tiles | None:
    """The pictures, (n, H, W, 3) in [0, 1]; None where the record holds no such thing."""
    import numpy as np

    if pictures is None:
        return None
    try:
        n, channels, height, width = (int(side) for side in pictures["shape"])
        raw = base64.b64decode(pictures["data"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    if channels not in (GREY, COLOURED) or min(n, height, width) < 1:
        return None
    if len(raw) != n * channels * height * width:
        return None
    values = np.frombuffer(raw, dtype=np.uint8)
    stored = values.reshape(
        n,
        channels,
        height,
        width,
    )
    tiles = (
        stored.transpose(
            0,
            2,
            3,
            1,
        )
        / BRIGHTEST
    )
    if channels == GREY:
        return np.repeat(tiles, COLOURED, axis=3)
    return tiles


def aspect_of(tiles: Tiles) -> float:
    """Height of a tile by its width."""
    return float(tiles.shape[1] / tiles.shape[2])


def assemble_tiles(
    tiles: Tiles,
    columns: int,
    scale: int,
    gap: int,
) -> NDArray[Any]:
    """One picture of all tiles, (H, W, 4), with transparent gaps.

    Args:
        tiles: The pictures.
        columns: How many in a row.
        scale: Pixels of the picture for one of a tile, along each side.
        gap: Pixels between tiles; transparent, so that tiles are apart on any background.
    """
    import numpy as np

    n, height, width = tiles.shape[:3]
    tile_height = height * scale
    tile_width = width * scale
    step_y = tile_height + gap
    step_x = tile_width + gap
    sheet_height = lines_of(n, columns) * step_y - gap
    sheet_width = min(n, columns) * step_x - gap
    sheet = np.zeros((sheet_height, sheet_width, 4))
    for index, tile in enumerate(tiles):
        line, column = divmod(index, columns)
        top = line * step_y
        left = column * step_x
        rows = slice(top, top + tile_height)
        places = slice(left, left + tile_width)
        sheet[rows, places, :3] = enlarge(tile, scale)
        sheet[rows, places, 3] = 1.0
    return sheet


def lines_of(n: int, columns: int) -> int:
    """How many lines `n` things take, so many in a line."""
    return -(-n // columns)


def enlarge(picture: NDArray[Any], scale: int) -> NDArray[Any]:
    """A picture, (H, W, …), each of whose pixels becomes `scale` by `scale`."""
    import numpy as np

    taller = np.repeat(picture, scale, axis=0)
    return np.repeat(taller, scale, axis=1)
