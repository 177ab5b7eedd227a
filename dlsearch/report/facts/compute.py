"""Facts of the computing: how long each slot was busy, and with trials of which outcome."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dlsearch.report.facts.contents import Bar
from dlsearch.report.facts.statistics import Span, busy, idle
from dlsearch.report.study import STATES, TrialState

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import Compute
    from dlsearch.report.study import Attempt, Trial, View

_INDEX_OF_DEVICE = re.compile(r":\d+$")


def measure_compute(view: View) -> Compute:
    """What the search cost in device time and clock time, and how well the slots were used."""
    now = _last_known_time(view.trials)
    bars = _list_bars(view.trials, now)
    spans = [Span(bar.start, bar.end) for bar in bars]
    pauses = idle(spans)
    slots = _list_slots(view.document.slots, bars)
    by_state = _sum_by_state(view.trials, now)
    total = sum(by_state.values())
    wall = _measure_wall(spans, pauses, view.document.seconds)
    seconds = [trial.seconds for trial in view.scored if trial.seconds is not None]
    return {
        "device_seconds": total,
        "by_state": by_state,
        "wall_seconds": wall,
        "slots": slots,
        "bars": sorted(bars, key=_order_of_bar),
        "busy": busy(spans),
        "gaps": pauses,
        "utilisation": total / (wall * len(slots)) if wall and slots and total else None,
        "trial_mean": statistics.fmean(sorted(seconds)) if seconds else None,
        "trial_median": statistics.median(seconds) if seconds else None,
        "devices": _count_devices(view.trials),
    }


def _last_known_time(trials: Iterable[Trial]) -> float:
    """The latest time that the record holds, in which running attempts are taken to be."""
    known = [0.0]
    for trial in trials:
        for attempt in trial.attempts:
            if attempt.started is not None:
                known.append(attempt.started)
            if attempt.ended is not None:
                known.append(attempt.ended)
    return max(known)


def _list_bars(trials: Iterable[Trial], now: float) -> list[Bar]:
    """One bar for each attempt whose start is known."""
    bars: list[Bar] = []
    for trial in trials:
        for attempt in trial.attempts:
            if attempt.started is None:
                continue
            bar = Bar(
                slot=attempt.slot,
                start=attempt.started,
                end=_end_of_attempt(attempt, attempt.started, now),
                state=_outcome_of_attempt(trial, attempt),
                number=trial.number,
            )
            bars.append(bar)
    return bars


def _end_of_attempt(attempt: Attempt, started: float, now: float) -> float:
    if attempt.ended is not None:
        return max(attempt.ended, started)
    if attempt.seconds is not None:
        return max(started + attempt.seconds, started)
    return max(now, started)


def _outcome_of_attempt(trial: Trial, attempt: Attempt) -> TrialState:
    """The state of the trial for its last attempt; an attempt that had to be repeated failed."""
    if attempt is trial.attempts[-1]:
        return trial.state
    return TrialState.FAILED


def _order_of_bar(bar: Bar) -> tuple[float, int]:
    return bar.start, bar.number


def _sum_by_state(trials: Iterable[Trial], now: float) -> dict[TrialState, float]:
    """Seconds of devices by outcome."""
    sums = dict.fromkeys(STATES, 0.0)
    for trial in trials:
        for attempt in trial.attempts:
            sums[_outcome_of_attempt(trial, attempt)] += _cost_of_attempt(attempt, now)
        if not trial.attempts and trial.seconds is not None:
            sums[trial.state] += trial.seconds
    return sums


def _cost_of_attempt(attempt: Attempt, now: float) -> float:
    """Its seconds; while it runs, those up to the last time that the record holds."""
    if attempt.seconds is not None:
        return attempt.seconds
    if attempt.started is not None:
        return max(0.0, now - attempt.started)
    return 0.0


def _list_slots(declared: Sequence[str], bars: Iterable[Bar]) -> list[str]:
    """The slots of the study in its own order, then others that an attempt ran on."""
    used = {bar.slot for bar in bars}
    others = sorted(used - set(declared))
    return [*dict.fromkeys(declared), *others]


def _measure_wall(
    spans: Sequence[Span],
    pauses: Sequence[Span],
    recorded_seconds: float | None,
) -> float | None:
    """Seconds from the first start to the last end, without the pauses.

    The clock of the study, which counts its confirmation too, serves where no attempt has a start.
    """
    if spans:
        first = min(span.start for span in spans)
        last = max(span.end for span in spans)
        paused = sum(pause.seconds for pause in pauses)
        active = (last - first) - paused
        if active:
            return active
    if isinstance(recorded_seconds, int | float) and recorded_seconds > 0:
        return float(recorded_seconds)
    return None


def _count_devices(trials: Iterable[Trial]) -> dict[str, int]:
    """How many attempts each kind of device on each host had."""
    counts: dict[str, int] = {}
    for trial in trials:
        for attempt in trial.attempts:
            device = _name_device(attempt)
            counts[device] = counts.get(device, 0) + 1
    return counts


def _name_device(attempt: Attempt) -> str:
    """The kind of device and the host: ``cpu on box``.

    The cores of one machine, or its equal GPUs, are one kind: `cpu:0` and `cpu:1` are `cpu`.
    """
    kind = _INDEX_OF_DEVICE.sub("", attempt.device) if attempt.device else None
    known = [part for part in (kind, attempt.host) if part]
    return " on ".join(known) or "not recorded"
