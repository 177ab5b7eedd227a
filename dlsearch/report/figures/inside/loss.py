"""The figure of the losses: training and validation by epoch, and the epoch that was kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.figures.axes import Range, remove_frame, set_round_xticks, set_round_yticks
from dlsearch.report.figures.canvas import ACCENT, BAD, MUTED, PAPER, new_figure
from dlsearch.report.figures.marks import key_above, write_note
from dlsearch.report.figures.plate import HALF, Plate
from dlsearch.report.formats import number, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlsearch.inspection.findings import InsideFindings, LossCurves

#: One epoch in so many is left out of the range: in the first ones the loss is large.
EPOCHS_PER_EARLY_ONE = 10
#: Notes of epochs beyond this share of the axis are written to the left of their line.
RIGHT_PART = 0.6


def draw_loss(inside: InsideFindings) -> Plate | None:
    """Training and validation loss by epoch, and the epoch that was kept."""
    curves = inside.get("curves")
    if not curves:
        return None
    caption = _caption(curves)
    return Plate(
        key="loss",
        title="Training and validation loss",
        caption=caption,
        alt=caption,
        wide=_drawing(curves),
    )


def _last_epoch(curves: LossCurves) -> int:
    last_of_training, _ = curves["train"][-1]
    last_of_validation, _ = curves["val"][-1]
    return int(max(last_of_training, last_of_validation))


def _kept_epoch(curves: LossCurves) -> int | None:
    """The epoch that was kept; None where it is not known.

    A task that counts its progress in steps says which step was kept, beyond the last epoch.
    """
    best = curves["best"]
    if best is None or best > _last_epoch(curves):
        return None
    return best


def _drawing(curves: LossCurves) -> Figure:
    shown = _range_shown(curves)
    train = curves["train"]
    val = curves["val"]
    figure = new_figure(HALF, 290)
    ax = figure.add_subplot()
    ax.set_ylim(shown.low, shown.high)
    ax.plot(
        [epoch for epoch, _ in train],
        [loss for _, loss in train],
        color=MUTED,
        lw=1.3,
        ls=(0, (4, 2)),
        label="training",
    )
    ax.plot(
        [epoch for epoch, _ in val],
        [loss for _, loss in val],
        color=ACCENT,
        lw=1.8,
        label="validation",
    )
    ax.set_xlim(min(train[0][0], val[0][0]), _last_epoch(curves))
    kept = _kept_epoch(curves)
    if kept is not None:
        _mark_kept_epoch(
            ax,
            curves,
            kept,
            shown,
        )
    _set_axes(ax)
    return figure


def _range_shown(curves: LossCurves) -> Range:
    losses = _late_losses(curves["train"]) + _late_losses(curves["val"])
    low = min(losses)
    high = max(losses)
    pad = 0.06 * (high - low) or max(abs(high) * 0.05, 1e-6)
    return Range(low - pad, high + pad)


def _late_losses(points: list[list[float]]) -> list[float]:
    early = len(points) // EPOCHS_PER_EARLY_ONE
    return [loss for _, loss in points[early:]]


def _mark_kept_epoch(
    ax: Axes,
    curves: LossCurves,
    epoch: int,
    shown: Range,
) -> None:
    ax.axvline(epoch, color=BAD, lw=1.0)
    to_the_left = epoch > RIGHT_PART * _last_epoch(curves)
    write_note(
        ax,
        f"kept: epoch {epoch}",
        (epoch, shown.high),
        (-4 if to_the_left else 4, -9),
        color=BAD,
        fontsize=8,
        ha="right" if to_the_left else "left",
    )
    losses = {int(at): value for at, value in curves["val"]}
    loss = losses.get(epoch)
    if loss is not None and not shown.is_outside(loss):
        ax.plot(
            [epoch],
            [loss],
            "o",
            ms=5,
            mfc=PAPER,
            mec=BAD,
            mew=1.3,
            zorder=4,
            clip_on=False,
        )


def _set_axes(ax: Axes) -> None:
    set_round_yticks(ax, 5)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    set_round_xticks(ax, 6, whole=True)
    ax.set_xlabel("epoch")
    ax.set_title("loss")
    key_above(
        ax,
        2,
        handlelength=2.2,
        handletextpad=0.5,
    )
    remove_frame(ax)


def _caption(curves: LossCurves) -> str:
    caption = "Loss of the training that was kept, by epoch."
    best = _kept_epoch(curves)
    if best is not None:
        caption += f" The line marks epoch {best}, whose weights are kept: the best on the"
        caption += f" objective. {_epochs_after(curves, best)}"
    epoch, least = min(curves["val"], key=lambda point: point[1])
    caption += f" The validation loss is least ({number(least, 3)}) at epoch {epoch:g}."
    return caption


def _epochs_after(curves: LossCurves, best: int) -> str:
    after = _last_epoch(curves) - best
    if after:
        return f"The {plural(after, 'epoch')} after it did not improve it."
    return "No later epoch was trained."
