"""Augmentation of whole batches on their device.

It is random for each sample by (seed, epoch, index) and nothing else.

Random numbers are a hash of these, not draws from a generator: a sample looks the same whatever its
batch, its place in it, the number of workers and the device. (``torchvision.transforms.v2`` draws
once for a whole batch tensor.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_MASK = (1 << 64) - 1
#: Odd numbers of 64 bits by which SplitMix64 mixes, and one more.
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_OF_SEED = 0xD1342543DE82EF95
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's grey scale


def _signed(value: int) -> int:
    """The int64 of the same bits as 64 bits without a sign."""
    if value < 1 << 63:
        return value
    return value - (1 << 64)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; that of int64 is arithmetic."""
    kept = (1 << (64 - bits)) - 1
    return (z >> bits) & kept


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
    start = (seed * _OF_SEED + epoch * _GOLDEN) & _MASK
    again = (start * _SECOND) & _MASK
    numbers = torch.arange(1, streams + 1, device=index.device)
    stream = numbers * _signed(_FIRST)
    # Mixed twice, so that neighbours in any of the four are far apart.
    samples = index.to(torch.int64)[:, None]
    z = _mix(samples + (stream + _signed(start)))
    z = _mix(z + (stream ^ _signed(again)))
    bits = _shift(z, 11)
    return bits.to(torch.float64) * 2.0**-53


def _mix(z: Tensor) -> Tensor:
    z = z * _signed(_GOLDEN)
    z = (z ^ _shift(z, 30)) * _signed(_FIRST)
    z = (z ^ _shift(z, 27)) * _signed(_SECOND)
    return z ^ _shift(z, 31)


class Augment:
    """What may happen to a training image.

    Everything is off by default, and each is one number for a search to choose.

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
                    f"{name}: expected 0 to {most:g}, got {value}"
                    f" (hint: data.augment.{name}=0 is off)"
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
        if self.colours:
            x = self._colour(x, *streams[8:])
        return x

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
        sources = rows[:, :, None] * width + columns[:, None, :]  # (B, H, W)
        flat = sources.flatten(1)[:, None, :]
        of_channels = flat.expand(-1, images.shape[1], -1)
        moved = images.flatten(2).gather(2, of_channels)
        moved = moved.view_as(images)
        if self.crop:
            seen = seen_y[:, :, None] & seen_x[:, None, :]
            moved = moved * seen[:, None]
        return moved

    def _sources(
        self,
        side: int,
        flipped: Tensor,
        chance: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Where each of `side` pixels comes from, and whether that lies inside the image.

        Both are (B, side).
        """
        target = torch.arange(side, device=chance.device)
        source = torch.where(flipped[:, None], side - 1 - target, target)
        places = (chance * (2 * self.crop + 1)).to(torch.int64)
        shift = places - self.crop
        source = source + shift[:, None]
        is_inside = (source >= 0) & (source < side)
        return source.clamp(0, side - 1), is_inside

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
        cos = _for_pixels(torch.cos(angle) / factor, x)
        sin = _for_pixels(torch.sin(angle) / factor, x)
        shift_x = _for_pixels((2 * u_x - 1) * 2 * self.translate, x)
        shift_y = _for_pixels((2 * u_y - 1) * 2 * self.translate, x)
        xs = _centres(width, x)[None, None, :] - shift_x
        ys = _centres(height, x)[None, :, None] - shift_y
        aspect = height / width  # angles are angles of pixels, not of the [-1, 1] square
        source_x = cos * xs + sin * ys * aspect
        source_y = cos * ys - sin * xs / aspect
        grid = torch.stack([source_x, source_y], dim=-1)  # (B, H, W, 2)
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
        has_colours = x.shape[1] == 3
        if self.brightness:
            factor = _factor(u_bright, self.brightness, x)
            x = (x * factor).clamp(0, 1)
        if self.contrast:
            factor = _factor(u_contrast, self.contrast, x)
            mean = _grey(x).mean(
                dim=(1, 2, 3),
                keepdim=True,
                dtype=torch.float64,
            )
            mean = mean.to(x.dtype)
            x = (mean + (x - mean) * factor).clamp(0, 1)
        if self.saturation and has_colours:
            factor = _factor(u_saturation, self.saturation, x)
            grey = _grey(x)
            x = (grey + (x - grey) * factor).clamp(0, 1)
        if self.grayscale and has_colours:
            is_grey = u_grey < self.grayscale
            x = torch.where(is_grey[:, None, None, None], _grey(x), x)
        return x


def _for_pixels(numbers: Tensor, like: Tensor) -> Tensor:
    """A number for each image as one for each of its pixels: (B,) to (B, 1, 1)."""
    return numbers.to(like.dtype)[:, None, None]


def _centres(side: int, like: Tensor) -> Tensor:
    """Where the centres of pixels lie, in [-1, 1] from edge to edge: (side,)."""
    pixels = torch.arange(side, device=like.device, dtype=like.dtype)
    return (pixels + 0.5) * 2 / side - 1


def _factor(chance: Tensor, jitter: float, like: Tensor) -> Tensor:
    factor = 1 + (2 * chance - 1) * jitter
    return factor.to(like.dtype)[:, None, None, None]


def _grey(x: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    of_red, of_green, of_blue = _LUMA
    grey = of_red * red + of_green * green + of_blue * blue
    return grey[:, None]


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
        self._affine: _Affine | None = None

    def __call__(
        self,
        images: Tensor,
        index: Tensor,
        epoch: int,
    ) -> Tensor:
        """(B, C, H, W) uint8 to float32 of the same shape."""
        affine = self._affine
        if affine is None or affine.device != images.device:
            affine = self._prepared(images.device)
            self._affine = affine
        if self.augment is None:
            x = images.float()
        else:
            x = self.augment(images, index, self.seed, epoch)
        return x.mul_(affine.scale).add_(affine.shift)

    def _prepared(self, device: torch.device) -> _Affine:
        """X · scale + shift = (x / 255 − mean) / std, in two operations.

        What augments leaves values in [0, 1].
        """
        mean = torch.tensor(self._mean, dtype=torch.float64)[:, None, None]
        std = torch.tensor(self._std, dtype=torch.float64)[:, None, None]
        divisor = std * 255.0 if self.augment is None else std
        scale = 1 / divisor
        shift = -mean / std
        return _Affine(
            device,
            scale.float().to(device),
            shift.float().to(device),
        )


@dataclass(frozen=True)
class _Affine:
    """Standardisation as a product and a sum, (C, 1, 1) each, on a device."""

    device: torch.device
    scale: Tensor
    shift: Tensor
