"""Small pictures in eight bits, as the study's record holds them."""

from __future__ import annotations

import base64
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def encode_tiles(pixels: Tensor) -> dict[str, Any]:
    """``{"shape": [n, C, H, W], "data": base64 of uint8}`` of (n, C, H, W) in [0, 255], C being 1 or 3."""
    raw = pixels.round().clamp(0, 255).to(torch.uint8).contiguous()
    return {"shape": list(raw.shape), "data": base64.b64encode(raw.numpy().tobytes()).decode()}


def scale_signed(tiles: Tensor) -> Tensor:
    """Each of (n, C, H, W) scaled by its largest magnitude: 128 is zero, 255 the largest."""
    peak = tiles.abs().amax(dim=(1, 2, 3), keepdim=True)
    return tiles / peak.clamp_min(torch.finfo(tiles.dtype).tiny) * 127 + 128


def stretch_tiles(tiles: Tensor) -> Tensor:
    """Each of (n, C, H, W) from its least value, 0, to its largest, 255."""
    low = tiles.amin(dim=(1, 2, 3), keepdim=True)
    high = tiles.amax(dim=(1, 2, 3), keepdim=True)
    return (tiles - low) / (high - low).clamp_min(torch.finfo(tiles.dtype).tiny) * 255


def restore_pixels(images: Tensor, spec: dict[str, Any] | None) -> Tensor:
    """Standardised images, (n, C, H, W), as they were: 0 to 255.

    Stretched where `spec` does not say how.

    Args:
        images: What the net is given.
        spec: The data module's ``input_spec``, with ``mean`` and ``std`` of each channel.
    """
    images = images.float().cpu()
    mean = (spec or {}).get("mean")
    std = (spec or {}).get("std")
    if not mean or not std or len(mean) != images.shape[1]:
        return grey_or_colour(stretch_tiles(images))
    mean, std = (torch.tensor(each)[:, None, None] for each in (mean, std))
    return grey_or_colour((images * std + mean) * 255)


def grey_or_colour(tiles: Tensor) -> Tensor:
    """One channel or three; others become their mean."""
    return tiles if tiles.shape[1] in (1, 3) else tiles.mean(dim=1, keepdim=True)


def shrink_tiles(tiles: Tensor, side: int) -> Tensor:
    """(n, C, H, W) with no side above `side`: means of the pixels that fall together."""
    largest = max(tiles.shape[2:])
    if largest <= side:
        return tiles
    high, wide = (max(1, round(n * side / largest)) for n in tiles.shape[2:])
    return F.adaptive_avg_pool2d(tiles.float(), (high, wide))
