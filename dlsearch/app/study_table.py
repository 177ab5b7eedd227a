"""The table of a study: what runs, counts, the best so far, and how far the confirmation is."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dlsearch.app.phrases import count_ended, format_duration, format_value, name_configuration
from dlsearch.console.terminal import shown
from dlsearch.records.record import ORDER

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SYMBOL = {
    "complete": "●",
    "pruned": "○",
    "failed": "✕",
    "running": "▶",
    "waiting": "·",
}


def study_table(
    status: dict[str, Any],
    total_slots: int | None = None,
    seconds_left: float | None = None,
) -> RenderableType:
    """The table of a study, to be printed by rich.

    Args:
        status: From :func:`~dlsearch.records.record.read_status`.
        total_slots: For the share of slots in use.
        seconds_left: Until the search ends, if known.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(shown(_headline(status, total_slots, seconds_left)), style="bold"),
        _running_table(status),
    ]
    if status["confirmation"]:
        parts.append(_confirmation_table(status["confirmation"]))
    parts.append(Text(shown(_best_line(status))))
    return Group(*parts)


def _headline(
    status: dict[str, Any],
    total_slots: int | None,
    seconds_left: float | None,
) -> str:
    counts = "   ".join(
        f"{SYMBOL[state]} {status['counts'][state]} {state}"
        for state in ORDER
        if status["counts"][state]
    )
    parts = [status["name"], f"{count_ended(status)}/{status['n_trials']} trials", counts]
    if total_slots:
        parts.append(f"{len(status['running'])}/{total_slots} slots")
    confirmation = status["confirmation"]
    if confirmation is not None:
        parts.append(f"confirmation {confirmation['done']}/{confirmation['planned']}")
    elif seconds_left is not None:
        parts.append(f"~{format_duration(seconds_left)} left")
    return "   ".join(parts)


def _objective(status: dict[str, Any]) -> str:
    objective = status["objective"]
    return str(objective if isinstance(objective, str) else objective[0])


def _best_line(status: dict[str, Any]) -> str:
    best = status["best"]
    if best is None:
        return ""
    params = "  ".join(f"{key}={format_value(value)}" for key, value in best["params"].items())
    return f"best  trial {best['number']}  {_objective(status)} {best['value']:.4f}  {params}"


def _running_table(status: dict[str, Any]) -> Table:
    """A row for each attempt that runs."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=box.SIMPLE_HEAD, title=None, pad_edge=False)
    some_silent = any(each.get("silent") for each in status["running"])
    for heading in ("trial", "epoch", _objective(status)):
        rows.add_column(Text(shown(heading)), justify="right")
    rows.add_column(Text("device"), justify="left")
    rows.add_column(Text("s"), justify="right")
    if some_silent:
        rows.add_column(Text(""), justify="left")
    now = time.time()
    for each in status["running"]:
        started = datetime.fromisoformat(str(each["started"])).timestamp()
        value = each.get("value")
        cells: list[RenderableType] = [
            Text(shown(_attempt_name(each))),
            Text(shown(f"{each.get('epoch', 0)}/{each.get('max_epochs', '?')}")),
            "" if value is None else f"{value:.4f}",
            Text(shown(str(each["device"]))),
            f"{now - started:.0f}",
        ]
        if some_silent:
            cells.append(Text(shown(each.get("silent") or "")))
        rows.add_row(*cells)
    return rows


def _attempt_name(running: dict[str, Any]) -> str:
    """``7``, ``confirm 7 seed 2``; the second attempt of trial 7 is ``7.a2``."""
    name = "default" if running["number"] is None else f"{running['number']}"
    if running["kind"] != "trial":
        name = f"{running['kind']} {name}"
    if running.get("replica") is not None:
        name += f" seed {running['replica'] + 1}"
    if running["attempt"] > 1:
        name += f".a{running['attempt']}"
    return name


def _confirmation_table(confirmation: dict[str, Any]) -> Table:
    """A row for each configuration that is trained again."""
    from rich import box
    from rich.table import Table

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows.add_column("confirmation", justify="left")
    rows.add_column("seeds", justify="right")
    rows.add_column("mean", justify="right")
    rows.add_column("", justify="left")
    for each in confirmation["configurations"]:
        name = name_configuration(each["trial_number"])
        if each["default"] and each["trial_number"] is not None:
            name += " (default)"
        seeds = f"{each['done']}/{confirmation['seeds']}"
        mean = "" if each["mean"] is None else f"{each['mean']:.4f}"
        rows.add_row(name, seeds, mean, ", ".join(_notes_on(each)))
    return rows


def _notes_on(configuration: dict[str, Any]) -> list[str]:
    notes = []
    if configuration["winner"]:
        notes.append("won")
    if configuration["dropped_after"]:
        notes.append(f"out after {configuration['dropped_after']}")
    if configuration["failed"]:
        notes.append(f"{configuration['failed']} failed")
    return notes
