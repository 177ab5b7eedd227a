"""The record of a study, read from its storage alone.

What reports, ``status`` and ``trials`` are made of.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from dlsearch.confirmation.rounds import Rounds
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.records.confirmation import DIGESTS, finalization, progress, winner
from dlsearch.records.silence import silent_attempts
from dlsearch.sampling.seeds import trial_seed
from dlsearch.storage.trial_index import is_feasible
from dlsearch.study.seen import SEEN
from dlsearch.study.states import (
    AttemptKind,
    AttemptState,
    FailureReason,
    OpeningKind,
    RecordedTrialState,
    StudyState,
)
from dlsearch.study.study import DUPLICATE, REASON, Study

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.confirmation.rounds import Round
    from dlsearch.storage.database import Attempt
    from dlsearch.study.seen import SeenJson, VerdictJson

STATES = {
    TrialState.COMPLETE: RecordedTrialState.COMPLETE,
    TrialState.PRUNED: RecordedTrialState.PRUNED,
    TrialState.FAIL: RecordedTrialState.FAILED,
    TrialState.RUNNING: RecordedTrialState.RUNNING,
    TrialState.WAITING: RecordedTrialState.WAITING,
}
ORDER = tuple(RecordedTrialState)


def iso(seconds: float | None) -> str | None:
    """UTC, with milliseconds."""
    if seconds is None:
        return None
    return (
        datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def state_of(*, running: bool, finished: bool, completed: bool) -> StudyState:
    """The state of a study in a word.

    ``running``, ``partial`` (the same command goes on), ``complete`` or ``failed``.

    Args:
        running: Whether anybody is at work.
        finished: Whether nothing is left to do.
        completed: Whether a trial has completed; a study that is over without one has no result.
    """
    if running:
        return StudyState.RUNNING
    if not finished:
        return StudyState.PARTIAL
    return StudyState.COMPLETE if completed else StudyState.FAILED


def first_failure(study: Study) -> dict[str, Any] | None:
    """The first attempt that failed: ``trial``, ``reason`` and ``error``.

    None where no trial has failed.
    """
    attempts = study.leases.rows(kind=AttemptKind.TRIAL)
    failed = [a for a in attempts if a.state == AttemptState.FAILED] or [
        a for a in attempts if a.state == AttemptState.LOST
    ]
    if not failed:
        return None
    return {"trial": failed[0].number, "reason": failed[0].reason, "error": failed[0].error}


def read_record(study: Study) -> dict[str, Any]:
    """Everything about a study, as plain JSON (see ``docs/record.md``)."""
    row = study.row()
    document = study.document
    rows = study.leases.rows(kind=AttemptKind.TRIAL)
    attempts: dict[int, list[Attempt]] = {}
    for attempt in rows:
        attempts.setdefault(attempt.number, []).append(attempt)
    trials = [_trial(study, t, attempts.get(t.number, [])) for t in study.trials()]
    live = [attempt for attempt in rows if attempt.state == AttemptState.RUNNING]
    silent = silent_attempts(study, live)
    at_work = {a.number for a in live if a.token not in silent}
    running = any(
        t["state"] is RecordedTrialState.RUNNING and t["number"] in at_work for t in trials
    )
    completed = any(t["state"] is RecordedTrialState.COMPLETE for t in trials)
    state = state_of(running=running, finished=row.finished, completed=completed)
    ledger = study.ledger.rows()
    now = Rounds(study).last()
    record = {
        "schema": 1,
        "study": {
            "name": study.name,
            "uuid": document["uuid"],
            "directions": study.directions,
            "objectives": document["objectives"],
            "created": iso(row.created),
            "state": state,
            "seed": study.seed,
            "n_trials": row.n_trials,
            "timeout": document["config"]["study"]["timeout"],
            "seconds": round(row.seconds, 3),
            "slots": _slots_of(rows),
            **{
                key: document[key]
                for key in ("sampler", "pruner", "config", "overrides", "command", "space", "sha")
            },
            **{key: document[key] for key in ("provenance", "data", "model", "options")},
            "sessions": document.get("sessions", []),
        },
        "trials": trials,
        "winner": winner(study, now),
        "finalization": None if now is None else finalization(study, now, _attempt),
        "test": [_test(row) for row in ledger if row["document"]],
        "openings": [_opening_with_round(row) for row in ledger],
    }
    if len(study.directions) > 1:
        record["pareto"] = study.front()
    return record


def _slots_of(attempts: list[Attempt]) -> list[dict[str, Any]]:
    """The slots that attempts ran in."""
    slots = {(each.worker, each.slot, each.device, each.host) for each in attempts}
    return [
        {"worker": worker, "slot": slot, "device": device, "host": host}
        for worker, slot, device, host in sorted(slots)
    ]


def _opening_with_round(row: dict[str, Any]) -> dict[str, Any]:
    document = parse_json(row["document"] or "{}", IN_DATABASE)
    return {
        **_opening(row),
        "round": document.get("round"),
        "scored": bool(row["document"]),
    }


def _trial(study: Study, trial: FrozenTrial, attempts: list[Attempt]) -> dict[str, Any]:
    state = STATES[trial.state]
    result = parse_json(next((a.result for a in reversed(attempts) if a.result), "{}"), IN_DATABASE)
    spans = [(a.ended or a.started) - a.started for a in attempts]
    failed = next((a for a in reversed(attempts) if a.error), None)
    values = list(trial.values) if trial.state is TrialState.COMPLETE and trial.values else None
    infeasible = {} if is_feasible(trial) else {"infeasible": True}
    return {
        "number": trial.number,
        "state": state,
        "reason": (trial.user_attrs.get(REASON) or FailureReason.EXCEPTION)
        if state is RecordedTrialState.FAILED
        else None,
        "error": failed.error
        if failed is not None and state is RecordedTrialState.FAILED
        else None,
        "params": study.params_of(trial)
        or study.space.decode(trial.system_attrs.get("fixed_params", {})),
        "value": values[0] if values else None,
        "values": values,
        "intermediate": [
            [step, value] for step, value in sorted(trial.intermediate_values.items())
        ],
        "started": iso(attempts[0].started) if attempts else None,
        "ended": iso(attempts[-1].ended) if attempts and trial.state.is_finished() else None,
        "seconds": round(sum(spans), 3) if attempts else None,
        "seed": trial_seed(study.seed, trial.number),
        "duplicate_of": trial.user_attrs.get(DUPLICATE),
        "default": bool(trial.user_attrs.get("default")),
        "enqueued": bool(trial.user_attrs.get("enqueued")),
        "epochs": result.get("epochs"),
        "best_epoch": result.get("best_epoch"),
        "n_params": result.get("n_params"),
        "peak_memory_mib": result.get("peak_memory_mib"),
        "summary": result.get("summary", {}),
        **{key: result.get(key) for key in (*DIGESTS, "inputs", "resumed_epoch")},
        **{key: result.get(key) or [] for key in ("nondeterministic", "breaches")},
        "micro_batches": result.get("micro_batches") or 1,
        **infeasible,
        **_seen_of(trial, attempts),
        "attempts": [_attempt(a) for a in attempts],
    }


def _seen_of(trial: FrozenTrial, attempts: list[Attempt]) -> dict[str, SeenJson | VerdictJson]:
    """What the trial's proposal saw, and the pruner's last verdict; what is not known is absent."""
    seen: str | None = trial.user_attrs.get(SEEN)
    verdict: str | None = None
    for attempt in attempts:
        seen = attempt.seen or seen
        verdict = attempt.verdict or verdict
    found = {}
    if seen is not None:
        found["seen"] = parse_json(seen, IN_DATABASE)
    if verdict is not None:
        found["verdict"] = parse_json(verdict, IN_DATABASE)
    return found


def _attempt(attempt: Attempt) -> dict[str, Any]:
    known = parse_json(attempt.progress or "{}", IN_DATABASE) | parse_json(
        attempt.result or "{}", IN_DATABASE
    )
    return {
        "attempt": attempt.attempt,
        "state": attempt.state,
        "reason": attempt.reason,
        "error": attempt.error,
        "worker": attempt.worker,
        "slot": attempt.slot,
        "device": attempt.device,
        "host": attempt.host,
        "started": iso(attempt.started),
        "ended": iso(attempt.ended),
        "seconds": round((attempt.ended or attempt.started) - attempt.started, 3),
        "progress": parse_json(attempt.progress, IN_DATABASE) if attempt.progress else None,
        "micro_batches": known.get("micro_batches") or 1,
        "resumption": known.get("resumption"),
    }


def _opening(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "ledger_id": row["id"],
        "kind": row["kind"],
        "trial_number": row["number"],
        "seed": row["seed"],
        "evaluated_at": iso(row["opened"]),
    }


def _test(row: dict[str, Any]) -> dict[str, Any]:
    return {**_opening(row), **parse_json(row["document"], IN_DATABASE)}


def _best(study: Study, best: FrozenTrial) -> dict[str, Any]:
    return {
        "number": best.number,
        "value": best.values[0],
        "params": study.params_of(best),
        "run_id": None,
    }


def _running(attempt: Attempt, now: Round | None, silent: str | None) -> dict[str, Any]:
    """A live attempt; `silent` says why nobody may be at work on it."""
    is_trial = attempt.kind == AttemptKind.TRIAL
    about = {"number": attempt.number} if is_trial or now is None else now.of(attempt)
    return {
        **about,
        "kind": attempt.kind,
        "attempt": attempt.attempt,
        "worker": attempt.worker,
        "slot": attempt.slot,
        "device": attempt.device,
        "started": iso(attempt.started),
        "silent": silent,
        **(parse_json(attempt.progress, IN_DATABASE) if attempt.progress else {}),
    }


def _scores(ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the test set showed, each time that it was opened for one model."""
    scored = [row for row in ledger if row["document"] and row["kind"] != OpeningKind.ENSEMBLE]
    found = [_test(row) for row in scored]
    return [{key: each[key] for key in ("trial_number", "metrics")} for each in found]


