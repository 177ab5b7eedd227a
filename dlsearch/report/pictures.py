"""Small pictures of examples as PNG data addresses, without an imaging library."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from typing import Any

#: Longest side of a picture in the page; larger ones keep every k-th pixel.
SIDE = 96


def data_address(image: Any) -> str | None:
    """A PNG of ``{"shape": [H, W, C], "data": base64 of uint8}``; None where it is no such thing.

    Args:
        image: The picture as the record holds it: one channel (grey), three (RGB) or four (RGBA).
    """
    try:
        height, width, channels = (int(n) for n in image["shape"])
        raw = base64.b64decode(image["data"], validate=True)
    except (TypeError, KeyError, ValueError, binascii.Error):
        return None
    if channels not in (1, 3, 4) or min(height, width) < 1 or len(raw) != height * width * channels:
        return None
    step = -(-max(height, width) // SIDE)
    rows = []
    for y in range(0, height, step):
        line = raw[y * width * channels : (y + 1) * width * channels]
        rows.append(b"".join(line[x * channels : (x + 1) * channels] for x in range(0, width, step)))
    small = b"".join(b"\0" + row for row in rows)
    header = struct.pack(">IIBBBBB", len(rows[0]) // channels, len(rows), 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(small, 9)) + _chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
