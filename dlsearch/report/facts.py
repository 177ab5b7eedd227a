"""Everything the report says, as one JSON document: ``report.json``.

Pages and figures are drawn from this document and from nothing else.
"""

from __future__ import annotations

import math
import statistics as plain
from typing import Any

from dlsearch.report import prose
from dlsearch.report import statistics as stats
from dlsearch.report.command import reproduce
from dlsearch.report.formats import epoch
from dlsearch.report.load import STATES, Objective, Trial, View

#: Rows of the table of top trials.
TOP = 10
#: Trials whose learning curves are drawn and labelled.
LEADERS = 5


def facts(view: View) -> dict[str, Any]:
    """Compute the whole report from a view of the record."""
    objective = view.objectives[0]
    out: dict[str, Any] = {
        "schema": 1,
        "study": view.study,
        "objectives": [{"name": o.name, "maximize": o.maximize, "percent": o.percent} for o in view.objectives],
        "trials": [_row(t) for t in view.trials],
        "winner": None if view.winner is None else view.winner.number,
        "default": None if view.default is None else view.default.number,
        "pareto": list(view.pareto),
        "top": [t.number for t in _ranked(view)[:TOP]],
        "leaders": [t.number for t in _ranked(view)[:LEADERS] if len(t.intermediate) > 1],
        "varied": varied(view),
        "accounting": _accounting(view),
        "compute": _compute(view),
        "course": _course(view, objective),
        "importances": stats.importances(view),
        "edges": _edges(view),
        "resolution": _resolution(view, objective),
        "test": _test(view),
        "reproduce": reproduce(view),
        "checks": list(view.checks),
    }
    out["claim"] = prose.claim(out)
    out["limits"] = prose.limits(out)
    # What a repetition starts from and compares is exact, unlike what is shown.
    return {**_rounded(out), "study": view.study, "replay": list(view.replay), "again": view.again}


def varied(view: View) -> list[str]:
    """Names of the hyperparameters, in the order of the space, then others that trials carry."""
    names = [str(d["name"]) for d in view.study.get("space") or []]
    return names + sorted({n for t in view.trials for n in t.params} - set(names))


def _ranked(view: View) -> list[Trial]:
    if view.multi:
        front = set(view.pareto)
        sign = 1 if view.objectives[0].maximize else -1
        return sorted((t for t in view.scored if t.number in front), key=lambda t: (-sign * t.values[0], t.number))
    sign = 1 if view.objectives[0].maximize else -1
    return sorted(view.scored, key=lambda t: (-sign * t.values[0], t.number))


def _row(t: Trial) -> dict[str, Any]:
    return {
        "number": t.number,
        "state": t.state,
        "reason": t.reason,
        "error": t.error,
        "params": t.params,
        "values": list(t.values),
        "standing": t.standing,
        "scored": t.scored,
        "intermediate": [list(p) for p in t.intermediate],
        "started": t.started,
        "seconds": t.seconds,
        "seed": t.seed,
        "duplicate_of": t.duplicate_of,
        "default": t.default,
        "enqueued": t.enqueued,
        "epochs": t.epochs,
        "best_epoch": t.best_epoch,
        "n_params": t.n_params,
        "summary": t.summary,
        "attempts": [vars(a) for a in t.attempts],
    }


def _accounting(view: View) -> dict[str, Any]:
    counts = {s: sum(t.state == s for t in view.trials) for s in STATES}
    reasons: dict[str, int] = {}
    for t in view.trials:
        if t.state == "failed":
            reason = t.reason or "unnamed"
            reasons[reason] = reasons.get(reason, 0) + 1
    attempts = [a for t in view.trials for a in t.attempts]
    return {
        "asked": view.asked,
        "counts": counts,
        "not_started": view.asked - len(view.trials),
        "failed_by_reason": reasons,
        "failures": [
            {"number": t.number, "reason": t.reason, "error": t.error, "attempts": len(t.attempts), "params": t.params}
            for t in view.trials
            if t.state == "failed"
        ],
        "retried": [
            {
                "number": t.number,
                "state": t.state,
                "attempts": len(t.attempts),
                "ends": [a.reason or a.state for a in t.attempts],
            }
            for t in view.trials
            if len(t.attempts) > 1
        ],
        "duplicates": [{"number": t.number, "of": t.duplicate_of} for t in view.trials if t.duplicate_of is not None],
        "attempts": len(attempts),
    }


