"""From the study record, as it comes, to a typed view of it: cleaned, derived, and checked against itself."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dlsearch.report.formats import epoch
from dlsearch.report.study import STATES, Attempt, Finalist, Finalization, Objective, Replica, Trial, View

# What the states of a replica are in those of a trial.
_REPLICA_STATES = {"complete": "complete", "failed": "failed", "lost": "failed", "running": "running"} | {
    "waiting": "waiting",
    "pruned": "pruned",
}

#: Metrics that are rates in [0, 1] and read best in per cent.
RATES = ("accuracy", "f1", "precision", "recall", "auroc", "auc", "top1", "top5", "specificity", "iou")

#: What a repetition needs of a trial, and compares; what is null or false is left out.
REPLAY = (
    "number", "state", "reason", "params", "values", "intermediate", "seed", "epochs", "best_epoch", "duplicate_of",
    "default", "enqueued", "resumed_epoch", "state_sha256", "metrics_sha256", "split_sha256", "inputs",
)  # fmt: skip

# Control characters cannot stand in XML, lone surrogates not in UTF-8, and the direction overrides make a line read
# other than it is.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)


class RecordError(ValueError):
    """The study record lacks what a report cannot be written without."""


def clean(node: Any) -> Any:
    r"""Copy JSON with unprintable characters spelt out (``\\u202e``) and numbers that are not finite made null."""
    if isinstance(node, str):
        return _UNSAFE.sub(lambda m: f"\\u{ord(m.group()):04x}", node)
    if isinstance(node, float):
        return node if math.isfinite(node) else None
    if isinstance(node, Mapping):
        return {str(clean(str(k))): clean(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [clean(v) for v in node]
    return node if node is None or isinstance(node, bool | int) else clean(str(node))


def _seconds(iso: Any) -> float | None:
    try:
        return epoch(iso) if iso else None
    except (TypeError, ValueError):
        return None


def _finite(x: Any) -> float | None:
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) else None


def _attempt(raw: Mapping[str, Any], index: int) -> Attempt:
    started, ended, seconds = _seconds(raw.get("started")), _seconds(raw.get("ended")), _finite(raw.get("seconds"))
    if seconds is None and started is not None and ended is not None:
        seconds = max(0.0, ended - started)
    worker, slot = raw.get("worker"), raw.get("slot")
    return Attempt(
        attempt=int(raw.get("attempt") or index + 1),
        state=str(raw.get("state") or "running"),
        reason=raw.get("reason"),
        slot=" / ".join(str(part) for part in (worker, slot) if part is not None) or "–",
        device=None if raw.get("device") is None else str(raw["device"]),
        host=None if raw.get("host") is None else str(raw["host"]),
        started=started,
        ended=ended,
        seconds=seconds,
        run_id=raw.get("run_id"),
    )


def _trial(raw: Mapping[str, Any], n_objectives: int) -> Trial:
    state = str(raw.get("state"))
    if state not in STATES:
        raise RecordError(f"trials[].state: expected one of {', '.join(STATES)}, got {state!r}")
    given = raw.get("values") or ([raw["value"]] if raw.get("value") is not None else [])
    values = [_finite(v) for v in given]
    finite = [v for v in values if v is not None]
    points = [(int(p[0]), _finite(p[1])) for p in raw.get("intermediate") or [] if len(p) == 2]
    attempts = tuple(_attempt(a, i) for i, a in enumerate(raw.get("attempts") or []))
    seconds = _finite(raw.get("seconds"))
    started, ended = _seconds(raw.get("started")), _seconds(raw.get("ended"))
    if seconds is None and started is not None and ended is not None:
        seconds = max(0.0, ended - started)
    return Trial(
        number=int(raw["number"]),
        state=state,
        reason=raw.get("reason"),
        error=raw.get("error"),
        params=dict(raw.get("params") or {}),
        values=tuple(finite) if state == "complete" and len(finite) == n_objectives else (),
        intermediate=tuple((e, v) for e, v in points if v is not None),
        started=started,
        seconds=seconds,
        seed=raw.get("seed"),
        duplicate_of=raw.get("duplicate_of"),
        default=bool(raw.get("default")),
        enqueued=bool(raw.get("enqueued")),
        epochs=raw.get("epochs"),
        best_epoch=raw.get("best_epoch"),
        n_params=raw.get("n_params"),
        summary={k: float(v) for k, v in (raw.get("summary") or {}).items() if _finite(v) is not None},
        attempts=attempts,
        breaches=_breaches(raw),
        state_sha256=raw.get("state_sha256"),
    )


def _breaches(raw: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(b.get("how") or "unnamed"), str(b.get("what") or "")) for b in raw.get("breaches") or [])


def _replica(raw: Mapping[str, Any]) -> Replica:
    """A replica, read as a trial of one objective is."""
    trial = _trial({**raw, "number": raw.get("replica", 0), "state": _REPLICA_STATES.get(str(raw.get("state")))}, 1)
    return Replica(
        replica=trial.number,
        seed=trial.seed,
        state=str(raw.get("state")),
        reason=trial.reason,
        value=trial.values[0] if trial.values else None,
        epochs=trial.epochs,
        best_epoch=trial.best_epoch,
        seconds=trial.seconds if trial.seconds is not None else _summed(trial.attempts),
        intermediate=trial.intermediate,
        summary=trial.summary,
        state_sha256=trial.state_sha256,
        attempts=trial.attempts,
        breaches=trial.breaches,
    )


def _summed(attempts: tuple[Attempt, ...]) -> float | None:
    known = [a.seconds for a in attempts if a.seconds is not None]
    return sum(known) if known else None


def _finalization(raw: Mapping[str, Any] | None) -> Finalization | None:
    if not raw or not raw.get("configurations"):
        return None
    finalists = []
    for c in raw["configurations"]:
        replicas = sorted((_replica(r) for r in c.get("replicas") or []), key=lambda r: r.replica)
        finalists.append(
            Finalist(
                trial_number=c.get("trial_number"),
                default=bool(c.get("default")),
                params=dict(c.get("params") or {}),
                search_value=_finite(c.get("search_value")),
                dropped_after=c.get("dropped_after"),
                winner=bool(c.get("winner")),
                replicas=tuple(replicas),
            )
        )
    # The winner first, the default last, the others by number: whatever the order of the rows was.
    finalists.sort(key=lambda c: (not c.winner, c.default, c.trial_number is None, c.trial_number or 0))
    number = int(raw.get("round") or 1)
    return Finalization(
        round=number,
        rounds=int(raw.get("rounds") or number),
        top=raw.get("top"),
        seeds=tuple(raw.get("seeds") or ()),
        racing=bool(raw.get("racing")),
        refit=bool(raw.get("refit")),
        state=str(raw.get("state") or "partial"),
        configurations=tuple(finalists),
        kept=raw.get("kept"),
        checkpoint=raw.get("checkpoint"),
    )


def pareto_front(points: list[tuple[int, tuple[float, ...]]], maximize: list[bool]) -> list[int]:
    """Numbers of the points that no other point dominates, in order of number."""
    keyed = [(n, tuple(-v if up else v for v, up in zip(vs, maximize, strict=True))) for n, vs in points]

    def dominated(mine: tuple[float, ...]) -> bool:
        return any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for _, other in keyed)

    return sorted(n for n, values in keyed if not dominated(values))


def view(record: Mapping[str, Any]) -> View:
    """Read a study record.

    Args:
        record: The study record, as a plain JSON mapping.

    Raises:
        RecordError: The record is of another schema or lacks its study or its objectives.
    """
    if record.get("schema") != 1:
        raise RecordError(f"schema: expected 1, got {record.get('schema')!r}")
    data = clean(record)
    study = data.get("study")
    if not isinstance(study, dict) or not study.get("name") or not study.get("objectives"):
        raise RecordError("study: expected a mapping with name and objectives")
    names, directions = study["objectives"], study.get("directions") or []
    if len(directions) != len(names):
        raise RecordError(f"study.directions: expected {len(names)}, one an objective, got {len(directions)}")

    from dlsearch.report.checks import checks

    trials = tuple(sorted((_trial(t, len(names)) for t in data.get("trials") or []), key=lambda t: t.number))
    scored = [t for t in trials if t.scored]
    seen = [v for t in scored for v in t.values[:1]] + [v for t in trials for _, v in t.intermediate]
    objectives = tuple(
        Objective(
            name=str(name),
            maximize=str(direction).lower() == "maximize",
            percent=is_rate(str(name), seen if i == 0 else [t.values[i] for t in scored]),
        )
        for i, (name, direction) in enumerate(zip(names, directions, strict=True))
    )
    best: Trial | None = None
    front: list[int] = []
    if len(objectives) > 1:
        front = pareto_front([(t.number, t.values) for t in scored], [o.maximize for o in objectives])
    elif scored:
        sign = 1 if objectives[0].maximize else -1
        best = max(scored, key=lambda t: (sign * t.values[0], -t.number))
    final = _finalization(data.get("finalization"))
    default = next((t for t in trials if t.default), None)
    limit = study.get("n_trials")
    asked = max(int(limit), len(trials)) if limit is not None else len(trials)
    openings = data.get("openings")
    out = View(
        study=study,
        objectives=objectives,
        trials=trials,
        asked=asked,
        best=best,
        winner=_winner(final, trials, best, default),
        pareto=tuple(front),
        default=default,
        finalization=final,
        test=tuple(data.get("test") or []),
        openings=None if openings is None else tuple(openings),
        checks=(),
        replay=tuple(
            {key: t[key] for key in REPLAY if t.get(key) is not None and t[key] is not False}
            for t in sorted(data.get("trials") or [], key=lambda t: int(t["number"]))
        ),
        again={key: data.get(key) for key in ("winner", "finalization")},
    )
    return replace(out, checks=tuple(checks(out, data)))


def _winner(
    final: Finalization | None, trials: tuple[Trial, ...], best: Trial | None, default: Trial | None
) -> Trial | None:
    """The trial of the configuration that the study names."""
    confirmed = None if final is None else final.winner
    if confirmed is None:
        return best
    if confirmed.trial_number is None:
        return default if confirmed.default else None
    return next((t for t in trials if t.number == confirmed.trial_number), None)


def is_rate(name: str, values: Sequence[float] = ()) -> bool:
    """Whether a metric of this name, with these values, is a share in [0, 1] that reads best in per cent."""
    last = name.replace("-", "_").rsplit("/", 1)[-1].lower()
    return any(last == r or last.endswith(f"_{r}") for r in RATES) and all(0 <= v <= 1 for v in values)
