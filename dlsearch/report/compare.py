"""Two or more studies of one objective, side by side: a pure function of their records.

What is said of a difference depends on what the studies share: trainings with the same seeds on the same data are
compared pair by pair, others as two samples, and scores on different data are not compared at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError
from dlsearch.report import compare_statistics as tests
from dlsearch.report import statistics as stats
from dlsearch.report.compare_words import verdict
from dlsearch.report.intervals import mean_interval, wilson
from dlsearch.report.load import view
from dlsearch.report.render import bounds, flat

if TYPE_CHECKING:
    from dlsearch.report.study import View

#: Below this a difference is called one.
LEVEL = 0.05
SPLITS = ("train", "val", "test")
#: Of the configuration, what says where a study ran and not what.
_PLACES = ("paths.", "worker.", "tracking.", "hydra.", "study.name", "study.storage", "study.workers")


def compare(records: Sequence[Mapping[str, Any]], *, different_data: bool = False) -> dict[str, Any]:
    """Everything that a comparison says, as JSON.

    Args:
        records: Study records, two or more.
        different_data: Go on although the studies were scored on different data; nothing is tested then.

    Raises:
        ConfigError: They have different objectives, or were scored on different data.
    """
    views = [view(record) for record in records]
    objective = _objective(views)
    data = _data(views)
    if data["verdict"] == "different" and not different_data:
        raise ConfigError("NAME", f"the studies were scored on different data: {data['notes'][0]}",
                          "--different-data shows them all the same, without tests")  # fmt: skip
    studies = [_study(record, v, data) for record, v in zip(records, views, strict=True)]
    pairs = [_pair(a, b, data, bool(objective["maximize"])) for a, b in itertools.combinations(studies, 2)]
    _correct(pairs)
    facts: dict[str, Any] = {
        "schema": 2,
        "level": LEVEL,
        "objective": objective,
        "data": data,
        "studies": studies,
        "pairs": pairs,
        "curves": _curves(studies, bool(objective["maximize"])),
        "params": _table([s["winner"] for s in studies]),
        "space": _table([_space(v) for v in views]),
        "config": _differences(views),
    }
    facts["verdict"] = verdict(facts)
    return _rounded(facts)


def _objective(views: Sequence[View]) -> dict[str, Any]:
    for v in views:
        if v.multi:
            raise ConfigError("NAME", f"{v.study['name']!r} has several objectives: only single ones are compared")
    first, name = views[0].objectives[0], views[0].study["name"]
    for v in views[1:]:
        other = v.objectives[0]
        if (other.name, other.maximize) != (first.name, first.maximize):
            words = [f"{'maximises' if o.maximize else 'minimises'} {o.name}" for o in (first, other)]
            raise ConfigError("NAME", f"{name!r} {words[0]}, {v.study['name']!r} {words[1]}: not comparable")
    percent = all(v.objectives[0].percent for v in views)
    return {"name": first.name, "maximize": first.maximize, "percent": percent}


# -- data --------------------------------------------------------------------------------------------------------
def _data(views: Sequence[View]) -> dict[str, Any]:
    """Which splits the studies share: ``same``, ``training`` differs, ``split`` differs, ``different``, ``unknown``."""
    known = [v.study.get("data") or {} for v in views]
    names = [v.study["name"] for v in views]
    digests = [d.get("digests") or {} for d in known]
    rows = [["name", [d.get("name") for d in known]]]
    rows += [[f"{s} examples", [(d.get("sizes") or {}).get(s) for d in known]] for s in SPLITS]
    rows += [[f"{s} digest", [(d.get(s) or "")[:12] or None for d in digests]] for s in SPLITS]
    same = {s: all(d.get(s) and d[s] == digests[0].get(s) for d in digests) for s in SPLITS}
    notes: list[str] = []
    if not all(digests):
        absent = [n for n, d in zip(names, digests, strict=True) if not d]
        return {"verdict": "unknown", "same": same, "rows": rows,
                "notes": [f"what {', '.join(absent)} was trained and scored on is not recorded"]}  # fmt: skip
    what: dict[str, str] = {}
    for s in SPLITS:
        if not same[s]:
            values = [str((d.get("sizes") or {}).get(s)) for d in known]
            what[s] = f"{s} ({' / '.join(values)} examples" + (", other ones)" if len(set(values)) == 1 else ")")
    sources = list(dict.fromkeys(str(d.get("name")) for d in known))
    if not same["val"] and not same["test"]:
        reason = f"{' and '.join(sources)}" if len(sources) > 1 else ", ".join(what.values())
        return {"verdict": "different", "same": same, "notes": [reason], "rows": rows}
    if what:
        notes.append(f"the studies differ in {', '.join(what.values())}")
    outcome = "same" if not what else "split" if not (same["val"] and same["test"]) else "training"
    return {"verdict": outcome, "same": same, "notes": notes, "rows": rows}


# -- one study -----------------------------------------------------------------------------------------------------
def _study(record: Mapping[str, Any], v: View, data: dict[str, Any]) -> dict[str, Any]:
    study, objective = v.study, v.objectives[0]
    sampler = study.get("sampler") or {}
    free = stats.independent(sampler)
    spent = [t.standing for t in v.trials if t.state in ("complete", "pruned") and t.standing is not None]
    winner = v.winner
    counts = {s: sum(t.state == s for t in v.trials) for s in ("complete", "pruned", "failed")}
    replicas = [r for c in _configurations(record) for r in c.get("replicas") or []]
    device = math.fsum(a.seconds or 0.0 for t in v.trials for a in t.attempts)
    final = record.get("finalization") or {}
    confirm = math.fsum(r.get("seconds") or 0.0 for r in [*replicas, final.get("refit_run") or {}])
    return {
        "name": study["name"],
        "state": study.get("state"),
        "seed": study.get("seed"),
        "sampler": str(sampler.get("_target_") or "not recorded").rsplit(".", 1)[-1],
        "pruner": str((study.get("pruner") or {}).get("_target_") or "none").rsplit(".", 1)[-1],
        "independent": free,
        "n_params": (winner.n_params if winner else None) or (study.get("model") or {}).get("n_params"),
        "trials": {"run": len(v.trials), "asked": v.asked, **counts},
        "best": None
        if winner is None
        else {"number": winner.number, "value": winner.values[0], "params": winner.params},
        "winner": dict((record.get("winner") or {}).get("params") or {}),
        "default": None if v.default is None or not v.default.values else v.default.values[0],
        "confirmed": _confirmed(record),
        "test": _test(v),
        "budget": {
            "epochs": sum(t.epochs or len(t.intermediate) for t in v.trials),
            "confirm_epochs": sum(r.get("epochs") or 0 for r in replicas),
            "device_hours": device / 3600,
            "confirm_device_hours": confirm / 3600,
            "wall_hours": float(study["seconds"]) / 3600 if study.get("seconds") else None,
        },
        "best_so_far": [list(s) for s in stats.best_so_far(v.trials, objective.maximize)],
        "expected_best": [list(r) for r in stats.expected_best(spent, objective.maximize)]
        if free and len(spent) > 1
        else [],
        "seconds_a_trial": device / len(spent) if spent else None,
    }


def _configurations(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((record.get("finalization") or {}).get("configurations") or [])


def _confirmed(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The winner's trainings on fresh seeds; None where there are none."""
    winner = next((c for c in _configurations(record) if c.get("winner")), None)
    if winner is None:
        return None
    done = [r for r in winner.get("replicas") or [] if r.get("state") == "complete" and _finite(r.get("value"))]
    if not done:
        return None
    values = [float(r["value"]) for r in done]
    return {
        "trial_number": winner.get("trial_number"),
        "default": bool(winner.get("default")),
        "seeds": [r["seed"] for r in done],
        "values": values,
        **mean_interval(values),
    }


