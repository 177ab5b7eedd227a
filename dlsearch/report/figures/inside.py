"""Figures of what is inside a net: feature maps, what excites features, warped inputs, gradients, loss curves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dlsearch.report.figures.plate import HALF, NARROW, WIDE, Plate, finish, note
from dlsearch.report.figures.scales import xticks
from dlsearch.report.figures.svg import ACCENT, BAD, INK, MUTED, PAPER, canvas
from dlsearch.report.figures.training import decoded
from dlsearch.report.formats import number, plural, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: Height of a line of text, and the gap between tiles, in CSS pixels.
LINE, GAP = 18.0, 3.0


def plates(inside: dict[str, Any] | None) -> list[Plate]:
    """All figures that the record gives something for."""
    if not inside:
        return []
    made = [draw(inside) for draw in (gallery, maps, deconvolution, warped, gradients, loss)]
    return [p for p in made if p is not None]


class Sheet:
    """A figure whose parts are placed by CSS pixels, from the top left corner.

    Args:
        width: Of the figure.
        height: Of the figure.
    """

    def __init__(self, width: float, height: float) -> None:
        self.figure = canvas(width, height, layout="none")
        self.ax = self.figure.add_axes((0, 0, 1, 1))
        self.ax.set_xlim(0, width)
        self.ax.set_ylim(height, 0)
        self.ax.set_autoscale_on(False)
        self.ax.set_axis_off()

    def text(self, x: float, y: float, words: str, **look: Any) -> None:
        """Words whose first line's middle is at y."""
        style: dict[str, Any] = {"fontsize": 8.5, "color": INK, "va": "center_baseline", "ha": "left"} | look
        self.ax.text(x, y, words, **style)

    def tiles(self, x: float, y: float, tiles: NDArray[Any], columns: int, side: float, gap: float = GAP) -> None:
        """Pictures, (n, H, W, 3) in [0, 1], as one image whose tiles are `side` wide, `columns` in a row."""
        import numpy as np

        n, high, wide = tiles.shape[:3]
        scale = max(1, round(2 * side / max(high, wide)))  # so fine that a gap is whole pixels, nearly
        between = max(1, round(gap * wide * scale / side))
        lines = -(-n // columns)
        step_y, step_x = high * scale + between, wide * scale + between
        sheet = np.zeros((lines * step_y - between, min(n, columns) * step_x - between, 4))
        for i, tile in enumerate(tiles):
            top, left = (i // columns) * step_y, (i % columns) * step_x
            large = np.repeat(np.repeat(tile, scale, axis=0), scale, axis=1)
            sheet[top : top + high * scale, left : left + wide * scale, :3] = large
            sheet[top : top + high * scale, left : left + wide * scale, 3] = 1.0
        factor = side / (wide * scale)
        extent = (x, x + sheet.shape[1] * factor, y + sheet.shape[0] * factor, y)
        self.ax.imshow(sheet, extent=extent, interpolation="none", aspect="auto")

    def outline(self, points: Sequence[tuple[float, float]], box: tuple[float, float, float, float]) -> None:
        """A closed line through points in [0, 1], the first stretch of it thick, cut off at the box (x, y, w, h)."""
        from matplotlib.patches import Rectangle

        x, y, width, height = box
        xs, ys = ([start + size * p[i] for p in points] for i, (start, size) in enumerate(((x, width), (y, height))))
        edge = Rectangle((x, y), width, height, transform=self.ax.transData)
        for n, colour, wide in ((len(xs), PAPER, 2.6), (len(xs), ACCENT, 1.1), (2, ACCENT, 2.6)):
            (line,) = self.ax.plot(xs[:n], ys[:n], color=colour, lw=wide, alpha=0.75 if colour == PAPER else 1.0)
            line.set_clip_path(edge)


def maps(inside: dict[str, Any]) -> Plate | None:
    """Feature maps of one example, a layer below the other."""
    rows = [(m, decoded(m["tiles"])) for m in inside.get("maps") or [] if not m.get("names")]
    image = decoded(inside["image"]) if inside.get("image") else None
    shown = [(m, tiles) for m, tiles in rows if tiles is not None]
    if not shown or image is None:
        return None

    def draw(width: int) -> Figure:
        columns, first = (16, 92.0) if width > 500 else (8, 0.0)
        side = (width - first - (columns - 1) * GAP) / columns
        lines = [-(-len(tiles) // columns) for _, tiles in shown]
        heights = [LINE + n * (side * _tall(t) + GAP) + 8 for (_, t), n in zip(shown, lines, strict=True)]
        above = 0.0 if first else 84.0
        sheet = Sheet(width, above + sum(heights))
        sheet.tiles(0, LINE if first else 0, image, 1, 76 / max(1.0, _tall(image)))
        y = above
        for (m, tiles), height in zip(shown, heights, strict=True):
            sheet.text(first, y + LINE / 2, short(m["layer"], 40), weight="bold")
            sides = "×".join(str(n) for n in m["sides"])
            some = plural(m["total"], "map") if len(tiles) == m["total"] else f"{len(tiles)} of {m['total']:,} maps"
            sheet.text(width, y + LINE / 2, f"{some}, {sides}", color=MUTED, ha="right")
            sheet.tiles(first, y + LINE, tiles, columns, side)
            y += height
        return sheet.figure

    caption = "One validation example and what layers answer to it, after their activation: of each layer the maps that"
    caption += " answer most, each from its least value (black) to its largest (white)."
    names = ", ".join(f"{short(m['layer'], 30)} ({m['total']} maps)" for m, _ in shown)
    return Plate("maps", "Feature maps", caption, f"Feature maps of one example: {names}.",
                 draw(WIDE), draw(NARROW), "full")  # fmt: skip


def gallery(inside: dict[str, Any]) -> Plate | None:
    """What fixed kernels answer to one example, by their names."""
    found = next((m for m in inside.get("maps") or [] if m.get("names")), None)
    tiles = None if found is None else decoded(found["tiles"])
    image = decoded(inside["image"]) if inside.get("image") else None
    if found is None or tiles is None or image is None:
        return None
    kernels = decoded(found["kernels"]) if found.get("kernels") else None
    names = ["the image", *(str(n) for n in found["names"][: len(tiles)])]

    def draw(width: int) -> Figure:
        columns, between = (7, 14.0) if width > 500 else (3, 12.0)
        side = (width - (columns - 1) * between) / columns
        tall = side * _tall(tiles)
        step = LINE + tall + 12
        sheet = Sheet(width, -(-len(names) // columns) * step)
        for i, name in enumerate(names):
            x, y = (i % columns) * (side + between), (i // columns) * step
            sheet.text(x, y + LINE / 2, _kernel_name(name), fontsize=7.5, weight="bold" if i == 0 else "normal")
            sheet.tiles(x, y + LINE, image if i == 0 else tiles[i - 1 : i], 1, side)
            if i and kernels is not None and i <= len(kernels):
                inset = 0.3 * side
                sheet.tiles(x + side - inset, y + LINE + tall - inset, _framed(kernels[i - 1 : i]), 1, inset)
        return sheet.figure

    caption = f"One validation example under the {len(tiles)} fixed kernels of {short(found['layer'], 40)}, each answer"
    caption += " from its least value (black) to its largest (white), the kernel in its corner: mid-grey is zero."
    alt = f"Answers of fixed kernels to one example: {', '.join(map(_kernel_name, names[1:]))}."
    return Plate("kernels", "Fixed kernels", caption, alt,
                 draw(WIDE), draw(NARROW), "full")  # fmt: skip


def _kernel_name(name: str) -> str:
    return short(f"G{name[1:]}" if name.startswith("gabor ") else name.replace("_", " "), 24)


def _framed(tiles: NDArray[Any]) -> NDArray[Any]:
    """With a white frame, so that a tile on another is told from it."""
    import numpy as np

    scale = max(1, 40 // max(tiles.shape[1:3]))
    large = np.repeat(np.repeat(tiles, scale, axis=1), scale, axis=2)
    return np.pad(large, ((0, 0), (3, 3), (3, 3), (0, 0)), constant_values=1.0)


def deconvolution(inside: dict[str, Any]) -> Plate | None:
    """What excites features most: projections down to pixels over the parts of the images that did."""
    shown = []
    for row in inside.get("deconvolution") or []:
        projections, patches = decoded(row["projections"]), decoded(row["patches"])
        if projections is not None and patches is not None and len(projections) == len(patches):
            shown.append((row, projections, patches))
    if not shown:
        return None
    images = max(row["images"] for row, _, _ in shown)
    most = max(len(row["channels"]) for row, _, _ in shown)

    def draw(width: int) -> Figure:
        across = min(most, 6 if width > 500 else 2)
        between = 16.0
        side = (width - (across - 1) * between - across * (images - 1) * GAP) / (across * images)
        side = min(side, 56.0)
        cell = images * side + (images - 1) * GAP
        steps = [LINE + 2 * side * _tall(p) + GAP + 6 for _, p, _ in shown]
        lines = [-(-len(row["channels"]) // across) for row, _, _ in shown]
        head = LINE + 2
        sheet = Sheet(width, sum(head + n * s + 10 for n, s in zip(lines, steps, strict=True)))
        y = 0.0
        for (row, projections, patches), step, n in zip(shown, steps, lines, strict=True):
            sheet.text(0, y + LINE / 2, short(row["layer"], 40), weight="bold")
            sees = "×".join(str(v) for v in row["field"])
            sheet.text(width, y + LINE / 2, f"a unit sees {sees} pixels", color=MUTED, ha="right")
            y += head
            for k, channel in enumerate(row["channels"]):
                x, top = (k % across) * (cell + between), y + (k // across) * step
                part = slice(k * row["images"], (k + 1) * row["images"])
                sheet.text(x, top + LINE / 2, f"map {channel}", color=MUTED, fontsize=8)
                sheet.tiles(x, top + LINE, projections[part], images, side)
                sheet.tiles(x, top + LINE + side * _tall(projections) + GAP, patches[part], images, side)
            y += n * step + 10
        return sheet.figure

    caption = (
        f"For some maps of each layer, the {images} validation images that excite them most. Above: what of the image"
    )
    caption += " did, by the deconvolutional net of Zeiler and Fergus (2014), mid-grey being nothing. Below: the image,"
    caption += " cut to what the unit sees."
    names = ", ".join(short(row["layer"], 30) for row, _, _ in shown)
    return Plate("deconvolution", "What features look for", caption, f"Features of {names}, projected back to pixels.",
                 draw(WIDE), draw(NARROW), "full")  # fmt: skip


def warped(inside: dict[str, Any]) -> Plate | None:
    """Images with the part that a spatial transformer samples, above what it makes of them."""
    found = inside.get("warped")
    images, out = (decoded(found[key]) for key in ("images", "warped")) if found else (None, None)
    if found is None or images is None or out is None or len(images) != len(out) or len(found["maps"]) != len(out):
        return None
    n = len(images)

    def draw(width: int) -> Figure:
        columns = min(n, 8 if width > 500 else 4)
        between = 10.0
        side = min((width - (columns - 1) * between) / columns, 110.0)
        tall = side * _tall(images)
        step = 2 * tall + 6 + 14
        sheet = Sheet(width, -(-n // columns) * step - 8)
        for i in range(n):
            x, y = (i % columns) * (side + between), (i // columns) * step
            sheet.tiles(x, y, images[i : i + 1], 1, side)
            sheet.tiles(x, y + tall + 6, out[i : i + 1], 1, side)
            sheet.outline(_frame(found["maps"][i]), (x, y, side, tall))
        return sheet.figure

    caption = (
        f"Above: {n} validation images, with the frame from which {short(found['layer'], 40)} samples, its top side"
    )
    caption += " thick. Below: what it hands on."
    return Plate("warped", "What the spatial transformer makes of its inputs", caption, caption,
                 draw(WIDE), draw(NARROW), "full")  # fmt: skip


def _frame(theta: list[list[float]]) -> list[tuple[float, float]]:
    """The output's corners in the input, [0, 1]; theta maps [−1, 1] to it (equation 1 of Jaderberg et al., 2015)."""
    (a, b, c), (d, e, f) = theta
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    return [((a * x + b * y + c + 1) / 2, (d * x + e * y + f + 1) / 2) for x, y in corners]


def gradients(inside: dict[str, Any]) -> Plate | None:
    """Norms of the loss's gradient by layer, before and after the training, on a logarithmic scale."""
    found = inside.get("gradients")
    if not found or len(found["layers"]) < 2:
        return None
    words = found.get("names") or ["as initialised", "as kept"]
    looks: list[tuple[str, str, dict[str, Any]]] = [
        ("initial", words[0], {"color": MUTED, "ls": (0, (4, 2)), "marker": "o", "mfc": PAPER, "mec": MUTED}),
        ("kept", words[1], {"color": ACCENT, "ls": "-", "marker": "o", "mfc": ACCENT, "mec": PAPER}),
    ]
    rows = []
    for key, name, look in looks:
        values = found.get(key) or []
        points = [(i + 1, v) for i, v in enumerate(values) if v is not None and v > 0]
        if len(points) > 1:
            rows.append((name, look, points, sum(v == 0 for v in values)))
    if not rows:
        return None
    layers = found["layers"]
    figure = canvas(HALF, 290)
    ax = figure.add_subplot()
    ax.set_yscale("log")
    for name, look, points, _ in rows:
        ax.plot(
            [x for x, _ in points], [v for _, v in points], lw=1.5, ms=4.4, mew=0.9, label=name, clip_on=False, **look
        )
    low = min(v for *_, points, _ in rows for _, v in points)
    high = max(v for *_, points, _ in rows for _, v in points)
    _decades(ax, low, high)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_xlim(1 - 0.02 * len(layers), len(layers) + 0.02 * len(layers))
    xticks(ax, 8, whole=True)
    ax.set_xlabel("layer with weights, from the first to the last")
    ax.set_title("norm of the gradient")
    ax.legend(ncols=2, handlelength=2.2, handletextpad=0.5, loc="lower right", bbox_to_anchor=(1, 1.01))
    finish(ax)
    name, _, points, _ = rows[-1]
    ratio = points[0][1] / points[-1][1]
    some = f"one batch of {plural(min(64, inside.get('n') or 64), 'example')}"
    caption = f"Of the loss on {'single batches' if found.get('names') else some}, by the weights of each layer, from"
    caption += f" {short(layers[0], 30)} to {short(layers[-1], 30)}. {_upper(name)}, the first layer's is"
    caption += f" {number(float(f'{ratio:.2g}'))} times the last one's."
    for each, _, _, none in rows:
        caption += f" {_upper(each)}, {plural(none, 'layer')} got no gradient at all." if none else ""
    return Plate("gradients", "Gradients by depth", caption, caption, figure)


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]


def _decades(ax: Axes, low: float, high: float) -> None:
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    every = max(1, -(-(last - first) // 6))
    places = list(range(first, last + 1, every))
    ax.set_ylim(10.0**first, 10.0**last)
    ax.set_yticks([10.0**e for e in places], [_power(e) for e in places])
    ax.minorticks_off()


def _power(exponent: int) -> str:
    return number(10.0**exponent) if -3 <= exponent <= 3 else f"1e{exponent}".replace("-", "−")


def loss(inside: dict[str, Any]) -> Plate | None:
    """Training and validation loss by epoch, and the epoch that was kept: the point of early stopping."""
    found = inside.get("curves")
    if not found:
        return None
    train, val, best = found["train"], found["val"], found["best"]
    figure = canvas(HALF, 290)
    ax = figure.add_subplot()
    late = [v for points in (train, val) for _, v in points[max(0, len(points) // 10) :]]
    low, high = min(late), max(late)
    pad = 0.06 * (high - low) or max(abs(high) * 0.05, 1e-6)
    ax.set_ylim(low - pad, high + pad)
    ax.plot([e for e, _ in train], [v for _, v in train], color=MUTED, lw=1.3, ls=(0, (4, 2)), label="training")
    ax.plot([e for e, _ in val], [v for _, v in val], color=ACCENT, lw=1.8, label="validation")
    last = max(train[-1][0], val[-1][0])
    ax.set_xlim(min(train[0][0], val[0][0]), last)
    at = dict(map(tuple, val)).get(best) if best is not None else None
    if best is not None:
        ax.axvline(best, color=BAD, lw=1.0)
        right = best > 0.6 * last
        note(ax, f"kept: epoch {best}", (best, high + pad), (-4 if right else 4, -9), color=BAD, fontsize=8,
             ha="right" if right else "left")  # fmt: skip
        if at is not None and low - pad <= at <= high + pad:
            ax.plot([best], [at], "o", ms=5, mfc=PAPER, mec=BAD, mew=1.3, zorder=4, clip_on=False)
    from matplotlib.ticker import MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    xticks(ax, 6, whole=True)
    ax.set_xlabel("epoch")
    ax.set_title("loss")
    ax.legend(ncols=2, handlelength=2.2, handletextpad=0.5, loc="lower right", bbox_to_anchor=(1, 1.01))
    finish(ax)
    caption = "Loss of the training that was kept, by epoch."
    if best is not None:
        caption += f" The line marks epoch {best}, whose weights are kept: the best on the objective. "
        after = last - best
        caption += (
            f"The {plural(after, 'epoch')} after it did not improve it." if after else "No later epoch was trained."
        )
    lowest = min(val, key=lambda p: p[1])
    caption += f" The validation loss is least ({number(lowest[1], 3)}) at epoch {lowest[0]:g}."
    return Plate("loss", "Training and validation loss", caption, caption, figure)


def _tall(tiles: NDArray[Any]) -> float:
    """Height of a tile by its width."""
    return float(tiles.shape[1] / tiles.shape[2])
