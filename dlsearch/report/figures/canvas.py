"""The sheet that figures are drawn on: its colours, its settings, its size in CSS pixels."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

#: The colours of the figures; each is a custom property of the page's style sheet as well.
INK = "#1c1f23"
MUTED = "#5b6470"
RULE = "#d9dde3"
FAINT = "#eef1f4"
ACCENT = "#0a5cad"
BAD = "#b3400e"
PAPER = "#ffffff"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    FAINT: "faint",
    ACCENT: "accent",
    BAD: "bad",
    PAPER: "paper",
}

CSS_PIXELS_PER_INCH = 96

_SETTINGS: dict[Any, Any] = {  # matplotlib's own type of a setting's name is a union of all names
    "svg.fonttype": "none",
    "svg.hashsalt": "dlsearch",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.unicode_minus": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.labelsize": 9.0,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "xtick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handletextpad": 0.2,
    "legend.columnspacing": 1.1,
    "legend.borderpad": 0.0,
    "legend.borderaxespad": 0.0,
    "path.simplify": True,
    "image.composite_image": False,  # pictures in one drawing stay pictures, in their own pixels
}


@contextlib.contextmanager
def figure_settings() -> Iterator[None]:
    """Draw with the report's settings and no other: a user's matplotlibrc changes nothing."""
    import matplotlib

    with warnings.catch_warnings():
        # A name in a script that the layout font lacks is drawn by the reader's own fonts.
        warnings.simplefilter("ignore")
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_SETTINGS)
            yield


def new_figure(
    width: float,
    height: float,
    layout: Literal["constrained", "none"] = "constrained",
) -> Figure:
    """An empty figure of so many CSS pixels."""
    from matplotlib.figure import Figure

    size_in_inches = (width / CSS_PIXELS_PER_INCH, height / CSS_PIXELS_PER_INCH)
    # matplotlib's stubs lack "none"
    figure = Figure(figsize=size_in_inches, layout=layout)  # type: ignore[arg-type]
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.03, h_pad=0.03)  # type: ignore[call-arg]  # the constrained one has them
    return figure
