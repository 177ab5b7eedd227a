"""Figures of training: curves with the seed band, training against validation, class balance, first-layer weights."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from dlsearch.report.figures.plate import HALF, Plate, finish, note
from dlsearch.report.figures.scales import Range, focus, label, score_axis, xticks
from dlsearch.report.figures.svg import ACCENT, INK, MUTED, PAPER, canvas
from dlsearch.report.formats import listed, number, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Classes up to which each one is drawn and named.
NAMED = 24


def seed_band(f: dict[str, Any]) -> Plate | None:
    """The winner's and the default's curves over the seeds: mean, extent, best epochs and ends."""
    c, objective = f["confirmation"], f["objectives"][0]
    rows = [r for r in c["finalists"] if r["winner"] or r["default"]] if c else []
    rows = [r for r in rows if len(r["band"]) > 1]
    if not rows:
        return None
    # The first epochs, in which every training rises, would press what tells the seeds apart into one line.
    last = max(b[0] for r in rows for b in r["band"])
    late = [x for r in rows for b in r["band"] for x in (b[2], b[4]) if b[0] >= 0.3 * last]
    shown = focus(late, objective["maximize"])
    figure = canvas(HALF, 290)
    ax = figure.add_subplot()
    score_axis(ax, shown, objective["percent"])
    for r in sorted(rows, key=lambda r: r["winner"]):
        colour = ACCENT if r["winner"] else MUTED
        xs = [b[0] for b in r["band"]]
        ax.fill_between(xs, [b[2] for b in r["band"]], [b[4] for b in r["band"]], color=colour, alpha=0.25, lw=0)
        ax.plot(xs, [b[3] for b in r["band"]], color=colour, lw=1.8 if r["winner"] else 1.1)
        for v in r["replicas"]:
            points = dict(map(tuple, v["intermediate"]))
            if v["value"] is not None and not shown.outside(points.get(v["best_epoch"], shown.low - 1)):
                y = points[v["best_epoch"]]
                ax.plot([v["best_epoch"]], [y], "o", ms=3.6, mfc=PAPER, mec=colour, mew=0.9, zorder=4)
            if v["value"] is not None and points and max(points) < last and not shown.outside(points[max(points)]):
                ax.plot([max(points)], [points[max(points)]], "|", ms=8, mec=colour, mew=1.2, zorder=4)
    ax.set_xlim(min(b[0] for r in rows for b in r["band"]), max(b[0] for r in rows for b in r["band"]))
    _names(ax, rows)
    xticks(ax, 6, whole=True)
    ax.set_xlabel("epoch")
    ax.set_title(label(objective))
    finish(ax)
    names = [r["name"] + (" (the winner, in colour)" if r["winner"] else " (grey)") for r in rows]
    caption = f"{listed(names)}: mean over the seeds and the extent from the least to the most; a ring marks each"
    caption += " replica's best epoch"
    stopped = any(
        v["intermediate"] and v["value"] is not None and v["intermediate"][-1][0] < r["band"][-1][0]
        for r in rows
        for v in r["replicas"]
    )
    caption += ", an upright line where one stopped early." if stopped else "; none stopped before the others."
    caption = caption[0].upper() + caption[1:]
    return Plate("seeds", "The winner over its seeds", caption, f"{objective['name']} by epoch. {caption}", figure)


def _names(ax: Any, rows: list[dict[str, Any]]) -> None:
    low, high = ax.get_ylim()
    gap, placed = 0.06 * (high - low), low - 1
    right = max(r["band"][-1][0] for r in rows)
    for r in sorted(rows, key=lambda r: r["band"][-1][3]):
        placed = min(max(r["band"][-1][3], placed + gap), high)
        text = "default" if r["default"] else str(r["trial_number"]) if r["trial_number"] is not None else "winner"
        colour, weight = (ACCENT, "bold") if r["winner"] else (MUTED, "normal")
        note(ax, text, (right, placed), (5, -3), color=colour, fontsize=8, weight=weight)


def gap(f: dict[str, Any]) -> Plate | None:
    """Training against validation of what was confirmed, or of the leaders of the search."""
    objective = f["objectives"][0]
    metric = objective["name"].rsplit("/", 1)[-1]
    found = [(r, next((g for g in r["gap"] if g["metric"] == metric), None)) for r in f["gaps"]]
    rows = [(r, g) for r, g in found if g is not None]
    if not rows or len(f["objectives"]) > 1:
        return None
    values = [x for _, g in rows for x in (g["train"], g["val"])]
    low, high = min(values), max(values)
    pad = 0.1 * (high - low) or max(abs(high) * 0.01, 1e-3)
    shown = Range(low - pad, high + pad, 0)
    figure = canvas(HALF, 84 + 30 * len(rows))
    ax = figure.add_subplot()
    score_axis(ax, shown, objective["percent"], axis="x")
    ax.grid(axis="x")
    for y, (r, g) in enumerate(rows):
        colour = ACCENT if r["first"] else MUTED
        ax.plot([g["val"], g["train"]], [y, y], color=colour, lw=1.6, alpha=0.6, zorder=2)
        ax.plot([g["val"]], [y], "o", ms=5.2, mfc=colour, mec=PAPER, mew=0.6, zorder=3)
        ax.plot([g["train"]], [y], "o", ms=5.2, mfc=PAPER, mec=colour, mew=1.2, zorder=3)
    ax.set_yticks(range(len(rows)), [short(r["name"], 20) for r, _ in rows])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(short(metric, 30) + (" (%)" if objective["percent"] else ""))
    finish(ax)
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="none", marker="o", ms=5.2, mfc=PAPER, mec=INK, mew=1.2, label="training"),
        Line2D([], [], ls="none", marker="o", ms=5.2, mfc=INK, mec=PAPER, label="validation"),
    ]
    ax.legend(handles=handles, ncols=2, handlelength=1.2, loc="lower right", bbox_to_anchor=(1, 1.01))
    first = rows[0]
    size = f"{abs(first[1]['gap']) * 100:.2f} points" if objective["percent"] else number(abs(first[1]["gap"]))
    caption = (
        f"{short(metric, 30)} on training and on validation examples at the best epoch"
        f"{', mean over the seeds' if f['confirmation'] else ''}: {first[0]['name']} is {size} apart."
    )
    caption = caption[0].upper() + caption[1:]
    return Plate("gap", "Training against validation", caption, caption, figure)


def balance(f: dict[str, Any]) -> Plate | None:
    """The share of each class, a mark each split."""
    data = f["data"]
    splits = [s for s in ("train", "val", "test") if s in (data or {}).get("balance", {})]
    if not splits:
        return None
    shares = {s: data["balance"][s]["shares"] for s in splits}
    n = len(shares[splits[0]])
    if n < 2 or any(len(v) != n for v in shares.values()):
        return None
    names = [str(c) for c in f["study"]["data"].get("classes") or []]
    names = names if len(names) == n else [str(i) for i in range(n)]
    order = list(range(n)) if n <= NAMED else sorted(range(n), key=lambda i: (-shares[splits[0]][i], i))
    figure = canvas(HALF, 270)
    ax = figure.add_subplot()
    looks: dict[str, dict[str, Any]] = {
        "train": {"marker": "s", "mfc": "none", "mec": ACCENT, "ms": 7.5},
        "val": {"marker": "o", "mfc": ACCENT, "mec": PAPER, "ms": 4.6},
        "test": {"marker": "x", "mfc": "none", "mec": INK, "ms": 4.6},
    }
    top = max(v for each in shares.values() for v in each)
    ax.axhline(100 / n, color=MUTED, lw=0.8, ls=(0, (3, 2)))
    for split in splits:
        ys = [100 * shares[split][i] for i in order]
        if n > NAMED:
            ax.plot(range(n), ys, color=looks[split]["mec"] if split == "train" else MUTED, lw=1)
        else:
            ax.plot(range(n), ys, ls="none", label=split, clip_on=False, zorder=3, mew=0.9, **looks[split])
    ax.set_ylim(0, 115 * top)
    ax.set_xlim(-0.6, n - 0.4)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_title("share of the split (%)")
    if n <= NAMED:
        shown = [short(c, 12) for c in names]
        ax.set_xticks(range(n), shown, rotation=90 if max(map(len, shown)) > 3 else 0)
        ax.legend(ncols=len(splits), handlelength=1.2, loc="lower right", bbox_to_anchor=(1, 1.01))
        ax.set_xlabel("class")
    else:
        xticks(ax, 6, whole=True)
        ax.set_xlabel("classes, by their share of the first split")
    finish(ax)
    worst = max((data["balance"][s]["ratio"] or 0.0) for s in splits)
    caption = f"Share of each of the {n} classes; the dashed line is an even share. "
    caption += (
        f"The largest class of a split is at most {worst:.2f} times its smallest."
        if worst
        else ("A class is missing from a split.")
    )
    return Plate("balance", "Class balance", caption, caption, figure)


def weights(f: dict[str, Any]) -> Plate | None:
    """The filters of the first layer as pictures, each scaled by its largest weight, zero in the middle."""
    main = f["test"]["main"]
    first = main and main["first_layer"]
    tiles = None if not first else decoded(first)
    if tiles is None:
        return None
    import numpy as np

    n, height, width = tiles.shape[:3]
    columns = min(n, 16 if n > 12 else 10 if n > 6 else 6)
    columns = min(columns, max(1, round((n * 1.6) ** 0.5)))
    lines = -(-n // columns)
    figure = canvas(HALF, min(420, max(110, 24 + 400 * lines * (height + 1) / (columns * (width + 1)))))
    ax = figure.add_subplot()
    # One picture of all tiles: a border of one transparent pixel keeps them apart on any background.
    scale, between = max(1, 40 // max(height, width)), 3
    high, wide = height * scale + between, width * scale + between
    sheet = np.zeros((lines * high - between, columns * wide - between, 4))
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * high, (i % columns) * wide
        large = np.repeat(np.repeat(tile, scale, axis=0), scale, axis=1)
        sheet[y : y + height * scale, x : x + width * scale, :3] = large
        sheet[y : y + height * scale, x : x + width * scale, 3] = 1.0
    ax.imshow(sheet, interpolation="nearest", aspect="equal")
    ax.set_axis_off()
    kind = "filters" if first["type"].startswith("Conv") else "rows"
    some = f"The {n} {kind}" if n == first["total"] else f"The first {n} of {first['total']:,} {kind}"
    caption = f"{some} of {short(first['layer'] or 'the net', 40)} ({short(first['type'], 20)}), {width} × {height}"
    caption += " pixels, each scaled by its largest weight: mid-grey is zero, light positive, dark negative."
    if tiles.shape[3] == 3 and not np.allclose(tiles[..., 0], tiles[..., 1]):
        caption = caption.replace("mid-grey is zero, light positive, dark negative", "mid-grey is zero")
    return Plate("weights", "Weights of the first layer", caption, caption, figure)


def decoded(first: dict[str, Any]) -> NDArray[Any] | None:
    """The filters as pictures, (filters, H, W, 3) in [0, 1]; None where the record holds no such thing."""
    import numpy as np

    try:
        n, channels, height, width = (int(v) for v in first["shape"])
        raw = base64.b64decode(first["data"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    if channels not in (1, 3) or min(n, height, width) < 1 or len(raw) != n * channels * height * width:
        return None
    tiles = np.frombuffer(raw, dtype=np.uint8).reshape(n, channels, height, width).transpose(0, 2, 3, 1) / 255
    return np.repeat(tiles, 3, axis=3) if channels == 1 else tiles
