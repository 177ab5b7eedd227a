"""Distorted digits: moved, scaled, turned and cluttered, for nets that must find the digit first.

After the data of "Spatial transformer networks" (Jaderberg et al., 2015, appendix A.4), made here
of MNIST by a seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from dlsearch.systems.vision.data.augment import Augment, uniform
from dlsearch.systems.vision.data.image import MNIST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_CHUNK = 4096
#: Numbers of chance that the place of an image takes, and each piece of another.
_OF_PLACE = 4
_OF_PIECE = 5


def distort(
    images: NDArray[np.uint8],
    side: int,
    *,
    rotate: float = 0.0,
    scale: Sequence[float] = (1.0, 1.0),
    translate: bool = True,
    clutter: int = 0,
    patch: int = 6,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Put each image somewhere on a larger black one.

    It is turned, scaled, and lies among pieces of other images. Each image's distortion depends on
    the seed and its index alone.

    Args:
        images: (N, C, H, W).
        side: Of the larger images, in pixels.
        rotate: Up to this many degrees either way.
        scale: Least and largest factor.
        translate: Anywhere where the image lies inside (before it is turned), else in the middle.
        clutter: Pieces of other images.
        patch: Sides of a piece, in pixels.
        seed: Of everything.

    Returns:
        (N, C, side, side).
    """
    count, channels = images.shape[:2]
    out = np.empty((count, channels, side, side), dtype=np.uint8)
    for start in range(0, count, _CHUNK):
        end = min(start + _CHUNK, count)
        index = torch.arange(start, end)
        chance = uniform(seed, 0, index, _OF_PLACE + _OF_PIECE * clutter)
        part = torch.from_numpy(images[start:end]).float()
        placed = _place(part, side, rotate, scale, translate, chance)
        levels = placed.round().clamp(0, 255)
        whole = levels.to(torch.uint8).numpy()
        for piece in range(clutter):
            first = _OF_PLACE + _OF_PIECE * piece
            of_piece = chance[:, first : first + _OF_PIECE]
            _add_piece(whole, images, patch, of_piece.numpy())
        out[start:end] = whole
    return out


def _place(
    images: torch.Tensor,
    side: int,
    rotate: float,
    scale: Sequence[float],
    translate: bool,
    chance: torch.Tensor,
) -> torch.Tensor:
    """(B, C, H, W) to (B, C, side, side), by four numbers of chance in [0, 1) each."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad((2 * chance[:, 0] - 1) * rotate)
    least, largest = scale
    factor = least + chance[:, 1] * (largest - least)
    # pixels either way
    room_x = ((side - width * factor) / 2).clamp(min=0) * translate
    room_y = ((side - height * factor) / 2).clamp(min=0) * translate
    shift_x = (2 * chance[:, 2] - 1) * room_x
    shift_y = (2 * chance[:, 3] - 1) * room_y
    at = torch.arange(side, dtype=torch.float64) - (side - 1) / 2  # pixels from the centre
    from_centre_x = at[None, None, :] - shift_x[:, None, None]
    from_centre_y = at[None, :, None] - shift_y[:, None, None]
    xs = from_centre_x / factor[:, None, None]
    ys = from_centre_y / factor[:, None, None]
    cos = torch.cos(angle)[:, None, None]
    sin = torch.sin(angle)[:, None, None]
    source_x = cos * xs + sin * ys
    source_y = cos * ys - sin * xs
    grid = torch.stack([source_x * 2 / width, source_y * 2 / height], dim=-1)
    return F.grid_sample(
        images,
        grid.float(),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )


def _add_piece(
    whole: NDArray[np.uint8],
    images: NDArray[np.uint8],
    patch: int,
    chance: NDArray[Any],
) -> None:
    """Lay one piece of another image on each of `whole`; the brighter pixel wins."""
    height, width = images.shape[-2:]
    side = whole.shape[-1]
    limits = np.array(
        [
            len(images),
            height - patch + 1,
            width - patch + 1,
            side - patch + 1,
            side - patch + 1,
        ]
    )
    drawn = (chance * limits).astype(np.int64)
    other, y, x, top, left = drawn.T[..., None, None]  # (B, 1, 1) each
    rows = np.arange(patch)[:, None]
    columns = np.arange(patch)
    target = np.arange(len(whole))[:, None, None]
    place = (target, slice(None), top + rows, left + columns)
    pieces = images[other, :, y + rows, x + columns]
    whole[place] = np.maximum(whole[place], pieces)


class DistortedMNIST(MNIST):
    """MNIST on a larger canvas, distorted once: training, validation and test alike.

    Args:
        shape: (1, side, side).
        rotate: Up to this many degrees either way.
        scale: Least and largest factor.
        translate: Whether the digit may lie anywhere.
        clutter: Pieces of other digits, of 6×6 pixels.
        distortion_seed: Of the distortion, apart from the split's and the run's.
        mean: Of the channel, of values in [0, 1]; null computes it on the training split.
        std: Standard deviations, in the same way.
        augment: What may happen to a training image, beside the distortion.
        **settings: As of :class:`~dlsearch.systems.vision.data.image.ImageArrays`.
    """

    name = "distorted_mnist"

    def __init__(
        self,
        *,
        shape: Sequence[int] = (1, 42, 42),
        rotate: float = 45.0,
        scale: Sequence[float] = (0.7, 1.2),
        translate: bool = True,
        clutter: int = 0,
        distortion_seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: Augment | None = None,
        **settings: Any,
    ) -> None:
        is_square = len(shape) == 3 and shape[0] == 1 and shape[1] == shape[2]
        if not is_square or shape[1] < 28:
            raise ValueError(
                f"shape: expected [1, side, side] with 28 pixels or more, got {list(shape)}"
            )
        if not 0 <= rotate <= 180:
            raise ValueError(f"rotate: expected 0 to 180, got {rotate}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale: expected the least and the largest factor, got {list(scale)}")
        if isinstance(clutter, bool) or not isinstance(clutter, int) or clutter < 0:
            raise ValueError(f"clutter: expected 0 or more pieces, got {clutter!r}")
        self.native_shape = (1, shape[1], shape[2])
        super().__init__(
            shape=shape,
            mean=mean,
            std=std,
            augment=augment,
            **settings,
        )
        self.rotate = float(rotate)
        self.scale = [float(s) for s in scale]
        self.translate = bool(translate)
        self.clutter = clutter
        self.distortion_seed = distortion_seed

    def source(self) -> Mapping[str, Any]:
        """The distortion, all of it."""
        return {
            **super().source(),
            "rotate": self.rotate,
            "scale": self.scale,
            "translate": self.translate,
            "clutter": self.clutter,
            "side": self.shape[1],
            "distortion_seed": self.distortion_seed,
        }

    def decode(self) -> dict[str, NDArray[Any]]:
        """Training and test, each distorted by seeds of its own."""
        arrays = super().decode()
        for number, part in enumerate(("train", "test")):
            arrays[part] = distort(
                arrays[part],
                self.shape[1],
                rotate=self.rotate,
                scale=self.scale,
                translate=self.translate,
                clutter=self.clutter,
                seed=2 * self.distortion_seed + number,
            )
        return arrays