def _finite(x: Any) -> bool:
    return isinstance(x, int | float) and math.isfinite(x)


def _test(v: View) -> dict[str, Any] | None:
    """Accuracy of the kept model, as the ledger's last confirmation has it."""
    rows = [r for r in v.test if r.get("kind") == "confirm"]
    row = rows[-1] if rows else None
    n = int((row or {}).get("n") or 0)
    accuracy = ((row or {}).get("metrics") or {}).get("test/accuracy")
    if row is None or not n or accuracy is None:
        return None
    confusion = row.get("confusion") or []
    right = sum(line[i] for i, line in enumerate(confusion)) if confusion else round(accuracy * n)
    several = [r["metrics"]["test/accuracy"] for r in row.get("replicas") or [] if "test/accuracy" in r["metrics"]]
    errors = [e["index"] for e in row.get("errors") or []]
    return {
        "n": n,
        "right": right,
        "accuracy": right / n,
        "wilson": list(wilson(right, n)),
        "replicas": mean_interval(several) if several else None,
        "opened": len(v.test),
        # The record keeps the most confident errors; where it has all, it is known which examples were right.
        "wrong": sorted(errors) if len(set(errors)) == n - right else None,
    }


# -- two studies -------------------------------------------------------------------------------------------------
def _pair(a: dict[str, Any], b: dict[str, Any], data: dict[str, Any], maximize: bool) -> dict[str, Any]:
    same = data["same"]
    scored_alike = same["val"] or data["verdict"] == "unknown"
    search = a["best"]["value"] - b["best"]["value"] if a["best"] and b["best"] else None
    found = _values(a["confirmed"], b["confirmed"], paired=same["val"]) if scored_alike else None
    pair: dict[str, Any] = {"a": a["name"], "b": b["name"], "search": search, "confirmed": found, "better": None,
                            "holm": None, "test": _tested(a["test"], b["test"]) if same["test"] else None}  # fmt: skip
    if found is not None:
        up = found["difference"] > 0 if maximize else found["difference"] < 0
        pair["better"] = None if not found["difference"] else a["name"] if up else b["name"]
    return pair


