"""The attempts of a study as the record has them, and the words that it has for times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.records.models import AttemptRecord
from dlsearch.study.states import AttemptState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.core.types import JsonObject
    from dlsearch.storage.database import Attempt


def iso_time(seconds: float | None) -> str | None:
    """UTC, with milliseconds."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(attempts: Sequence[Attempt]) -> float:
    """How long attempts took in all; one that runs counts nothing yet."""
    total = sum((each.ended or each.started) - each.started for each in attempts)
    return round(total, 3)


def progress_of(attempt: Attempt) -> JsonObject | None:
    """How far an attempt was when its worker was heard last; None before the first word."""
    if not attempt.progress:
        return None
    progress: JsonObject = parse_json(attempt.progress, IN_DATABASE)
    return progress


def result_of_last(attempts: Sequence[Attempt]) -> JsonObject:
    """The result of the last attempt that has one; empty where none has."""
    for attempt in reversed(attempts):
        if attempt.result:
            result: JsonObject = parse_json(attempt.result, IN_DATABASE)
            return result
    return {}


def attempt_record(attempt: Attempt) -> AttemptRecord:
    """An attempt, with what it said last."""
    progress = progress_of(attempt)
    said = (progress or {}) | result_of_last([attempt])
    return AttemptRecord(
        attempt=attempt.attempt,
        state=AttemptState(attempt.state),
        reason=attempt.reason,
        error=attempt.error,
        worker=attempt.worker,
        slot=attempt.slot,
        device=attempt.device,
        host=attempt.host,
        started=iso_time(attempt.started),
        ended=iso_time(attempt.ended),
        seconds=seconds_of([attempt]),
        progress=progress,
        micro_batches=said.get("micro_batches") or 1,
        resumption=said.get("resumption"),
    )
