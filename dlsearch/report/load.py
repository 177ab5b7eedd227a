"""From the study record, as it comes, to a typed view of it: cleaned, derived, and checked against itself."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlsearch.report.formats import epoch

#: The states of a trial, in the order in which the report names them.
STATES = ("complete", "pruned", "failed", "running", "waiting")

#: Metrics that are rates in [0, 1] and read best in per cent.
RATES = ("accuracy", "f1", "precision", "recall", "auroc", "auc", "top1", "top5", "specificity", "iou")

#: What a repetition needs of a trial, and compares.
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


@dataclass(frozen=True)
class Attempt:
    """One try of a trial on one slot. Times are seconds since 1970."""

    attempt: int
    state: str
    reason: str | None
    slot: str
    device: str | None
    host: str | None
    started: float | None
    ended: float | None
    seconds: float | None
    run_id: str | None


@dataclass(frozen=True)
class Trial:
    """One trial. ``values`` is empty unless it is complete with a finite value for each objective."""

    number: int
    state: str
    reason: str | None
    error: str | None
    params: dict[str, Any]
    values: tuple[float, ...]
    intermediate: tuple[tuple[int, float], ...]
    started: float | None
    seconds: float | None
    seed: int | None
    duplicate_of: int | None
    default: bool
    enqueued: bool
    epochs: int | None
    best_epoch: int | None
    n_params: int | None
    summary: dict[str, float]
    attempts: tuple[Attempt, ...]

    @property
    def scored(self) -> bool:
        """Whether the trial counts as a result of the search."""
        return self.state == "complete" and bool(self.values)

    @property
    def standing(self) -> float | None:
        """Its (first) objective, or the last score it reported where it was stopped earlier."""
        if self.values:
            return self.values[0]
        return self.intermediate[-1][1] if self.intermediate else None


@dataclass(frozen=True)
class Objective:
    """One objective of the study."""

    name: str
    maximize: bool
    percent: bool


@dataclass(frozen=True)
class View:
    """The typed view of a record that facts and statistics are computed from."""

    study: dict[str, Any]
    objectives: tuple[Objective, ...]
    trials: tuple[Trial, ...]
    asked: int
    winner: Trial | None
    pareto: tuple[int, ...]
    default: Trial | None
    test: tuple[dict[str, Any], ...]
    checks: tuple[dict[str, Any], ...]
    replay: tuple[dict[str, Any], ...] = ()
    again: dict[str, Any] = field(default_factory=dict)

    @property
    def scored(self) -> list[Trial]:
        """The completed trials with a finite value, by number."""
        return [t for t in self.trials if t.scored]

    @property
    def multi(self) -> bool:
        """Whether the study has more than one objective."""
        return len(self.objectives) > 1


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

    trials = tuple(sorted((_trial(t, len(names)) for t in data.get("trials") or []), key=lambda t: t.number))
    scored = [t for t in trials if t.scored]
    seen = [v for t in scored for v in t.values[:1]] + [v for t in trials for _, v in t.intermediate]
    objectives = tuple(
        Objective(
            name=str(name),
            maximize=str(direction).lower() == "maximize",
            percent=_is_rate(str(name), seen if i == 0 else [t.values[i] for t in scored]),
        )
        for i, (name, direction) in enumerate(zip(names, directions, strict=True))
    )
    winner: Trial | None = None
    front: list[int] = []
    if len(objectives) > 1:
        front = pareto_front([(t.number, t.values) for t in scored], [o.maximize for o in objectives])
    elif scored:
        sign = 1 if objectives[0].maximize else -1
        winner = max(scored, key=lambda t: (sign * t.values[0], -t.number))
    limit = study.get("n_trials")
    asked = max(int(limit), len(trials)) if limit is not None else len(trials)
    return View(
        study=study,
        objectives=objectives,
        trials=trials,
        asked=asked,
        winner=winner,
        pareto=tuple(front),
        default=next((t for t in trials if t.default), None),
        test=tuple(data.get("test") or []),
        replay=tuple(
            {key: t.get(key) for key in REPLAY}
            for t in sorted(data.get("trials") or [], key=lambda t: int(t["number"]))
        ),
        again={key: data.get(key) for key in ("winner", "finalization")},
        checks=tuple(_checks(data, trials, winner, front, len(objectives) > 1)),
    )


def _is_rate(name: str, values: list[float]) -> bool:
    last = name.replace("-", "_").rsplit("/", 1)[-1].lower()
    return any(last == r or last.endswith(f"_{r}") for r in RATES) and all(0 <= v <= 1 for v in values)


def _checks(
    data: dict[str, Any], trials: tuple[Trial, ...], winner: Trial | None, front: list[int], multi: bool
) -> list[dict[str, Any]]:
    """Hold the record against itself; each check says what was found where it fails."""
    out: list[dict[str, Any]] = []

    def check(name: str, found: list[str]) -> None:
        out.append({"check": name, "ok": not found, "found": "; ".join(found[:5])})

    numbers = [t.number for t in trials]
    check(
        "Trials are numbered 0, 1, 2, … without gap or repetition.",
        [] if numbers == list(range(len(numbers))) else [f"{len(numbers)} trials, {len(set(numbers))} numbers"],
    )
    check(
        "Every completed trial has a finite value for each objective.",
        [f"trial {t.number} has none" for t in trials if t.state == "complete" and not t.values],
    )
    check(
        "Every failed trial names its reason.",
        [f"trial {t.number} names none" for t in trials if t.state == "failed" and not t.reason],
    )
    check(
        "A study that is over holds no running trial.",
        [f"trial {t.number} is running" for t in trials if t.state == "running"]
        if data["study"].get("state") == "complete"
        else [],
    )
    said = data.get("winner")
    if multi:
        named = sorted(data.get("pareto") or (said or {}).get("pareto") or front)
        check(
            "The recorded Pareto set is the set of completed trials that none dominates.",
            [] if named == front else [f"recorded {named}, found {front}"],
        )
    else:
        same = (said is None) == (winner is None)
        if said and winner:
            # Two trials may tie: what counts is that the recorded one scored as much.
            twin = next((t for t in trials if t.number == said.get("number")), None)
            same = twin is not None and twin.values == winner.values
        check(
            "The recorded winner is the best of the completed trials.",
            []
            if same
            else [f"recorded trial {said['number'] if said else 'none'}, found {winner.number if winner else 'none'}"],
        )
    known = set(numbers)
    check(
        "Every test-set evaluation belongs to a trial of this study.",
        [
            f"ledger row {r.get('ledger_id')} names trial {r.get('trial_number')}"
            for r in data.get("test") or []
            if r.get("trial_number") not in known
        ],
    )
    return out
