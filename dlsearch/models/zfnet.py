"""ZFNet: Visualizing and understanding convolutional networks (Zeiler and Fergus, 2014)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from dlsearch.models.layers import (
    LocalResponseNorm,
    check_dropout,
    check_image,
    check_outputs,
    check_positive,
    expansion,
    initialise,
    output_sides,
    scaled,
    small_stem,
)
from dlsearch.models.layers import activation as make_activation


class ZFNet(nn.Module):
    """AlexNet with a 7×7 first layer of stride 2: 62,357,608 parameters for 3×224×224 and 1,000 classes.

    What differs from :class:`~dlsearch.models.alexnet.AlexNet`: the first convolution, and that the second has the
    stride of 2 that the first lost. The paper's contrast normalisation across feature maps is AlexNet's local response
    normalisation here. :func:`project` is its deconvolutional visualisation.

    The small stem is a 3×3 convolution of stride 1, and all else keeps its stride; the fully connected layers have 512
    units then.

    Args:
        in_shape: (channels, height, width).
        num_classes: Number of outputs.
        width: Factor on the channels of the convolutions.
        hidden: Units of the two hidden fully connected layers; null: 4,096, or 512 with the small stem.
        stem: paper, small, or auto: small for sides below 64.
        activation: Of all hidden layers.
        dropout: After each hidden fully connected layer.
        init: Initial weights: default, xavier, kaiming, normal (the paper's, of deviation 0.01).
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 224, 224),
        num_classes: int = 1000,
        width: float = 1.0,
        hidden: int | None = None,
        stem: str = "auto",
        activation: str = "relu",
        dropout: float = 0.5,
        init: str = "default",
    ) -> None:
        super().__init__()
        channels, *sides = check_image(in_shape, smallest=4)
        check_dropout(dropout)
        small = small_stem(stem, in_shape, smallest=64)
        c1, c2, c3, c4, c5 = scaled((96, 256, 384, 384, 256), width)
        hidden = (512 if small else 4096) if hidden is None else hidden
        check_positive(hidden=hidden)
        k = expansion(activation)
        if small:
            first, second = nn.Conv2d(channels, c1 * k, 3, padding=1), nn.Conv2d(c1, c2 * k, 5, padding=2)
        else:
            first, second = nn.Conv2d(channels, c1 * k, 7, 2, padding=1), nn.Conv2d(c1, c2 * k, 5, 2)
        # shapes for 3×224×224
        self.features = nn.Sequential(
            first,  # 96×110×110
            make_activation(activation),
            nn.MaxPool2d(3, 2, padding=1),  # 96×55×55
            LocalResponseNorm(),
            second,  # 256×26×26
            make_activation(activation),
            nn.MaxPool2d(3, 2, padding=1),  # 256×13×13
            LocalResponseNorm(),
            nn.Conv2d(c2, c3 * k, 3, padding=1),  # 384×13×13
            make_activation(activation),
            nn.Conv2d(c3, c4 * k, 3, padding=1),  # 384×13×13
            make_activation(activation),
            nn.Conv2d(c4, c5 * k, 3, padding=1),  # 256×13×13
            make_activation(activation),
            nn.MaxPool2d(3, 2, padding=1 if small else 0),  # 256×6×6
        )
        height, width_ = output_sides(self.features, sides)
        self.classifier = nn.Sequential(
            nn.Linear(c5 * height * width_, hidden * k),  # 9,216 to 4,096
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden * k),
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(hidden, check_outputs(num_classes)),
        )
        initialise(self, init, activation)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, num_classes)."""
        return self.classifier(self.features(x).flatten(1))


@torch.no_grad()
def project(features: nn.Sequential, x: Tensor, layer: int, channel: int) -> Tensor:
    """Map what one feature map answers most to back to pixels, by the deconvolutional net of section 2.1.

    The strongest activity of the map is kept and all others are set to 0; then the layers are passed backwards:
    convolutions by their transposes, max pools by the positions of their maxima, and activations by a rectification,
    which lets positive signals pass. Local response normalisation is divided by what it divided by.

    Args:
        features: Convolutions, max pools, ReLUs and :class:`LocalResponseNorm`, as ``AlexNet``, ``ZFNet`` and
            ``VGG`` have.
        x: (B, C, H, W).
        layer: Index in `features`, whose output is looked at.
        channel: Of that output.

    Returns:
        (B, C, H, W): what of each image made the map's strongest activity.

    Raises:
        ValueError: `features` has a layer that cannot be passed backwards, or no such layer or channel.
    """
    if not 0 <= layer < len(features):
        raise ValueError(f"layer: expected 0 to {len(features) - 1}, got {layer}")
    back = []  # from the signal after a layer to the one before it
    for module in features[: layer + 1]:
        x, undo = _passed(module, x)
        back.append(undo)
    if not 0 <= channel < x.shape[1]:
        raise ValueError(f"channel: expected 0 to {x.shape[1] - 1}, got {channel}")
    maps = x.flatten(2)  # (B, channels, H · W)
    strongest = maps[:, channel].argmax(1)
    rows = torch.arange(len(x), device=x.device)
    signal = torch.zeros_like(maps)
    signal[rows, channel, strongest] = maps[rows, channel, strongest]
    signal = signal.view(x.shape)
    for undo in reversed(back):
        signal = undo(signal)
    return signal


def _passed(module: nn.Module, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The output of a layer, and how a signal passes it backwards."""
    if isinstance(module, nn.Conv2d):
        geometry = (module.stride, module.padding, module.dilation, module.groups)
        return module(x), lambda signal: conv2d_input(x.shape, module.weight, signal, *geometry)
    if isinstance(module, nn.MaxPool2d):
        pooled, where = F.max_pool2d(x, module.kernel_size, module.stride, module.padding, return_indices=True)
        empty = torch.zeros_like(x).flatten(2)
        return pooled, lambda signal: empty.scatter_add(2, where.flatten(2), signal.flatten(2)).view(x.shape)
    if isinstance(module, (nn.ReLU, nn.LeakyReLU)):
        return module(x), F.relu
    if isinstance(module, LocalResponseNorm):
        divisor = module.divisor(x)
        return x / divisor, lambda signal: signal / divisor
    raise ValueError(f"features: expected convolutions, max pools, ReLU and normalisation, got {type(module).__name__}")