def _values(a: dict[str, Any] | None, b: dict[str, Any] | None, *, paired: bool) -> dict[str, Any] | None:
    if a is None or b is None or a["n"] < 2 or b["n"] < 2:
        return None
    first, second = (dict(zip(c["seeds"], c["values"], strict=True)) for c in (a, b))
    common = [seed for seed in first if seed in second]
    # Pairing may not cost more than it gives: all seeds of the smaller set have to have a partner.
    if paired and len(common) >= 2 and len(common) == min(len(first), len(second)):
        return tests.paired([first[s] for s in common], [second[s] for s in common])
    return tests.welch(a["values"], b["values"])


def _tested(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any] | None:
    if a is None or b is None:
        return None
    low, high = tests.newcombe(a["right"], a["n"], b["right"], b["n"])
    out: dict[str, Any] = {"difference": a["accuracy"] - b["accuracy"], "low": low, "high": high, "mcnemar": None}
    if a["wrong"] is not None and b["wrong"] is not None and a["n"] == b["n"]:
        one, two = set(a["wrong"]), set(b["wrong"])
        out["mcnemar"] = {"only_a": len(two - one), "only_b": len(one - two),
                          "p": tests.mcnemar(len(two - one), len(one - two))}  # fmt: skip
    return out


def _correct(pairs: list[dict[str, Any]]) -> None:
    """Holm's correction over all pairs that were tested; of one pair it is the p itself."""
    tested = [p for p in pairs if p["confirmed"] is not None and p["confirmed"]["p"] is not None]
    for pair, p in zip(tested, tests.holm([p["confirmed"]["p"] for p in tested]), strict=True):
        pair["holm"] = p


# -- all of them ---------------------------------------------------------------------------------------------------
def _curves(studies: list[dict[str, Any]], maximize: bool) -> dict[str, Any]:
    """What equal budgets buy: the expected best where all samplers are independent, else the best so far."""
    with_scores = [s for s in studies if s["best_so_far"]]
    if len(with_scores) < 2:
        return {"kind": None, "trials": None, "rows": []}
    if all(s["expected_best"] for s in studies):
        n = min(len(s["expected_best"]) for s in studies)
        rows = []
        for s in studies:
            mean, low, high = s["expected_best"][n - 1][1:]
            rows.append({"name": s["name"], "value": mean, "low": low, "high": high, "device_hours": None})
        hours = min(len(s["expected_best"]) * s["seconds_a_trial"] for s in studies) / 3600
        for s, row in zip(studies, rows, strict=True):
            count = max(1, min(len(s["expected_best"]), int(hours * 3600 / s["seconds_a_trial"] + 1e-9)))
            row["device_hours"] = {"hours": hours, "trials": count, "value": s["expected_best"][count - 1][1]}
        return {"kind": "expected", "trials": n, "rows": rows}
    n = min(s["trials"]["run"] for s in with_scores)
    pick = max if maximize else min
    rows = []
    for s in studies:
        reached = [v for number, v in s["best_so_far"] if number < n]
        rows.append({"name": s["name"], "value": pick(reached) if reached else None, "device_hours": None})
    return {"kind": "best", "trials": n, "rows": rows}


def _space(v: View) -> dict[str, str]:
    out = {}
    for d in v.study.get("space") or []:
        when = d.get("when")
        text = bounds(d) + (", log" if d.get("log") else "")
        out[str(d["name"])] = text + (", conditional" if when else "")
    return out


def _table(columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a key, in order of appearance: the values, and whether they differ."""
    keys = list(dict.fromkeys(k for c in columns for k in c))
    rows = [{"key": k, "values": [c.get(k) for c in columns]} for k in keys]
    return [{**r, "differs": any(v != r["values"][0] for v in r["values"])} for r in rows]


def _differences(views: Sequence[View]) -> list[dict[str, Any]]:
    """Keys of the configuration in which the studies differ, but for places."""
    columns = [dict(flat(v.study.get("config") or {})) for v in views]
    for column, v in zip(columns, views, strict=True):
        column["seed (of the study)"] = str(v.study.get("seed"))
    rows = [row for row in _table(columns) if row["differs"] and not row["key"].startswith(_PLACES)]
    return sorted(rows, key=lambda row: row["key"])


def _rounded(node: Any) -> Any:
    """Twelve significant digits: the same whatever the order of a machine's sums."""
    if isinstance(node, float):
        return float(f"{node:.12g}") if math.isfinite(node) else None
    if isinstance(node, dict):
        return {k: _rounded(v) for k, v in node.items()}
    return [_rounded(v) for v in node] if isinstance(node, list | tuple) else node
