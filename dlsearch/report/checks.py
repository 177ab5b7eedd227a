"""A record held against itself: what must agree in it, whoever wrote it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlsearch.report.study import Finalist, Finalization, View


def checks(view: View, data: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the record against itself; each check says what was found where it fails.

    Args:
        view: The view of the record, without its checks.
        data: The record it was made of, cleaned.

    Returns:
        Rows ``{"check", "ok", "found"}``.
    """
    out: list[dict[str, Any]] = []

    def check(name: str, found: list[str]) -> None:
        out.append({"check": name, "ok": not found, "found": "; ".join(found[:5])})

    trials = view.trials
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
    if view.multi:
        named = sorted(data.get("pareto") or (data.get("winner") or {}).get("pareto") or view.pareto)
        check(
            "The recorded Pareto set is the set of completed trials that none dominates.",
            [] if named == list(view.pareto) else [f"recorded {named}, found {list(view.pareto)}"],
        )
    elif view.finalization is not None and view.finalization.winner is not None:
        check(
            "The recorded winner is the configuration that was confirmed.", _of_the_confirmed(view, data.get("winner"))
        )
    else:
        check("The recorded winner is the best of the completed trials.", _of_the_best(view, data.get("winner")))
    if view.finalization is not None:
        for name, found in _of_the_round(view, view.finalization):
            check(name, found)
    known: set[Any] = set(numbers)
    if any(c.default for c in (view.finalization.configurations if view.finalization else ())):
        known.add(None)
    check(
        "Every test-set evaluation belongs to a configuration of this study.",
        [
            f"ledger row {r.get('ledger_id')} names trial {r.get('trial_number')}"
            for r in view.test
            if r.get("trial_number") not in known and r.get("kind") != "ensemble"
        ],
    )
    if view.openings is not None:
        opened = {r.get("ledger_id") for r in view.openings}
        check(
            "Every test score has its row in the ledger of openings.",
            [f"ledger row {r.get('ledger_id')} is not there" for r in view.test if r.get("ledger_id") not in opened],
        )
    overlap = ((view.study.get("data") or {}).get("overlap") or {}).get("index")
    check("No example stands in two splits.", [f"{overlap} do"] if overlap else [])
    return out


def _of_the_best(view: View, said: dict[str, Any] | None) -> list[str]:
    best = view.best
    same = (said is None) == (best is None)
    if said and best:
        # Two trials may tie: what counts is that the recorded one scored as much.
        twin = next((t for t in view.trials if t.number == said.get("number")), None)
        same = twin is not None and twin.values == best.values
    found = best.number if best else "none"
    return [] if same else [f"recorded trial {said.get('number') if said else 'none'}, found {found}"]


def _of_the_confirmed(view: View, said: dict[str, Any] | None) -> list[str]:
    confirmed = view.finalization.winner if view.finalization else None
    if confirmed is None or said is None:
        return ["recorded none"]
    if said.get("number") == confirmed.trial_number or (said.get("default") and confirmed.default):
        return []
    return [f"recorded trial {said.get('number')}, confirmed {confirmed.trial_number}"]


def _of_the_round(view: View, final: Finalization) -> list[tuple[str, list[str]]]:
    """What must hold in a round of confirmation."""
    seeds = list(final.seeds)
    winners = [c for c in final.configurations if c.winner]
    sign = 1 if view.objectives[0].maximize else -1
    unpaired = [
        f"{_named(c)}: replica {r.replica} has seed {r.seed}"
        for c in final.configurations
        for r in c.replicas
        if r.replica >= len(seeds) or r.seed != seeds[r.replica]
    ]
    out = [
        ("Replica i of every finalist was trained with the same seed.", unpaired if seeds else []),
        (
            "The seeds of the confirmation are distinct, and no trial of the search had one.",
            ([f"{len(seeds)} seeds, {len(set(seeds))} distinct"] if len(set(seeds)) < len(seeds) else [])
            + [f"trial {t.number} had seed {t.seed}" for t in view.trials if t.seed in set(seeds)],
        ),
        (
            "The default configuration is among the finalists and was never dropped.",
            [
                text
                for text, wrong in (
                    ("it is not among them", not any(c.default for c in final.configurations)),
                    ("it was dropped", any(c.default and c.dropped_after is not None for c in final.configurations)),
                )
                if wrong
            ],
        ),
    ]
    if final.state == "complete":
        found = [] if len(winners) == 1 else [f"{len(winners)} winners"]
        if len(winners) == 1 and winners[0].values:
            mine = math.fsum(winners[0].values) / len(winners[0].values)
            lost = _failures(winners[0])
            # One that could not complete its seeds does not win over one that did.
            whole = [c for c in final.configurations if c.dropped_after is None and c.values and _failures(c) <= lost]
            for c in whole:
                mean = math.fsum(c.values) / len(c.values)
                if sign * (mean - mine) > 1e-12 * max(1.0, abs(mine)):
                    found.append(f"{_named(c)} has the better mean")
        out.append(("Of the finalists that had all seeds, the winner has the best mean.", found))
    return out


def _failures(c: Finalist) -> int:
    return sum(r.state in ("failed", "lost") for r in c.replicas)


def _named(c: Finalist) -> str:
    return "the default" if c.default and c.trial_number is None else f"trial {c.trial_number}"
