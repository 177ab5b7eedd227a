"""Augmentation of whole batches on their device, random for each sample by (seed, epoch, index) and nothing else.

Random numbers are a hash of these, not draws from a generator: a sample looks the same whatever its
batch, its place in it, the number of workers and the device. (``torchvision.transforms.v2`` draws
once for a whole batch tensor.)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_MASK = (1 << 64) - 1
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's grey scale


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; that of int64 is arithmetic."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def uniform(
    seed: int,
    epoch: int,
    index: Tensor,
    streams: int,
) -> Tensor:
    """Numbers in [0, 1) for each sample, by SplitMix64 (Steele, Lea and Flood, 2014).

    Args:
        seed: Of the run.
        epoch: Of the training.
        index: (B,) int64, the samples.
        streams: How many numbers; the first of them are the same whatever their number.

    Returns:
        (B, streams) float64.
    """
    start = (seed * 0xD1342543DE82EF95 + epoch * 0x9E3779B97F4A7C15) & _MASK
    stream = torch.arange(1, streams + 1, device=index.device) * _signed(0xBF58476D1CE4E5B9)
    # Mixed twice, so that neighbours in any of the four are far apart.
    z = _mix(index.to(torch.int64)[:, None] + (stream + _signed(start)))
    z = _mix(z + (stream ^ _signed((start * 0x94D049BB133111EB) & _MASK)))
    return _shift(z, 11).to(torch.float64) * 2.0**-53


def _mix(z: Tensor) -> Tensor:
    z = z * _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift(z, 31)


class Augment:
    """What may happen to a training image. Everything is off by default, and each is one number for a search to choose.

    Args:
        horizontal_flip: Probability.
        vertical_flip: Probability.
        crop: Random crop out of the image padded by this many black pixels: a shift of up to so
            many.
        translate: Shift of up to this fraction of the sides, between pixels too.
        rotate: Rotation of up to this many degrees.
        scale: Scale jitter: a factor in [1 − scale, 1 + scale].
        brightness: Factor in [1 − brightness, 1 + brightness].
        contrast: Factor, likewise, about the image's mean grey.
        saturation: Factor, likewise, about the pixel's own grey; nothing happens to images of one
            channel.
        grayscale: Probability of all colours being replaced by their grey.
    """

    def __init__(
        self,
        *,
        horizontal_flip: float = 0.0,
        vertical_flip: float = 0.0,
        crop: int = 0,
        translate: float = 0.0,
        rotate: float = 0.0,
        scale: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        grayscale: float = 0.0,
    ) -> None:
        limits = {
            "horizontal_flip": (horizontal_flip, 1.0),
            "vertical_flip": (vertical_flip, 1.0),
            "crop": (crop, math.inf),
            "translate": (translate, 1.0),
            "rotate": (rotate, 180.0),
            "scale": (scale, 0.9),
            "brightness": (brightness, 1.0),
            "contrast": (contrast, 1.0),
            "saturation": (saturation, 1.0),
            "grayscale": (grayscale, 1.0),
        }
        for name, (value, most) in limits.items():
            if not 0 <= value <= most:
                raise ValueError(
                    f"{name}: expected 0 to {most:g}, got {value} (hint: data.augment.{name}=0 is off)"
                )
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.crop = int(crop)
        self.translate = translate
        self.rotate = rotate
        self.scale = scale
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.grayscale = grayscale

    @property
    def moves(self) -> bool:
        """Whether whole pixels change places."""
        return bool(self.horizontal_flip or self.vertical_flip or self.crop)

    @property
    def warps(self) -> bool:
        """Whether pixels are interpolated."""
        return bool(self.translate or self.rotate or self.scale)

    @property
    def colours(self) -> bool:
        """Whether values change."""
        return bool(self.brightness or self.contrast or self.saturation or self.grayscale)

    def __bool__(self) -> bool:
        return self.moves or self.warps or self.colours

    def __call__(
        self,
        images: Tensor,
        index: Tensor,
        seed: int,
        epoch: int,
    ) -> Tensor:
        """Augment a batch.

        Args:
            images: (B, C, H, W) uint8, C = 1 or 3 where colours change.
            index: (B,) the samples' own numbers.
            seed: Of the run.
            epoch: Of the training.

        Returns:
            (B, C, H, W) float32 in [0, 1].
        """
        streams = uniform(seed, epoch, index, 12).unbind(1)
        if self.moves:
            images = self._move(images, *streams[:4])
        x = images.to(torch.float32) / 255.0
        if self.warps:
            x = self._warp(x, *streams[4:8])
        return self._colour(x, *streams[8:]) if self.colours else x

    def _move(
        self,
        images: Tensor,
        u_h: Tensor,
        u_v: Tensor,
        u_x: Tensor,
        u_y: Tensor,
    ) -> Tensor:
        """Flips and the crop, in one gather."""
        height, width = images.shape[-2:]
        columns, seen_x = self._sources(width, u_h < self.horizontal_flip, u_x)
        rows, seen_y = self._sources(height, u_v < self.vertical_flip, u_y)
        flat = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H·W)
        moved = (
            images.flatten(2)
            .gather(2, flat[:, None, :].expand(-1, images.shape[1], -1))
            .view_as(images)
        )
        if self.crop:
            moved = moved * (seen_y[:, :, None] & seen_x[:, None, :])[:, None]
        return moved

    def _sources(
        self,
        side: int,
        flipped: Tensor,
        chance: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Where each of `side` pixels comes from, and whether that lies inside the image: (B, side) both."""
        target = torch.arange(side, device=chance.device)
        source = torch.where(flipped[:, None], side - 1 - target, target)
        source = source + ((chance * (2 * self.crop + 1)).to(torch.int64) - self.crop)[:, None]
        return source.clamp(0, side - 1), (source >= 0) & (source < side)

    def _warp(
        self,
        x: Tensor,
        u_angle: Tensor,
        u_scale: Tensor,
        u_x: Tensor,
        u_y: Tensor,
    ) -> Tensor:
        """Rotation, scale and translation, in one bilinear resampling; black outside."""
        height, width = x.shape[-2:]
        angle = (2 * u_angle - 1) * math.radians(self.rotate)
        factor = 1 + (2 * u_scale - 1) * self.scale
        # In float64: sines of one number differ in the last bit with its place in a vector, and
        # rounding hides that.
        cos, sin = (
            (f / factor).to(x.dtype)[:, None, None] for f in (torch.cos(angle), torch.sin(angle))
        )
        shift_x, shift_y = (
            ((2 * u - 1) * 2 * self.translate).to(x.dtype)[:, None, None] for u in (u_x, u_y)
        )
        xs = ((torch.arange(width, device=x.device, dtype=x.dtype) + 0.5) * 2 / width - 1)[
            None, None, :
        ] - shift_x
        ys = ((torch.arange(height, device=x.device, dtype=x.dtype) + 0.5) * 2 / height - 1)[
            None, :, None
        ] - shift_y
        aspect = height / width  # angles are angles of pixels, not of the [-1, 1] square
        # (B, H, W, 2)
        grid = torch.stack([cos * xs + sin * ys * aspect, cos * ys - sin * xs / aspect], dim=-1)
        return F.grid_sample(
            x,
            grid,
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )

    def _colour(
        self,
        x: Tensor,
        u_bright: Tensor,
        u_contrast: Tensor,
        u_saturation: Tensor,
        u_grey: Tensor,
    ) -> Tensor:
        """Brightness, contrast, saturation, grey scale, in this order."""
        if self.brightness:
            x = (x * _factor(u_bright, self.brightness, x)).clamp(0, 1)
        if self.contrast:
            mean = _grey(x).mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).to(x.dtype)
            x = (mean + (x - mean) * _factor(u_contrast, self.contrast, x)).clamp(0, 1)
        if self.saturation and x.shape[1] == 3:
            grey = _grey(x)
            x = (grey + (x - grey) * _factor(u_saturation, self.saturation, x)).clamp(0, 1)
        if self.grayscale and x.shape[1] == 3:
            x = torch.where((u_grey < self.grayscale)[:, None, None, None], _grey(x), x)
        return x


