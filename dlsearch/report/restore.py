"""The record that a ``report.json`` was made of, so that its pages can be written again.

A report holds all observations of its record: trials and rounds exactly, for a repetition compares
them, and what else was measured with twelve digits. Whatever is computed from them is left out
here, and computed again by the report.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dlsearch.report.load import RECORD_SCHEMA

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject

#: Digits of the numbers in a report.
_DIGITS = 12
_SINGLE = struct.Struct("<f")
#: What only the opening that a report quotes holds of the test set.
_QUOTED = ("confusion", "classes", "errors", "first_layer", "inside")


def restore_record(report: Mapping[str, Any]) -> JsonObject:
    """The record of a report's study.

    Args:
        report: The whole ``report.json``.
    """
    replays = {row["number"]: row for row in report["replay"]}
    again = report["again"]
    trials = [_restore_trial(trial, replays[trial["number"]]) for trial in report["trials"]]
    for row in report["accounting"].get("notes", []):
        trials[row["number"]].setdefault("notes", []).append(row["note"])
    record: JsonObject = {
        "schema": RECORD_SCHEMA,
        "study": report["study"],
        "trials": trials,
        "winner": again["winner"],
        "finalization": again["finalization"],
        "test": _restore_test(report["test"]),
    }
    openings = report["test"]["openings"]
    if openings is not None:
        record["openings"] = openings
    in_store = report["test"].get("in_store")
    if in_store is not None:
        record["test_set"] = {"digest": in_store["digest"], "openings": in_store["openings"]}
    if report["pareto"]:
        record["pareto"] = report["pareto"]
    return record


# -- trials ---------------------------------------------------------------------------------------


def _restore_trial(trial: Mapping[str, Any], replay: Mapping[str, Any]) -> JsonObject:
    breaches = [{"how": how, "what": what} for how, what in trial["breaches"]]
    attempts = [_restore_attempt(attempt) for attempt in trial["attempts"]]
    return {
        **trial,
        "started": _write_time(trial["started"]),
        "summary": _restore_metrics(trial["summary"]),
        "attempts": attempts,
        "breaches": breaches,
        "values": None,
        **replay,
    }


def _restore_attempt(attempt: Mapping[str, Any]) -> JsonObject:
    worker, _, slot = attempt["slot"].rpartition(" / ")
    return {
        **attempt,
        "worker": worker or None,
        "slot": slot,
        "started": _write_time(attempt["started"]),
        "ended": _write_time(attempt["ended"]),
    }


def _write_time(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 with milliseconds."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- the test set ---------------------------------------------------------------------------------


def _restore_test(test: Mapping[str, Any]) -> list[JsonObject]:
    """The scored openings; the quoted one with all that the report holds of it."""
    ensembles = {ensemble["ledger_id"]: ensemble for ensemble in test["ensembles"]}
    main = test["main"]
    rows: list[JsonObject] = []
    for place, row in enumerate(test["rows"]):
        restored = {**row, "scored": True, "metrics": _restore_metrics(row["metrics"])}
        if row["ledger_id"] in ensembles:
            restored["ensemble"] = ensembles[row["ledger_id"]]
        if main is not None and main["index"] == place:
            restored |= _restore_quoted(main)
        rows.append(restored)
    return rows


def _restore_quoted(main: Mapping[str, Any]) -> JsonObject:
    found: JsonObject = {key: main[key] for key in _QUOTED}
    found["value"] = main["retrained_value"]
    found["replicas"] = _restore_replicas(main["replicas"])
    if main["refit"] is not None:
        found["refit"] = {"metrics": _restore_metrics(main["refit"])}
    return found


def _restore_replicas(replicas: Sequence[Mapping[str, Any]]) -> list[JsonObject]:
    return [{**replica, "metrics": _restore_metrics(replica["metrics"])} for replica in replicas]


def _restore_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: _restore_single(value) for name, value in metrics.items()}


def _restore_single(value: float) -> float:
    """The float32 that was written with twelve digits; the value itself where it was none."""
    try:
        (single,) = _SINGLE.unpack(_SINGLE.pack(value))
    except OverflowError:
        return value
    is_written_so = float(f"{single:.{_DIGITS}g}") == value
    return float(single) if is_written_so else value
