"""Small pictures in eight bits, as the study's record holds them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject
    from dlsearch.inspection.findings import Pictures

#: The largest value of a pixel, and the one that stands for zero where values have signs.
WHITE = 255
ZERO = 128


def encode_tiles(pixels: Tensor) -> Pictures:
    """Pictures for the record.

    Args:
        pixels: (n, C, H, W) in [0, 255], C being 1 or 3.

    Returns:
        ``{"shape": [n, C, H, W], "data": base64 of uint8}``.
    """
    whole = pixels.round().clamp(0, WHITE)
    raw = whole.to(torch.uint8).contiguous()
    return {
        "shape": list(raw.shape),
        "data": bytes_as_text(raw),
    }


def bytes_as_text(raw: Tensor) -> str:
    """Numbers of eight bits, in base64."""
    data = raw.numpy().tobytes()
    return base64.b64encode(data).decode()


def scale_signed(tiles: Tensor) -> Tensor:
    """Each of (n, C, H, W) scaled by its largest magnitude: 128 is zero, 255 the largest."""
    tiny = torch.finfo(tiles.dtype).tiny
    peak = tiles.abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = tiles / peak.clamp_min(tiny)
    return scaled * (WHITE - ZERO) + ZERO


def stretch_tiles(tiles: Tensor) -> Tensor:
    """Each of (n, C, H, W) from its least value, 0, to its largest, 255."""
    tiny = torch.finfo(tiles.dtype).tiny
    low = tiles.amin(dim=(1, 2, 3), keepdim=True)
    high = tiles.amax(dim=(1, 2, 3), keepdim=True)
    extent = (high - low).clamp_min(tiny)
    return (tiles - low) / extent * WHITE


def restore_pixels(images: Tensor, spec: JsonObject | None) -> Tensor:
    """Standardised images, (n, C, H, W), as they were: 0 to 255.

    Stretched where `spec` does not say how.

    Args:
        images: What the net is given.
        spec: The data module's ``input_spec``, with ``mean`` and ``std`` of each channel.
    """
    images = images.float().cpu()
    known = spec or {}
    mean = known.get("mean")
    std = known.get("std")
    if not mean or not std or len(mean) != images.shape[1]:
        return grey_or_colour(stretch_tiles(images))
    mean_of_channel = torch.tensor(mean)[:, None, None]
    std_of_channel = torch.tensor(std)[:, None, None]
    shares = images * std_of_channel + mean_of_channel
    return grey_or_colour(shares * WHITE)


def grey_or_colour(tiles: Tensor) -> Tensor:
    """One channel or three; others become their mean."""
    if tiles.shape[1] in (1, 3):
        return tiles
    return tiles.mean(dim=1, keepdim=True)


def shrink_tiles(tiles: Tensor, side: int) -> Tensor:
    """(n, C, H, W) with no side above `side`: means of the pixels that fall together."""
    height, width = tiles.shape[2:]
    largest = max(height, width)
    if largest <= side:
        return tiles
    shrunk = (
        max(1, round(height * side / largest)),
        max(1, round(width * side / largest)),
    )
    return F.adaptive_avg_pool2d(tiles.float(), shrunk)