def _compute(view: View) -> dict[str, Any]:
    now = max((x for t in view.trials for a in t.attempts for x in (a.started, a.ended) if x is not None), default=0.0)
    bars: list[tuple[str, float, float, str, int]] = []
    by_state = dict.fromkeys(STATES, 0.0)
    for t in view.trials:
        for i, a in enumerate(t.attempts):
            final = i == len(t.attempts) - 1
            state = t.state if final else "failed"
            if a.started is not None:
                end = a.ended if a.ended is not None else a.started + a.seconds if a.seconds is not None else now
                bars.append((a.slot, a.started, max(end, a.started), state, t.number))
            if a.seconds is not None:
                by_state[state] += a.seconds
            elif a.started is not None:
                # Still running: it has cost what passed up to the last time that the record knows.
                by_state[state] += max(0.0, now - a.started)
        if not t.attempts and t.seconds is not None:
            by_state[t.state] += t.seconds
    declared = view.study.get("slots") or []
    named = [" / ".join(str(s[k]) for k in ("worker", "slot") if s.get(k) is not None) or "–" for s in declared]
    slots = list(dict.fromkeys(named + sorted({b[0] for b in bars})))
    spans = [(b[1], b[2]) for b in bars]
    gaps = stats.idle(spans)
    wall = view.study.get("seconds")
    span = (max(e for _, e in spans) - min(s for s, _ in spans) - sum(b - a for a, b in gaps)) if spans else None
    wall = float(wall) if isinstance(wall, int | float) and wall > 0 else span
    total = sum(by_state.values())
    done = sorted(t.seconds for t in view.scored if t.seconds is not None)
    devices: dict[str, int] = {}
    for t in view.trials:
        for a in t.attempts:
            device = " on ".join(part for part in (a.device, a.host) if part) or "not recorded"
            devices[device] = devices.get(device, 0) + 1
    return {
        "device_seconds": total,
        "by_state": by_state,
        "wall_seconds": wall,
        "slots": slots,
        "bars": sorted(bars, key=lambda b: (b[1], b[4])),
        "busy": [list(step) for step in stats.busy(spans)],
        "gaps": [list(g) for g in gaps],
        "utilisation": total / (wall * len(slots)) if wall and slots and total else None,
        "trial_mean": plain.fmean(done) if done else None,
        "trial_median": plain.median(done) if done else None,
        "devices": devices,
    }


def _course(view: View, objective: Objective) -> dict[str, Any]:
    values = [t.values[0] for t in view.scored]
    free = stats.independent(view.study.get("sampler"))
    # A pruned trial spent budget too: it counts with the score it had when it was stopped.
    spent = [t.standing for t in view.trials if t.state in ("complete", "pruned") and t.standing is not None]
    curve = stats.expected_best(spent, objective.maximize) if free and not view.multi and len(spent) > 1 else []
    return {
        "best_so_far": [] if view.multi else [list(s) for s in stats.best_so_far(view.trials, objective.maximize)],
        "distribution": [list(p) for p in stats.empirical(values)] if values else [],
        "median": plain.median(values) if values else None,
        "independent": free,
        "expected_best": [list(row) for row in curve],
    }


def _resolution(view: View, objective: Objective) -> dict[str, Any] | None:
    """What the size of the validation set lets one tell apart, where the objective is an accuracy."""
    n = ((view.study.get("data") or {}).get("sizes") or {}).get("val")
    if (
        view.winner is None
        or len(view.scored) < 2
        or not n
        or not objective.percent
        or not objective.name.endswith("accuracy")
    ):
        return None
    best = view.winner.values[0]
    width = stats.resolution(best, int(n))
    near = [t.number for t in view.scored if t is not view.winner and abs(t.values[0] - best) < width]
    return {"n": int(n), "width": width, "near": near}


def _edges(view: View) -> list[dict[str, Any]]:
    """Numeric hyperparameters whose winning value lies in the outer 5 % of their range, on its scale."""
    out: list[dict[str, Any]] = []
    if len(view.scored) < 5:
        return out
    for d in view.study.get("space") or []:
        value = view.winner.params.get(d["name"]) if view.winner else None
        low, high = d.get("low"), d.get("high")
        if d.get("kind") not in ("float", "int") or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if low is None or high is None:
            continue
        if d["kind"] == "int" and high - low < 10 and value not in (low, high):
            continue
        a, b, x = (math.log(v) if d.get("log") and v > 0 else float(v) for v in (low, high, value))
        if b > a and not 0.05 <= (x - a) / (b - a) <= 0.95:
            out.append({"name": d["name"], "value": value, "side": "lower" if x - a < b - x else "upper"})
    return out


