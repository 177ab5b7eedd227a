"""The table of a study: what runs, counts, the best so far, and how far the confirmation is."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from dlsearch.app.phrases import (
    format_duration,
    format_params,
    name_configuration,
)
from dlsearch.console.terminal import shown
from dlsearch.study.states import AttemptKind, RecordedTrialState

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from dlsearch.records.status import (
        ConfigurationProgress,
        ConfirmationProgress,
        RunningRecord,
        Status,
    )

SYMBOL = {
    RecordedTrialState.COMPLETE: "●",
    RecordedTrialState.PRUNED: "○",
    RecordedTrialState.FAILED: "✕",
    RecordedTrialState.RUNNING: "▶",
    RecordedTrialState.WAITING: "·",
}


def study_table(
    status: Status,
    total_slots: int | None = None,
    seconds_left: float | None = None,
) -> RenderableType:
    """The table of a study, to be printed by rich.

    Args:
        status: From :func:`~dlsearch.records.status.read_status`.
        total_slots: For the share of slots in use.
        seconds_left: Until the search ends, if known.
    """
    from rich.console import Group
    from rich.text import Text

    headline = _headline(status, total_slots, seconds_left)
    parts: list[RenderableType] = [Text(shown(headline), style="bold")]
    if status.running or total_slots:  # a live table keeps its place between two trials
        parts.append(_running_table(status))
    if status.confirmation is not None:
        parts.append(_confirmation_table(status.confirmation))
    parts.append(Text(shown(_best_line(status))))
    return Group(*parts)


def _headline(
    status: Status,
    total_slots: int | None,
    seconds_left: float | None,
) -> str:
    parts = [
        status.name,
        f"{status.count_ended()}/{status.n_trials} trials",
        _describe_counts(status),
    ]
    if total_slots:
        parts.append(f"{len(status.running)}/{total_slots} slots")
    confirmation = status.confirmation
    if confirmation is not None:
        parts.append(f"confirmation {confirmation.done}/{confirmation.planned}")
    elif seconds_left is not None:
        parts.append(f"~{format_duration(seconds_left)} left")
    return "   ".join(parts)


def _describe_counts(status: Status) -> str:
    """How many trials are in each state, of the states that any is in."""
    words = []
    for state, symbol in SYMBOL.items():
        count = status.counts[state]
        if count:
            words.append(f"{symbol} {count} {state}")
    return "   ".join(words)


def _best_line(status: Status) -> str:
    best = status.best
    if best is None:
        return ""
    params = format_params(best.params, "  ")
    return f"best  trial {best.number}  {status.first_objective} {best.value:.4f}  {params}"


def _running_table(status: Status) -> Table:
    """A row for each attempt that runs."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=box.SIMPLE_HEAD, title=None, pad_edge=False)
    some_silent = any(each.silent for each in status.running)
    for heading in ("trial", status.progress_unit, status.first_objective):
        rows.add_column(Text(shown(heading)), justify="right")
    rows.add_column(Text("device"), justify="left")
    rows.add_column(Text("s"), justify="right")
    if some_silent:
        rows.add_column(Text(""), justify="left")
    now = time.time()
    for each in status.running:
        cells = _running_cells(each, now)
        if some_silent:
            cells.append(each.silent or "")
        rows.add_row(*(Text(shown(cell)) for cell in cells))
    return rows


def _running_cells(running: RunningRecord, now: float) -> list[str]:
    """What stands in the row of an attempt that runs."""
    started = datetime.fromisoformat(str(running.started)).timestamp()
    length = "?" if running.length is None else running.length
    return [
        _attempt_name(running),
        f"{running.position}/{length}",
        "" if running.value is None else f"{running.value:.4f}",
        running.device,
        f"{now - started:.0f}",
    ]


def _attempt_name(running: RunningRecord) -> str:
    """``7``, ``confirm 7 seed 2``; the second attempt of trial 7 is ``7.a2``."""
    name = "default" if running.number is None else f"{running.number}"
    if running.kind is not AttemptKind.TRIAL:
        name = f"{running.kind} {name}"
    if running.part is not None and running.part.replica is not None:
        name += f" seed {running.part.replica + 1}"
    if running.attempt > 1:
        name += f".a{running.attempt}"
    return name


def _confirmation_table(confirmation: ConfirmationProgress) -> Table:
    """A row for each configuration that is trained again."""
    from rich import box
    from rich.table import Table

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows.add_column("confirmation", justify="left")
    rows.add_column("seeds", justify="right")
    rows.add_column("mean", justify="right")
    rows.add_column("", justify="left")
    for each in confirmation.configurations:
        name = name_configuration(each.trial_number)
        if each.default and each.trial_number is not None:
            name += " (default)"
        rows.add_row(
            name,
            f"{each.done}/{confirmation.seeds}",
            "" if each.mean is None else f"{each.mean:.4f}",
            ", ".join(_notes_on(each)),
        )
    return rows


def _notes_on(configuration: ConfigurationProgress) -> list[str]:
    notes = []
    if configuration.winner:
        notes.append("won")
    if configuration.dropped_after:
        notes.append(f"out after {configuration.dropped_after}")
    if configuration.failed:
        notes.append(f"{configuration.failed} failed")
    return notes
