"""Facts of the confirmation: finalists over fresh seeds, who is better, how optimistic the search was."""

from __future__ import annotations

import statistics as plain
from typing import TYPE_CHECKING, Any

from dlsearch.report import intervals

if TYPE_CHECKING:
    from dlsearch.report.study import Finalist, Finalization, Replica, View

#: How the probabilities of the report are computed, in its own words.
PROBABILITY = (
    "posterior probability of a mean paired difference above zero, reference prior, normal differences"
    " (one minus the p value of the one-sided paired t test)"
)


def confirmation(view: View) -> dict[str, Any] | None:
    """What the last round of confirmation found; None where there was none.

    Returns:
        ``{"round", "rounds", "state", "top", "racing", "refit", "seeds", "finalists", "winner", "runner_up",
        "default", "against_default", "against_runner_up", "comparisons", "probability_method", "kept", "checkpoint",
        "device_seconds"}``; ``winner``, ``runner_up`` and ``default`` are places in ``finalists``.
    """
    final = view.finalization
    if final is None:
        return None
    maximize = view.objectives[0].maximize
    sign = 1 if maximize else -1
    limit = ((view.study.get("config") or {}).get("trainer") or {}).get("max_epochs")
    rows = [_finalist(c, final, sign, limit) for c in final.configurations]
    winner = next((i for i, c in enumerate(final.configurations) if c.winner), None)
    default = next((i for i, c in enumerate(final.configurations) if c.default), None)
    runner_up = _runner_up(rows, winner, maximize)
    comparisons = []
    for i, c in enumerate(final.configurations):
        if winner is not None and i != winner:
            comparisons.append({"of": winner, "with": i} | _compared(final.configurations[winner], c, maximize))
    seconds = [r.seconds for c in final.configurations for r in c.replicas if r.seconds is not None]
    return {
        "round": final.round,
        "rounds": final.rounds,
        "state": final.state,
        "top": final.top,
        "racing": final.racing,
        "refit": final.refit,
        "seeds": list(final.seeds),
        "finalists": rows,
        "winner": winner,
        "runner_up": runner_up,
        "default": default,
        "against_default": next((c for c in comparisons if c["with"] == default), None),
        "against_runner_up": next((c for c in comparisons if c["with"] == runner_up), None),
        "comparisons": comparisons,
        "probability_method": PROBABILITY,
        "kept": final.kept,
        "checkpoint": final.checkpoint,
        "device_seconds": sum(seconds) if seconds else None,
    }


def name_of(row: dict[str, Any]) -> str:
    """How a finalist is called: ``trial 17``, ``the default configuration``."""
    if row["default"]:
        number = row["trial_number"]
        return "the default configuration" + (f" (trial {number})" if number is not None else "")
    return f"trial {row['trial_number']}" if row["trial_number"] is not None else "a configuration of no trial"


def _finalist(c: Finalist, final: Finalization, sign: int, limit: Any) -> dict[str, Any]:
    out: dict[str, Any] = {
        "trial_number": c.trial_number,
        "default": c.default,
        "winner": c.winner,
        "params": c.params,
        "search_value": c.search_value,
        "dropped_after": c.dropped_after,
        "failed": sum(r.state in ("failed", "lost") for r in c.replicas),
        "replicas": [_replica(r) for r in c.replicas],
        "band": band([r.intermediate for r in c.replicas if r.value is not None]),
        "ends": _ends(c, limit),
        "gap": gap([r.summary for r in c.replicas if r.value is not None]),
    }
    out |= intervals.mean_interval(c.values)
    out["optimism"] = None
    if c.search_value is not None and out["mean"] is not None:
        out["optimism"] = sign * (c.search_value - out["mean"])
    out["name"] = name_of(out)
    out["all_seeds"] = len(c.values) == len(final.seeds)
    return out


def _ends(c: Finalist, limit: Any) -> dict[str, Any] | None:
    """Medians over the seeds of the best epoch and of the number of epochs, and how many were allowed."""
    best = [r.best_epoch for r in c.replicas if r.value is not None and r.best_epoch is not None]
    epochs = [r.epochs for r in c.replicas if r.value is not None and r.epochs is not None]
    if not best or not epochs:
        return None
    return {"best": plain.median(best), "epochs": plain.median(epochs), "limit": limit}