def read_status(study: Study, store: Path | None = None) -> dict[str, Any]:
    """How a study goes: the document of ``status --json``.

    Args:
        study: The open study.
        store: This machine's, where a worker may have kept how attempts ended.
    """
    row = study.row()
    counts = dict.fromkeys(ORDER, 0) | {
        STATES[state]: count for state, count in study.counts().items()
    }
    best = study.best()
    ledger = study.ledger.rows()
    live = study.leases.live()
    now = Rounds(study).last()
    silent = silent_attempts(study, live, store)
    state = state_of(
        running=len(silent) < len(live),
        finished=row.finished,
        completed=counts[RecordedTrialState.COMPLETE] > 0,
    )
    return {
        "name": study.name,
        "state": state,
        "failure": first_failure(study) if state is StudyState.FAILED else None,
        "direction": study.directions[0] if len(study.directions) == 1 else study.directions,
        "objective": study.document["objectives"][0]
        if len(study.directions) == 1
        else study.document["objectives"],
        "n_trials": row.n_trials,
        "counts": counts,
        "best": None if best is None else _best(study, best),
        "started": iso(row.created),
        "seconds": round(row.seconds, 3),
        "running": [_running(each, now, silent.get(each.token)) for each in live],
        "confirmation": progress(now) if now is not None else None,
        "winner": winner(study, now),
        "openings": len(ledger),
        "test": _scores(ledger),
    }
