"""The record of a study, read from its storage alone: what reports, ``status`` and ``trials`` are made of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from dlsearch.search.finalization import DIGESTS, finalization, progress, winner
from dlsearch.search.rounds import Rounds
from dlsearch.search.seeds import trial_seed
from dlsearch.search.study import DUPLICATE, REASON, Study

if TYPE_CHECKING:
    from dlsearch.search.database import Attempt

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
ORDER = ("complete", "pruned", "failed", "running", "waiting")


def iso(seconds: float | None) -> str | None:
    """UTC, with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_record(study: Study) -> dict[str, Any]:
    """Everything about a study, as plain JSON (see ``docs/record.md``)."""
    row, document = study.row(), study.document
    attempts: dict[int, list[Attempt]] = {}
    for attempt in study.leases.rows(kind="trial"):
        attempts.setdefault(attempt.number, []).append(attempt)
    trials = [_trial(study, t, attempts.get(t.number, [])) for t in study.trials()]
    slots = {(a.worker, a.slot, a.device, a.host) for each in attempts.values() for a in each}
    state = "running" if any(t["state"] == "running" for t in trials) else "complete" if row.finished else "partial"
    ledger, now = study.ledger.rows(), Rounds(study).last()
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
            "slots": [{"worker": w, "slot": s, "device": d, "host": h} for w, s, d, h in sorted(slots)],
            **{key: document[key] for key in ("sampler", "pruner", "config", "overrides", "command", "space", "sha")},
            **{key: document[key] for key in ("provenance", "data", "model", "options")},
            "sessions": document.get("sessions", []),
        },
        "trials": trials,
        "winner": winner(study, now),
        "finalization": None if now is None else finalization(study, now, _attempt),
        "test": [_test(row) for row in ledger if row["document"]],
        "openings": [
            {
                **_opening(row),
                "round": json.loads(row["document"] or "{}").get("round"),
                "scored": bool(row["document"]),
            }
            for row in ledger
        ],
    }
    if len(study.directions) > 1:
        record["pareto"] = sorted(t.number for t in study.optuna.best_trials)
    return record


def _trial(study: Study, trial: FrozenTrial, attempts: list[Attempt]) -> dict[str, Any]:
    state = STATES[trial.state]
    result = json.loads(next((a.result for a in reversed(attempts) if a.result), "{}"))
    spans = [(a.ended or a.started) - a.started for a in attempts]
    failed = next((a for a in reversed(attempts) if a.error), None)
    values = list(trial.values) if trial.state is TrialState.COMPLETE and trial.values else None
    return {
        "number": trial.number,
        "state": state,
        "reason": (trial.user_attrs.get(REASON) or "exception") if state == "failed" else None,
        "error": failed.error if failed is not None and state == "failed" else None,
        "params": study.params_of(trial) or study.space.decode(trial.system_attrs.get("fixed_params", {})),
        "value": values[0] if values else None,
        "values": values,
        "intermediate": [[step, value] for step, value in sorted(trial.intermediate_values.items())],
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
        "attempts": [_attempt(a) for a in attempts],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    known = json.loads(attempt.progress or "{}") | json.loads(attempt.result or "{}")
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
        "progress": json.loads(attempt.progress) if attempt.progress else None,
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
    return {**_opening(row), **json.loads(row["document"])}


def read_status(study: Study) -> dict[str, Any]:
    """How a study goes: the document of ``status --json``."""
    row = study.row()
    counts = dict.fromkeys(ORDER, 0) | {STATES[state]: count for state, count in study.counts().items()}
    best, ledger = study.best(), study.ledger.rows()
    live, now = study.leases.live(), Rounds(study).last()
    return {
        "name": study.name,
        "state": "running" if live else "complete" if row.finished else "partial",
        "direction": study.directions[0] if len(study.directions) == 1 else study.directions,
        "objective": study.document["objectives"][0] if len(study.directions) == 1 else study.document["objectives"],
        "n_trials": row.n_trials,
        "counts": counts,
        "best": None
        if best is None
        else {"number": best.number, "value": best.values[0], "params": study.params_of(best), "run_id": None},
        "started": iso(row.created),
        "seconds": round(row.seconds, 3),
        "running": [
            {
                **({"number": a.number} if a.kind == "trial" or now is None else now.of(a)),
                "kind": a.kind,
                "attempt": a.attempt,
                "worker": a.worker,
                "slot": a.slot,
                "device": a.device,
                "started": iso(a.started),
                **(json.loads(a.progress) if a.progress else {}),
            }
            for a in live
        ],
        "confirmation": progress(now) if now is not None else None,
        "winner": winner(study, now),
        "openings": len(ledger),
        "test": [
            {key: test[key] for key in ("trial_number", "metrics")}
            for test in (_test(each) for each in ledger if each["document"] and each["kind"] != "ensemble")
        ],
    }
