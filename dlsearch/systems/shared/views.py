"""Averaging over several views of an image at test time: windows of it, and their mirror images.

As in AlexNet (Krizhevsky, Sutskever and Hinton, 2012: the four corners and the centre, each
mirrored too) and GoogLeNet (Szegedy et al., 2014: also the whole image, at several scales), whose
softmax outputs are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CROPS = (1, 5, 6)


class Views:
    """Windows of an image, as large as the image itself: the net sees what it was made for.

    The image is enlarged by each `scale`, bilinearly, and bordered by `pad` reflected pixels; of
    the result, windows of the image's own size are cut. With a scale of 1 and no border all windows
    are the image.

    Args:
        crops: 1 is the centre; 5 the corners and the centre (AlexNet); 6 also the whole result,
            resized (GoogLeNet).
        flip: Also the mirror image of each.
        scale: Factor on the sides, or several: AlexNet's 256 for windows of 224 is 1.143.
        pad: Pixels on each side.

    Raises:
        ValueError: A value is none of these, or several crops would all be the same window.
    """

    def __init__(
        self,
        crops: int = 1,
        flip: bool = False,
        scale: float | Sequence[float] = 1.0,
        pad: int = 0,
    ) -> None:
        scales = tuple(scale) if isinstance(scale, Sequence) else (scale,)
        if crops not in CROPS:
            raise ValueError(f"crops: expected one of {', '.join(map(str, CROPS))}, got {crops!r}")
        if not scales or not all(1 <= each <= 4 for each in scales):
            raise ValueError(f"scale: expected factors from 1 to 4, got {scale!r}")
        if isinstance(pad, bool) or not isinstance(pad, int) or pad < 0:
            raise ValueError(f"pad: expected a number of pixels, got {pad!r}")
        if crops > 1 and pad == 0 and min(scales) == 1:
            raise ValueError(
                "crops: expected 1 where the image is neither enlarged nor bordered"
                " (hint: scale=1.143)"
            )
        self.crops = crops
        self.flip = bool(flip)
        self.scales = scales
        self.pad = pad

    def __bool__(self) -> bool:
        """Whether there is any view but the image."""
        return len(self) > 1 or self.pad > 0 or self.scales != (1,)

    def __len__(self) -> int:
        return self.crops * len(self.scales) * (2 if self.flip else 1)

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        """The views of a batch, one after the other.

        Args:
            x: (B, C, H, W).

        Yields:
            (B, C, H, W).

        Raises:
            ValueError: `x` holds no images, or the border is as wide as they are.
        """
        if x.ndim != 4:
            raise ValueError(
                f"test_time: expected images (B, C, H, W), got {list(x.shape)}"
                " (hint: crops=1 flip=false)"
            )
        height, width = x.shape[-2:]
        if self.pad >= min(height, width):
            raise ValueError(
                f"pad: expected fewer pixels than the image's sides, {height}×{width},"
                f" got {self.pad}"
            )
        for scale in self.scales:
            canvas = self._canvas(x, scale)
            for view in self._windows(canvas, height, width):
                yield view
                if self.flip:
                    yield view.flip(-1)

    def _canvas(self, x: Tensor, scale: float) -> Tensor:
        if scale != 1:
            sides = [math.ceil(side * scale - 1e-9) for side in x.shape[-2:]]
            x = F.interpolate(
                x,
                size=sides,
                mode="bilinear",
                align_corners=False,
            )
        if not self.pad:
            return x
        return F.pad(x, (self.pad,) * 4, mode="reflect")

    def _windows(
        self,
        canvas: Tensor,
        height: int,
        width: int,
    ) -> Iterator[Tensor]:
        down = canvas.shape[-2] - height
        right = canvas.shape[-1] - width
        corners = [(0, 0), (0, right), (down, 0), (down, right)]
        centre = (down // 2, right // 2)
        places = [*corners, centre] if self.crops > 1 else [centre]
        for top, left in places:
            yield canvas[..., top : top + height, left : left + width]
        if self.crops == 6:
            yield F.interpolate(
                canvas,
                size=(height, width),
                mode="bilinear",
                align_corners=False,
            )

    def averaged(
        self,
        net: Callable[[Tensor], Tensor],
        x: Tensor,
        *,
        probabilities: bool,
    ) -> Tensor:
        """The mean of a net's outputs over the views of a batch.

        Args:
            net: Takes (B, C, H, W), gives (B, K).
            x: (B, C, H, W).
            probabilities: Average the softmax of the outputs; else the outputs themselves.

        Returns:
            (B, K). Of probabilities the logarithm: its softmax is the mean, and a cross-entropy
            takes it as logits.
        """
        total: Tensor | None = None
        for view in self(x):
            outputs = net(view)
            if probabilities:
                outputs = outputs.log_softmax(1)
            if total is None:
                total = outputs
            elif probabilities:
                total = torch.logaddexp(total, outputs)
            else:
                total = total + outputs
        assert total is not None
        if probabilities:
            return total - math.log(len(self))
        return total / len(self)
