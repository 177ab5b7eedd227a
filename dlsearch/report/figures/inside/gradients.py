"""The figure of the gradients: norms by layer, before and after the training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import remove_frame, set_round_xticks
from dlsearch.report.figures.canvas import ACCENT, MUTED, PAPER, new_figure
from dlsearch.report.figures.marks import Look, key_above
from dlsearch.report.figures.plate import HALF, Plate, capitalised
from dlsearch.report.formats import number, plural, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.inspection.findings import GradientNorms, InsideFindings

#: Examples of the batch that the gradient is taken on, at most.
BATCH_SIZE = 64
MOST_DECADES_LABELLED = 6

_INITIAL_LOOK: Look = {
    "color": MUTED,
    "ls": (0, (4, 2)),
    "marker": "o",
    "mfc": PAPER,
    "mec": MUTED,
}
_KEPT_LOOK: Look = {
    "color": ACCENT,
    "ls": "-",
    "marker": "o",
    "mfc": ACCENT,
    "mec": PAPER,
}


@dataclass(frozen=True)
class _Curve:
    """The norms of one net by the place of the layer; layers without a gradient are counted."""

    name: str
    look: Look
    points: list[tuple[int, float]]
    zeros: int

    @property
    def norms(self) -> list[float]:
        """The norms alone."""
        return [norm for _, norm in self.points]


def draw_gradients(inside: InsideFindings) -> Plate | None:
    """Norms of the loss's gradient by layer, on a logarithmic scale."""
    found = inside.get("gradients")
    if not found or len(found["layers"]) < 2:
        return None
    curves = _curves_of(found)
    if not curves:
        return None
    caption = _caption(curves, found, inside.get("n") or BATCH_SIZE)
    return Plate(
        key="gradients",
        title="Gradients by depth",
        caption=caption,
        alt=caption,
        wide=_drawing(curves, len(found["layers"])),
    )


def _curves_of(found: GradientNorms) -> list[_Curve]:
    initial_name, kept_name = found.get("names") or ["as initialised", "as kept"]
    candidates = [
        _curve_of(initial_name, _INITIAL_LOOK, found.get("initial") or []),
        _curve_of(kept_name, _KEPT_LOOK, found.get("kept") or []),
    ]
    return [curve for curve in candidates if len(curve.points) > 1]


def _curve_of(name: str, look: Look, norms: Sequence[float | None]) -> _Curve:
    points: list[tuple[int, float]] = []
    for place, norm in enumerate(norms, 1):
        if norm is not None and norm > 0:
            points.append((place, norm))
    zeros = sum(norm == 0 for norm in norms)
    return _Curve(
        name,
        look,
        points,
        zeros,
    )


def _drawing(curves: Sequence[_Curve], n_layers: int) -> Figure:
    figure = new_figure(HALF, 290)
    ax = figure.add_subplot()
    ax.set_yscale("log")
    for curve in curves:
        ax.plot(
            [place for place, _ in curve.points],
            curve.norms,
            lw=1.5,
            ms=4.4,
            mew=0.9,
            label=curve.name,
            clip_on=False,
            **curve.look,
        )
    norms = [norm for curve in curves for norm in curve.norms]
    _set_decades(ax, min(norms), max(norms))
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_xlim(1 - 0.02 * n_layers, n_layers + 0.02 * n_layers)
    set_round_xticks(ax, 8, whole=True)
    ax.set_xlabel("layer with weights, from the first to the last")
    ax.set_title("norm of the gradient")
    key_above(
        ax,
        2,
        handlelength=2.2,
        handletextpad=0.5,
    )
    remove_frame(ax)
    return figure


def _set_decades(ax: Axes, low: float, high: float) -> None:
    """Limits at whole powers of ten, and labels of a few of them."""
    first = math.floor(math.log10(low) + 1e-9)
    last = math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    step = max(1, -(-(last - first) // MOST_DECADES_LABELLED))
    exponents = range(first, last + 1, step)
    ax.set_ylim(10.0**first, 10.0**last)
    ax.set_yticks([10.0**exponent for exponent in exponents], [_power_label(e) for e in exponents])
    ax.minorticks_off()


def _power_label(exponent: int) -> str:
    if -3 <= exponent <= 3:
        return number(10.0**exponent)
    return f"1e{exponent}".replace("-", "−")


def _caption(curves: Sequence[_Curve], found: GradientNorms, n_examples: int) -> str:
    batch = f"one batch of {plural(min(BATCH_SIZE, n_examples), 'example')}"
    if found.get("names"):
        batch = "single batches"
    first_layer = short(found["layers"][0], 30)
    last_layer = short(found["layers"][-1], 30)
    last_curve = curves[-1]
    ratio = last_curve.norms[0] / last_curve.norms[-1]
    caption = (
        f"Of the loss on {batch}, by the weights of each layer, from {first_layer} to {last_layer}."
        f" {capitalised(last_curve.name)}, the first layer's is {number(float(f'{ratio:.2g}'))}"
        " times the last one's."
    )
    for curve in curves:
        if curve.zeros:
            layers = plural(curve.zeros, "layer")
            caption += f" {capitalised(curve.name)}, {layers} got no gradient at all."
    return caption