def _replica(r: Replica) -> dict[str, Any]:
    return {
        "replica": r.replica,
        "seed": r.seed,
        "state": r.state,
        "reason": r.reason,
        "value": r.value,
        "epochs": r.epochs,
        "best_epoch": r.best_epoch,
        "seconds": r.seconds,
        "intermediate": [list(p) for p in r.intermediate],
        "summary": r.summary,
        "state_sha256": r.state_sha256,
        "attempts": [vars(a) for a in r.attempts],
        "breaches": [list(b) for b in r.breaches],
    }


def _runner_up(rows: list[dict[str, Any]], winner: int | None, maximize: bool) -> int | None:
    """The best of the others: among those that had as many seeds, else the one that stayed longest."""
    others = [i for i, row in enumerate(rows) if i != winner and row["mean"] is not None]
    sign = 1 if maximize else -1
    return max(others, key=lambda i: (rows[i]["n"], sign * rows[i]["mean"], -i), default=None)


def _compared(a: Finalist, b: Finalist, maximize: bool) -> dict[str, Any]:
    """The paired comparison over the seeds that both completed."""
    mine = {r.replica: r.value for r in a.replicas if r.value is not None}
    other = {r.replica: r.value for r in b.replicas if r.value is not None}
    both = sorted(mine.keys() & other.keys())
    return {"replicas": both} | intervals.paired([mine[i] for i in both], [other[i] for i in both], maximize)


def band(curves: list[tuple[tuple[int, float], ...]]) -> list[list[float]]:
    """Per epoch, over the replicas that reached it: ``[epoch, n, least, mean, most]``.

    Replicas that stopped early are no longer in the later epochs, so that the mean may jump where one stops.
    """
    at: dict[int, list[float]] = {}
    for curve in curves:
        for epoch, value in curve:
            at.setdefault(epoch, []).append(value)
    return [[e, len(vs), min(vs), sum(sorted(vs)) / len(vs), max(vs)] for e, vs in sorted(at.items())]


def gap(summaries: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Training against validation at the best epoch (else at the last), mean over the replicas that logged both."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for summary in summaries:
        for name in sorted({k.rsplit("/", 1)[-1] for k in summary}):
            for prefix in ("best/", "", "final/"):
                train, val = summary.get(f"{prefix}train/{name}"), summary.get(f"{prefix}val/{name}")
                if train is not None and val is not None:
                    pairs.setdefault(name, []).append((train, val))
                    break
    out = []
    for name, found in sorted(pairs.items()):
        n = len(found)
        train, val = (sum(sorted(side)) / n for side in zip(*found, strict=True))
        out.append({"metric": name, "n": n, "train": train, "val": val, "gap": train - val})
    return out


def optimism(view: View, facts: dict[str, Any] | None) -> dict[str, Any] | None:
    """The best score that the search saw against the mean over fresh seeds.

    Returns:
        ``{"best", "number", "mean", "interval", "drop", "of_best"}``: ``drop`` is positive where the search promised
        more than the confirmed configuration keeps; ``of_best`` the same for the trial that scored best in the
        search, where that was another finalist.
    """
    if facts is None or view.best is None or facts["winner"] is None:
        return None
    sign = 1 if view.objectives[0].maximize else -1
    winner, best = facts["finalists"][facts["winner"]], view.best.values[0]
    if winner["mean"] is None:
        return None
    same = next((r for r in facts["finalists"] if r["trial_number"] == view.best.number), None)
    return {
        "best": best,
        "number": view.best.number,
        "mean": winner["mean"],
        "interval": winner["interval"],
        "drop": sign * (best - winner["mean"]),
        "of_best": None if same is None or same["mean"] is None else sign * (best - same["mean"]),
        "drops": [row["optimism"] for row in facts["finalists"] if row["optimism"] is not None],
    }
