"""Distorted digits: moved, scaled, turned and cluttered, for nets that must find the digit first.

After the data of "Spatial transformer networks" (Jaderberg et al., 2015, appendix A.4), made here
of MNIST by a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from dlsearch.systems.vision.data.augment import Augment, uniform
from dlsearch.systems.vision.data.image import MNIST

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 4096


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
    """Put each image somewhere on a larger black one, turned, scaled, and among pieces of other images.

    Each image's distortion depends on the seed and its index alone.

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
    out = np.empty((len(images), images.shape[1], side, side), dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        index = torch.arange(start, min(start + _CHUNK, len(images)))
        chance = uniform(seed, 0, index, 4 + 5 * clutter)
        part = torch.from_numpy(images[start : start + _CHUNK]).float()
        placed = _place(part, side, rotate, scale, translate, chance)
        whole = placed.round().clamp(0, 255).to(torch.uint8).numpy()
        for piece in range(clutter):
            _add_piece(whole, images, patch, chance[:, 4 + 5 * piece : 9 + 5 * piece].numpy())
        out[start : start + _CHUNK] = whole
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
    factor = scale[0] + chance[:, 1] * (scale[1] - scale[0])
    # pixels either way
    room_x, room_y = (((side - n * factor) / 2).clamp(min=0) * translate for n in (width, height))
    shift_x = (2 * chance[:, 2] - 1) * room_x
    shift_y = (2 * chance[:, 3] - 1) * room_y
    at = torch.arange(side, dtype=torch.float64) - (side - 1) / 2  # pixels from the centre
    xs = (at[None, None, :] - shift_x[:, None, None]) / factor[:, None, None]
    ys = (at[None, :, None] - shift_y[:, None, None]) / factor[:, None, None]
    cos = torch.cos(angle)[:, None, None]
    sin = torch.sin(angle)[:, None, None]
    grid = torch.stack(
        [(cos * xs + sin * ys) * 2 / width, (cos * ys - sin * xs) * 2 / height], dim=-1
    )
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
        (len(images), height - patch + 1, width - patch + 1, side - patch + 1, side - patch + 1)
    )
    other, y, x, top, left = (chance * limits).astype(np.int64).T[..., None, None]  # (B, 1, 1) each
    rows = np.arange(patch)[:, None]
    columns = np.arange(patch)
    target = np.arange(len(whole))[:, None, None]
    place = (target, slice(None), top + rows, left + columns)
    whole[place] = np.maximum(whole[place], images[other, :, y + rows, x + columns])


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
        if len(shape) != 3 or shape[0] != 1 or shape[1] != shape[2] or shape[1] < 28:
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

    def source(self) -> dict[str, Any]:
        """The distortion, all of it."""
        how = {
            "rotate": self.rotate,
            "scale": self.scale,
            "translate": self.translate,
            "clutter": self.clutter,
        }
        return {
            **super().source(),
            **how,
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
