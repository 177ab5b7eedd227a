"""Small pictures of examples as PNG data addresses, without an imaging library."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass
from typing import Any

#: Longest side of a picture in the page; larger ones keep every k-th pixel.
SIDE = 96

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS = 8
#: PNG's colour types by the number of channels: grey, RGB, RGBA.
_COLOUR_TYPES = {
    1: 0,
    3: 2,
    4: 6,
}
_BEST_COMPRESSION = 9
#: Before each row: it is stored as it is.
_NO_FILTER = b"\0"


@dataclass(frozen=True)
class _Picture:
    """Pixels in rows, a byte a channel."""

    height: int
    width: int
    channels: int
    data: bytes

    @property
    def is_valid(self) -> bool:
        """Whether a PNG can hold it, and all pixels are there."""
        if self.channels not in _COLOUR_TYPES or min(self.height, self.width) < 1:
            return False
        return len(self.data) == self.height * self.width * self.channels

    def pixel(self, x: int, y: int) -> bytes:
        """The channels of a pixel."""
        start = (y * self.width + x) * self.channels
        return self.data[start : start + self.channels]


def data_address(image: Any) -> str | None:
    """A PNG of ``{"shape": [H, W, C], "data": base64 of uint8}``; None where it is no such thing.

    Args:
        image: The picture as the record holds it: one channel (grey), three (RGB) or four (RGBA).
    """
    picture = _decode_picture(image)
    if picture is None or not picture.is_valid:
        return None
    png = _encode_png(_shrink(picture))
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _decode_picture(image: Any) -> _Picture | None:
    try:
        height, width, channels = (int(n) for n in image["shape"])
        data = base64.b64decode(image["data"], validate=True)
    except (TypeError, KeyError, ValueError, binascii.Error):
        return None
    return _Picture(
        height,
        width,
        channels,
        data,
    )


def _shrink(picture: _Picture) -> _Picture:
    """Every k-th pixel, so that no side is longer than :data:`SIDE`."""
    step = -(-max(picture.height, picture.width) // SIDE)
    rows = range(0, picture.height, step)
    columns = range(0, picture.width, step)
    pixels = [picture.pixel(x, y) for y in rows for x in columns]
    return _Picture(
        len(rows),
        len(columns),
        picture.channels,
        b"".join(pixels),
    )


def _encode_png(picture: _Picture) -> bytes:
    header = struct.pack(
        ">IIBBBBB",
        picture.width,
        picture.height,
        _BITS,
        _COLOUR_TYPES[picture.channels],
        0,
        0,
        0,
    )
    row_length = picture.width * picture.channels
    starts = range(0, len(picture.data), row_length)
    rows = [_NO_FILTER + picture.data[start : start + row_length] for start in starts]
    compressed = zlib.compress(b"".join(rows), _BEST_COMPRESSION)
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", compressed), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    length = struct.pack(">I", len(body))
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return length + kind + body + checksum
