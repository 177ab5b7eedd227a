"""Everything the report says, as one JSON document: ``report.json``.

Pages and figures are drawn from this document and from nothing else.
"""

from __future__ import annotations

import math
import re
import statistics as plain
from collections.abc import Mapping
from typing import Any

from dlsearch.report import confirmation, testset
from dlsearch.report import statistics as stats
from dlsearch.report.checklist import checklist
from dlsearch.report.claim import claim
from dlsearch.report.command import reproduce
from dlsearch.report.intervals import resolution
from dlsearch.report.limits import limits
from dlsearch.report.study import STATES, Objective, Trial, View

#: The version of report.json; ``report.schema.json`` beside this file says what is in it.
SCHEMA = 1

#: Rows of the table of top trials.
TOP = 10
#: Trials whose learning curves are drawn and labelled.
LEADERS = 5


def facts(view: View) -> dict[str, Any]:
    """Compute the whole report from a view of the record."""
    objective = view.objectives[0]
    confirmed = confirmation.confirmation(view)
    out: dict[str, Any] = {
        "schema": SCHEMA,
        "study": view.study,
        "objectives": [{"name": o.name, "maximize": o.maximize, "percent": o.percent} for o in view.objectives],
        "trials": [_row(t) for t in view.trials],
        "best": None if view.best is None else view.best.number,
        "winner": None if view.winner is None else view.winner.number,
        "default": None if view.default is None else view.default.number,
        "won": _won(view, confirmed),
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
        "test": testset.facts(view),
        "confirmation": confirmed,
        "optimism": confirmation.optimism(view, confirmed),
        "breaches": testset.breaches(view),
        "data": _data(view),
        "reproduce": reproduce(view),
        "checks": list(view.checks),
    }
    out["gaps"] = _gaps(out)
    out["kept_sha256"] = _kept_sha256(out)
    out["claim"] = claim(out)
    out["limits"] = limits(out)
    out["checklist"] = checklist(out)
    # What a repetition starts from and compares is exact, unlike what is shown.
    return {**_rounded(out), "study": _without_places(view.study), "replay": list(view.replay), "again": view.again}


def _won(view: View, confirmed: dict[str, Any] | None) -> dict[str, Any] | None:
    """The configuration that the study names, whether or not a trial ran it: the confirmed one, else the best."""
    if confirmed is not None and confirmed["winner"] is not None:
        row = confirmed["finalists"][confirmed["winner"]]
        keys = ("name", "trial_number", "default", "params", "search_value", "n", "sd", "interval", "student")
        return {key: row[key] for key in keys} | {"value": row["mean"], "confirmed": True, "label": _label(row)}
    best = view.best
    if best is None:
        return None
    row = {"name": f"trial {best.number}", "trial_number": best.number, "default": best.default}
    row |= {"params": best.params, "search_value": best.values[0], "n": 1, "sd": None, "interval": None}
    return row | {"student": None, "value": best.values[0], "confirmed": False, "label": f"Trial {best.number}"}


def _label(row: dict[str, Any]) -> str:
    return f"Trial {row['trial_number']}" if row["trial_number"] is not None else "Default"


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
        "breaches": [list(b) for b in t.breaches],
        "state_sha256": t.state_sha256,
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
    # From the first start to the last end, without pauses: the study's own clock has its confirmation too.
    wall = span if span else float(wall) if isinstance(wall, int | float) and wall > 0 else None
    total = sum(by_state.values())
    done = sorted(t.seconds for t in view.scored if t.seconds is not None)
    devices: dict[str, int] = {}
    for t in view.trials:
        for a in t.attempts:
            # The cores of one machine, or its equal GPUs, are one kind: `cpu:0` and `cpu:1` are `cpu`.
            kind = re.sub(r":\d+$", "", a.device) if a.device else None
            device = " on ".join(part for part in (kind, a.host) if part) or "not recorded"
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
        "spread": [] if view.multi else _spread(values, objective.maximize),
        "quarters": [] if view.multi else _quarters(view, objective.maximize),
        "independent": free,
        "expected_best": [list(row) for row in curve],
    }