def _test(view: View) -> dict[str, Any]:
    rows = sorted(view.test, key=lambda r: (str(r.get("evaluated_at") or ""), str(r.get("ledger_id"))))
    # The first evaluation after selection is the one that was not informed by another.
    main = next((r for r in rows if r.get("kind") == "confirm"), rows[0] if rows else None)
    out: dict[str, Any] = {
        "rows": [
            {k: r.get(k) for k in ("ledger_id", "kind", "trial_number", "seed", "evaluated_at", "n")} for r in rows
        ],
        "main": None,
    }
    for row, r in zip(out["rows"], rows, strict=True):
        row["metrics"] = r.get("metrics") or {}
    if main is None:
        return out
    n, confusion = int(main.get("n") or 0), main.get("confusion") or []
    accuracy = (main.get("metrics") or {}).get("test/accuracy")
    right = sum(confusion[i][i] for i in range(len(confusion))) if confusion else None
    if right is None and accuracy is not None and n:
        right = round(accuracy * n)
    classes = [str(c) for c in main.get("classes") or (view.study.get("data") or {}).get("classes") or []]
    if len(classes) != len(confusion):
        classes = [str(i) for i in range(len(confusion))]
    trial = next((t for t in view.trials if t.number == main.get("trial_number")), None)
    objective = view.objectives[0]
    out["main"] = {
        "index": rows.index(main),
        "n": n,
        "accuracy": accuracy,
        "right": right,
        "wilson": list(stats.wilson(right, n)) if right is not None and n else None,
        "clopper_pearson": list(stats.clopper_pearson(right, n)) if right is not None and n else None,
        "metrics": main.get("metrics") or {},
        "classes": classes,
        "confusion": confusion,
        "per_class": _per_class(confusion, classes),
        "confusions": _confusions(confusion, classes),
        "errors": list(main.get("errors") or [])[:16],
        "trial_number": main.get("trial_number"),
        "seed": main.get("seed"),
        "trial_seed": trial.seed if trial else None,
        "search_value": trial.values[0] if trial and trial.values else None,
        "retrained_value": main.get("value") if len(view.objectives) == 1 else None,
        "objective": objective.name,
        "delay": _delay(view, main),
    }
    return out


def _delay(view: View, main: dict[str, Any]) -> float | None:
    """Seconds from the end of the last trial to the evaluation; negative where the search went on after it."""
    ends = [a.ended for t in view.trials for a in t.attempts if a.ended is not None]
    try:
        return epoch(main["evaluated_at"]) - max(ends) if ends else None
    except (KeyError, TypeError, ValueError):
        return None


def _per_class(confusion: list[list[int]], classes: list[str]) -> list[dict[str, Any]]:
    rows = []
    for i, name in enumerate(classes):
        support, hit = sum(confusion[i]), confusion[i][i]
        named = sum(line[i] for line in confusion)
        precision, recall = hit / named if named else None, hit / support if support else None
        total = named + support
        rows.append(
            {
                "class": name,
                "support": support,
                "precision": precision,
                "recall": recall,
                "f1": 2 * hit / total if total else None,
            }
        )
    return rows


def _confusions(confusion: list[list[int]], classes: list[str]) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = [
        {"label": classes[i], "prediction": classes[j], "count": n, "share": n / sum(line)}
        for i, line in enumerate(confusion)
        for j, n in enumerate(line)
        if i != j and n
    ]
    return sorted(pairs, key=lambda p: (-p["count"], p["label"], p["prediction"]))[:8]


def _rounded(node: Any) -> Any:
    """Twelve significant digits: more than is known, and the same whatever the order of a machine's sums."""
    if isinstance(node, float):
        return float(f"{node:.12g}") if math.isfinite(node) and abs(node) < 1e8 else node
    if isinstance(node, dict):
        return {k: _rounded(v) for k, v in node.items()}
    return [_rounded(v) for v in node] if isinstance(node, list | tuple) else node
