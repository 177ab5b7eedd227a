"""The figure of the data's classes: the share of each, a mark each split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import remove_frame, set_round_xticks
from dlsearch.report.figures.canvas import ACCENT, INK, MUTED, PAPER, new_figure
from dlsearch.report.figures.marks import Look, key_above
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.report.facts.contents import DataFacts, Report

#: Classes up to which each one is drawn and named.
MOST_NAMED = 24
#: Letters from which the names along x are turned.
LONG_NAME = 3
SPLITS = ("train", "val", "test")

_SPLIT_LOOKS: Mapping[str, Look] = {
    "train": {
        "marker": "s",
        "mfc": "none",
        "mec": ACCENT,
        "ms": 7.5,
    },
    "val": {
        "marker": "o",
        "mfc": ACCENT,
        "mec": PAPER,
        "ms": 4.6,
    },
    "test": {
        "marker": "x",
        "mfc": "none",
        "mec": INK,
        "ms": 4.6,
    },
}


@dataclass(frozen=True)
class _Balance:
    """What the figure shows: the share of each class in per cent by split, in one order."""

    names: list[str]
    shares: Mapping[str, list[float]]

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.names)

    @property
    def named(self) -> bool:
        """Whether each class is drawn and named."""
        return self.n_classes <= MOST_NAMED


def draw_balance(report: Report) -> Plate | None:
    """The share of each class, a mark each split."""
    data = report["data"]
    if data is None:
        return None
    balance = _collect(report, data)
    if balance is None:
        return None
    caption = _caption(balance, data)
    return Plate(
        key="balance",
        title="Class balance",
        caption=caption,
        alt=caption,
        wide=_drawing(balance),
    )


def _collect(report: Report, data: DataFacts) -> _Balance | None:
    shares = {
        split: data["balance"][split]["shares"] for split in SPLITS if split in data["balance"]
    }
    counts = {len(values) for values in shares.values()}
    if len(counts) != 1 or counts == {0} or counts == {1}:
        return None
    n = counts.pop()
    first_split = next(iter(shares.values()))
    order = list(range(n))
    if n > MOST_NAMED:
        order.sort(key=lambda index: (-first_split[index], index))
    return _Balance(
        names=_class_names(report, n),
        shares={split: [100 * values[i] for i in order] for split, values in shares.items()},
    )


def _class_names(report: Report, n: int) -> list[str]:
    names = [str(name) for name in report["study"]["data"].get("classes") or []]
    return names if len(names) == n else [str(index) for index in range(n)]


def _drawing(balance: _Balance) -> Figure:
    n = balance.n_classes
    top = max(max(shares) for shares in balance.shares.values())
    figure = new_figure(HALF, 270)
    ax = figure.add_subplot()
    ax.axhline(
        100 / n,
        color=MUTED,
        lw=0.8,
        ls=(0, (3, 2)),
    )
    for split, shares in balance.shares.items():
        if balance.named:
            _draw_marks(ax, split, shares)
        else:
            _draw_line(ax, split, shares)
    ax.set_ylim(0, 1.15 * top)
    ax.set_xlim(-0.6, n - 0.4)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_title("share of the split (%)")
    _label_classes(ax, balance)
    remove_frame(ax)
    return figure


def _draw_marks(ax: Axes, split: str, shares: Sequence[float]) -> None:
    ax.plot(
        range(len(shares)),
        shares,
        ls="none",
        label=split,
        clip_on=False,
        zorder=3,
        mew=0.9,
        **_SPLIT_LOOKS[split],
    )


def _draw_line(ax: Axes, split: str, shares: Sequence[float]) -> None:
    ax.plot(
        range(len(shares)),
        shares,
        color=ACCENT if split == "train" else MUTED,
        lw=1,
    )


def _label_classes(ax: Axes, balance: _Balance) -> None:
    if not balance.named:
        set_round_xticks(ax, 6, whole=True)
        ax.set_xlabel("classes, by their share of the first split")
        return
    names = [short(name, 12) for name in balance.names]
    longest = max(len(name) for name in names)
    ax.set_xticks(range(len(names)), names, rotation=90 if longest > LONG_NAME else 0)
    key_above(ax, len(balance.shares), handlelength=1.2)
    ax.set_xlabel("class")


def _caption(balance: _Balance, data: DataFacts) -> str:
    caption = (
        f"Share of each of the {balance.n_classes} classes; the dashed line is an even share. "
    )
    worst = max((data["balance"][split]["ratio"] or 0.0) for split in balance.shares)
    if not worst:
        return caption + "A class is missing from a split."
    return caption + (f"The largest class of a split is at most {worst:.2f} times its smallest.")