def _factor(chance: Tensor, jitter: float, like: Tensor) -> Tensor:
    return (1 + (2 * chance - 1) * jitter).to(like.dtype)[:, None, None, None]


def _grey(x: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


class ImageTransform:
    """From stored bytes to what a net sees: augmented, then standardised per channel.

    Args:
        mean: Of each channel, of values in [0, 1].
        std: Standard deviations, in the same way.
        augment: What may happen to an image; None for nothing.
        seed: Of the augmentation.
    """

    def __init__(
        self,
        mean: list[float],
        std: list[float],
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.augment = augment or None
        self.seed = seed
        self._mean = mean
        self._std = std
        self._affine: tuple[torch.device, Tensor, Tensor] | None = None

    def __call__(
        self,
        images: Tensor,
        index: Tensor,
        epoch: int,
    ) -> Tensor:
        """(B, C, H, W) uint8 to float32 of the same shape."""
        augment = self.augment
        affine = self._affine
        if affine is None or affine[0] != images.device:
            affine = self._affine = self._prepared(images.device)
        x = images.float() if augment is None else augment(images, index, self.seed, epoch)
        return x.mul_(affine[1]).add_(affine[2])

    def _prepared(self, device: torch.device) -> tuple[torch.device, Tensor, Tensor]:
        """X · scale + shift = (x / 255 − mean) / std, in two operations.

        What augments leaves values in [0, 1].
        """
        mean, std = (
            torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (self._mean, self._std)
        )
        scale = 1 / (std * 255.0 if self.augment is None else std)
        return device, scale.float().to(device), (-mean / std).float().to(device)
