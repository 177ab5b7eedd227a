"""Facts of the test: how often and when the test set was opened, what the kept model scored, who reached for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report import intervals as stats
from dlsearch.report.formats import epoch

if TYPE_CHECKING:
    from dlsearch.report.study import View

#: What is shown of a row of the ledger.
_ROW = ("ledger_id", "kind", "round", "trial_number", "seed", "evaluated_at", "n")


def facts(view: View) -> dict[str, Any]:
    """The ledger, and its first scored evaluation of the last round in full.

    Returns:
        ``{"rows", "openings", "opened", "unscored", "ensembles", "main"}``; ``openings`` is null where the record does
        not hold them, ``main`` where nothing was scored.
    """
    rows = sorted(view.test, key=_order)
    openings = None if view.openings is None else sorted(view.openings, key=_order)
    main = _quoted(view, rows)
    out: dict[str, Any] = {
        "rows": [{k: r.get(k) for k in _ROW} | {"metrics": r.get("metrics") or {}} for r in rows],
        "openings": None
        if openings is None
        else [{k: r.get(k) for k in (*_ROW[:-1], "scored")} | {"scored": bool(r.get("scored"))} for r in openings],
        "opened": len(rows) if openings is None else len(openings),
        "unscored": None if openings is None else sum(not r.get("scored") for r in openings),
        "ensembles": [{"ledger_id": r.get("ledger_id"), **_ensemble(r["ensemble"])} for r in rows if r.get("ensemble")],
        "main": None,
    }
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
    number = main.get("trial_number")
    trial = view.winner if number is None else next((t for t in view.trials if t.number == number), None)
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
        "round": main.get("round"),
        "refit": (main.get("refit") or {}).get("metrics"),
        "replicas": _replicas(main),
        "over_seeds": _over_seeds(main),
        "first_layer": main.get("first_layer"),
        "inside": main.get("inside"),
    }
    return out


def breaches(view: View) -> list[dict[str, Any]]:
    """Every time that something reached for the test set while hyperparameters were being chosen."""
    found: list[dict[str, Any]] = [
        {"trial": t.number, "replica": None, "how": how, "what": what} for t in view.trials for how, what in t.breaches
    ]
    for c in view.finalization.configurations if view.finalization else ():
        found += [
            {"trial": c.trial_number, "replica": r.replica, "how": how, "what": what}
            for r in c.replicas
            for how, what in r.breaches
        ]
    return found


def _ensemble(found: dict[str, Any]) -> dict[str, Any]:
    """An ensemble of the best trials: its members, their weights, and its figures beside the single best model's."""
    keys = ("by", "members", "single", "weights", "chosen", "validation", "test")
    return {key: found[key] for key in keys}


def _order(row: dict[str, Any]) -> tuple[str, int, str]:
    number = row.get("ledger_id")
    return str(row.get("evaluated_at") or ""), number if isinstance(number, int) else 0, str(number)


def _quoted(view: View, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first evaluation after the last selection: no other informed what it scored.

    Of a study that was extended, that is the first one of the last round; the ledger shows what came before.
    """
    confirmed = [r for r in rows if r.get("kind") == "confirm"]
    last = view.finalization.round if view.finalization else None
    of_round = [r for r in confirmed if r.get("round") == last] if last is not None else []
    alone = [r for r in rows if r.get("kind") != "ensemble"]  # which no model that is kept has scored
    return next(iter(of_round or confirmed or alone), None)


def _replicas(main: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"replica": r.get("replica"), "seed": r.get("seed"), "metrics": r.get("metrics") or {}}
        for r in main.get("replicas") or []
    ]
    return sorted(rows, key=lambda r: (r["replica"] is None, r["replica"] or 0))


def _over_seeds(main: dict[str, Any]) -> list[dict[str, Any]]:
    """Each test metric over the replicas: mean, standard deviation and interval."""
    rows = _replicas(main)
    names = sorted({k for r in rows for k in r["metrics"]}, key=lambda k: (k != "test/accuracy", k))
    return [
        {"metric": name} | stats.mean_interval([r["metrics"][name] for r in rows if r["metrics"].get(name) is not None])
        for name in names
        if len(rows) > 1
    ]


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
