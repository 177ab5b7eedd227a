"""What the record of a study, or a page, holds of what was seen in a net: JSON, typed by name.

Imports nothing heavy, so that what reads a record can name these types too.
"""

from __future__ import annotations

from typing import TypedDict


class Pictures(TypedDict):
    """Pictures: (n, channels, height, width) of bytes, in base64."""

    shape: list[int]
    data: str


# -- a net ----------------------------------------------------------------------------------------
# "in" is a word of Python
LayerRow = TypedDict(
    "LayerRow",
    {
        "name": str,
        "type": str,
        "in": list[int] | None,
        "out": list[int] | None,
        "params": int,
        "macs": int,
        "field": list[int] | None,
    },
)


class NetSummary(TypedDict):
    """A net by its layers; `macs` are multiply-adds for one input, `n_params` what is trained."""

    n_params: int
    macs: int
    layers: list[LayerRow]


class FirstLayer(Pictures):
    """The weights of a first layer as pictures; a weight is ``(byte - 128) * step`` of its filter.

    `total` counts the filters of the layer, of which the first ones are kept.
    """

    layer: str
    type: str
    total: int
    steps: list[float]


# -- inside of it ---------------------------------------------------------------------------------
class LayerMaps(TypedDict):
    """Feature maps of one layer; ``names`` and ``kernels`` are those of fixed kernels."""

    layer: str
    type: str
    total: int
    sides: list[int]
    channels: list[int]
    names: list[str] | None
    kernels: Pictures | None
    tiles: Pictures


class DeconvolvedLayer(TypedDict):
    """For some maps of a layer, the images that excite them most, and what of them did.

    ``field`` is the receptive field, height and width; of each channel there are so many `images`.
    """

    layer: str
    field: list[int]
    channels: list[int]
    total: int
    images: int
    projections: Pictures
    patches: Pictures


class WarpedImages(TypedDict):
    """What a spatial transformer made of images; ``maps`` holds a 2×3 matrix for each."""

    layer: str
    images: Pictures
    warped: Pictures
    maps: list[list[list[float]]]
    labels: list[int] | None


class _NormsByLayer(TypedDict):
    """Two measurements of the gradient's norm by layer, each null where it was not made."""

    layers: list[str]
    initial: list[float | None] | None
    kept: list[float | None] | None


class GradientNorms(_NormsByLayer, total=False):
    """Norms of the gradient by layer, as initialised and as kept.

    Where the training logged them, `names` says of which steps the two are, and `norms` holds those
    of all `steps`.
    """

    names: list[str]
    steps: list[int]
    norms: dict[str, list[float | None]]


class LossCurves(TypedDict):
    """Training and validation loss by epoch, and the epoch whose weights are kept."""

    metric: str
    train: list[list[float]]
    val: list[list[float]]
    best: int | None


class InsideFindings(TypedDict, total=False):
    """What was seen inside of a net; each part may be absent or null.

    `source` says where the `n` examples are from, and `image` is the one whose maps are shown.
    """

    n: int
    source: str
    first_layer: FirstLayer | None
    image: Pictures | None
    maps: list[LayerMaps] | None
    deconvolution: list[DeconvolvedLayer] | None
    warped: WarpedImages | None
    gradients: GradientNorms | None
    curves: LossCurves | None


# -- learning rates -------------------------------------------------------------------------------
class SuggestedRates(TypedDict):
    """Learning rates that a curve of losses speaks for; all null where the loss never falls.

    At `begins` a tenth of the fall to the least loss is done, at `least` the loss is least, and at
    `suggestion` it falls most steeply by the logarithm of the rate.
    """

    begins: float | None
    least: float | None
    suggestion: float | None


class RangeTestFindings(SuggestedRates):
    """What a learning-rate range test found: rates, losses and smoothed losses by step."""

    low: float
    high: float
    steps: int
    rates: list[float]
    losses: list[float]
    smooth: list[float]
    diverged: bool


def round_to_digits(value: float, digits: int) -> float:
    """The value with so many significant digits."""
    return float(f"{value:.{digits}g}")