def _spread(values: list[float], maximize: bool) -> list[list[Any]]:
    """Best, quartiles and worst of the completed trials."""
    if len(values) < 2:
        return []
    ordered = sorted(values, reverse=maximize)
    better, median, worse = plain.quantiles(ordered, n=4, method="inclusive")
    if maximize:
        better, worse = worse, better
    named = ("best", "better quartile", "median", "worse quartile", "worst")
    return [[n, v] for n, v in zip(named, (ordered[0], better, median, worse, ordered[-1]), strict=True)]


def _quarters(view: View, maximize: bool) -> list[list[Any]]:
    """The best score after each quarter of the trials, those that were pruned or failed counted."""
    steps = stats.best_so_far(view.trials, maximize)
    rows = []
    for quarter in (1, 2, 3, 4):
        n = -(-len(view.trials) * quarter // 4)
        best = [value for number, value in steps if number < n]
        if best and len(view.trials) >= 8:
            rows.append([n, best[-1]])
    return rows


def _resolution(view: View, objective: Objective) -> dict[str, Any] | None:
    """What the size of the validation set lets one tell apart, where the objective is an accuracy."""
    n = ((view.study.get("data") or {}).get("sizes") or {}).get("val")
    if (
        view.best is None
        or len(view.scored) < 2
        or not n
        or not objective.percent
        or not objective.name.endswith("accuracy")
    ):
        return None
    best = view.best.values[0]
    width = resolution(best, int(n))
    near = [t.number for t in view.scored if t is not view.best and abs(t.values[0] - best) < width]
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


def _data(view: View) -> dict[str, Any] | None:
    """How far from even the classes are, a split each, and how many examples stand in more than one split."""
    data = view.study.get("data") or {}
    if not data:
        return None
    balance = {}
    for split, counts in (data.get("class_counts") or {}).items():
        total = sum(counts)
        if total:
            balance[split] = {
                "shares": [n / total for n in counts],
                "smallest": min(counts),
                "largest": max(counts),
                "ratio": max(counts) / min(counts) if min(counts) else None,
            }
    overlap = data.get("overlap")
    return {
        "balance": balance,
        "overlap_index": None if not overlap else overlap.get("index"),
        "overlap_content": None if not overlap else overlap.get("content"),
    }


def _kept_sha256(f: dict[str, Any]) -> str | None:
    """The digest of the weights of the model that is kept."""
    c = f["confirmation"]
    if c is None or c["winner"] is None or not c["kept"]:
        return None
    replicas = c["finalists"][c["winner"]]["replicas"]
    return next((r["state_sha256"] for r in replicas if r["replica"] == c["kept"].get("replica")), None)


def _gaps(f: dict[str, Any]) -> list[dict[str, Any]]:
    """Training against validation: of the finalists over their seeds, else of the leaders of the search."""
    if f["confirmation"] is not None:
        return [
            {"name": "default" if row["default"] else row["name"], "first": row["winner"], "gap": row["gap"]}
            for row in f["confirmation"]["finalists"]
        ]
    rows = {t["number"]: t for t in f["trials"]}
    return [
        {"name": f"trial {n}", "first": i == 0, "gap": confirmation.gap([rows[n]["summary"]])}
        for i, n in enumerate(f["leaders"])
    ]


def _without_places(study: Mapping[str, Any]) -> dict[str, Any]:
    """Where the store and the data lay is of no use elsewhere, and nobody's business: whoever runs it has her own."""
    config = {key: value for key, value in (study.get("config") or {}).items() if key != "paths"}
    return {**study, "config": config} if "config" in study else dict(study)


def _rounded(node: Any) -> Any:
    """Twelve significant digits: more than is known, and the same whatever the order of a machine's sums."""
    if isinstance(node, float):
        return float(f"{node:.12g}") if math.isfinite(node) and abs(node) < 1e8 else node
    if isinstance(node, dict):
        return {k: _rounded(v) for k, v in node.items()}
    return [_rounded(v) for v in node] if isinstance(node, list | tuple) else node
