"""Everything the report says, as one JSON document: ``report.json``.

Pages and figures are drawn from this document and from nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlsearch.report.facts import test_set
from dlsearch.report.facts.arms import describe_arms, name_arms, read_arms
from dlsearch.report.facts.checklist import answer_checklist
from dlsearch.report.facts.claim import write_claim
from dlsearch.report.facts.command import reproduce
from dlsearch.report.facts.compute import measure_compute
from dlsearch.report.facts.confirmation import describe_confirmation, measure_gap, measure_optimism
from dlsearch.report.facts.contents import (
    Confirmation,
    FinalistRow,
    Findings,
    NamedGap,
    ObjectiveRow,
    Report,
    Won,
    find_winner,
)
from dlsearch.report.facts.course import describe_course
from dlsearch.report.facts.data import describe_data
from dlsearch.report.facts.hyperparameters import find_edges, importances, list_varied
from dlsearch.report.facts.kinds.registry import resolve_validation
from dlsearch.report.facts.limits import list_limits
from dlsearch.report.facts.trials import account_for_trials, describe_trial, rank_trials

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject
    from dlsearch.report.study import Objective, Trial, View

#: The version of report.json; ``schema.json`` of the report says what is in it.
SCHEMA = 1

#: Rows of the table of top trials.
TOP = 10
#: Trials whose learning curves are drawn and labelled.
LEADERS = 5

# More digits than are known, and few enough that the order of a machine's sums changes none.
_DIGITS = 12
# A float from here on is a time since 1970, whose digits before the point count too.
_LARGEST_ROUNDED = 1e8


def facts(view: View) -> JsonObject:
    """The whole report as JSON, computed from a view of the record."""
    report = build_report(view)
    rounded: JsonObject = _round_floats(report)
    # What a repetition starts from and compares is exact, unlike what is shown.
    return {
        **rounded,
        "study": _without_paths(view.study),
        "replay": report["replay"],
        "again": report["again"],
    }


def build_report(view: View) -> Report:
    """The whole report: what was found, the sentences on it, and what a repetition needs."""
    findings = collect_findings(view)
    return {
        **findings,
        "claim": write_claim(findings, view.document),
        "limits": list_limits(findings, view.document),
        "checklist": answer_checklist(findings, view.document),
        "replay": list(view.replay),
        "again": view.again,
    }


def collect_findings(view: View) -> Findings:
    """Compute all that the sentences of the report rest on."""
    confirmation = describe_confirmation(view)
    arms = read_arms(view.study)
    name_arms(confirmation, arms)
    ranked = rank_trials(view)
    leaders = [trial for trial in ranked[:LEADERS] if _has_curve(trial)]
    return {
        "schema": SCHEMA,
        "study": view.study,
        "objectives": [_describe_objective(objective) for objective in view.objectives],
        "trials": [describe_trial(trial) for trial in view.trials],
        "best": _number_of(view.best),
        "winner": _number_of(view.winner),
        # each arm has a default configuration of its own, and none is compared with it
        "default": _number_of(view.default) if arms is None else None,
        "won": _describe_won(view, confirmation),
        "pareto": view.pareto,
        "top": [trial.number for trial in ranked[:TOP]],
        "leaders": [trial.number for trial in leaders],
        "varied": list_varied(view),
        "accounting": account_for_trials(view),
        "compute": measure_compute(view),
        "course": describe_course(view),
        "importances": importances(view),
        "edges": find_edges(view),
        "resolution": resolve_validation(view),
        "test": test_set.describe_test(view),
        "confirmation": confirmation,
        "arms": describe_arms(view, confirmation, arms),
        "optimism": measure_optimism(view, confirmation),
        "breaches": test_set.list_breaches(view),
        "data": describe_data(view.document.data),
        "gaps": _measure_gaps(confirmation, leaders),
        "kept_sha256": _find_kept_digest(view),
        "reproduce": reproduce(view),
        "checks": list(view.checks),
    }


def _describe_objective(objective: Objective) -> ObjectiveRow:
    return {
        "name": objective.name,
        "maximize": objective.maximize,
        "percent": objective.percent,
    }


def _has_curve(trial: Trial) -> bool:
    return len(trial.intermediate) > 1


def _number_of(trial: Trial | None) -> int | None:
    return None if trial is None else trial.number


def _describe_won(view: View, confirmation: Confirmation | None) -> Won | None:
    """The configuration that the study names: the confirmed one, else the best of the search."""
    winner = find_winner(confirmation)
    if winner is not None:
        return _describe_confirmed(winner)
    return None if view.best is None else _describe_best(view.best)


def _describe_confirmed(winner: FinalistRow) -> Won:
    number = winner["trial_number"]
    return {
        "name": winner["name"],
        "label": "Default" if number is None else f"Trial {number}",
        "trial_number": number,
        "default": winner["default"],
        "params": winner["params"],
        "search_value": winner["search_value"],
        "value": winner["mean"],
        "n": winner["n"],
        "sd": winner["sd"],
        "interval": winner["interval"],
        "student": winner["student"],
        "confirmed": True,
    }


def _describe_best(best: Trial) -> Won:
    value = best.values[0]
    return {
        "name": f"trial {best.number}",
        "label": f"Trial {best.number}",
        "trial_number": best.number,
        "default": best.default,
        "params": best.params,
        "search_value": value,
        "value": value,
        "n": 1,
        "sd": None,
        "interval": None,
        "student": None,
        "confirmed": False,
    }


def _measure_gaps(confirmation: Confirmation | None, leaders: list[Trial]) -> list[NamedGap]:
    """Training against validation, of the finalists over their seeds, else of the leaders."""
    if confirmation is not None:
        return [
            {
                "name": "default" if finalist["default"] else finalist["name"],
                "first": finalist["winner"],
                "gap": finalist["gap"],
            }
            for finalist in confirmation["finalists"]
        ]
    return [
        {
            "name": f"trial {trial.number}",
            "first": place == 0,
            "gap": measure_gap([trial.summary]),
        }
        for place, trial in enumerate(leaders)
    ]


def _find_kept_digest(view: View) -> str | None:
    """The digest of the weights of the model that is kept."""
    final = view.finalization
    if final is None or final.winner is None or not final.kept:
        return None
    for replica in final.winner.replicas:
        if replica.replica == final.kept_replica:
            return replica.state_sha256
    return None


def _without_paths(study: Mapping[str, Any]) -> JsonObject:
    """The study document without the folders of the machine that ran it.

    Another machine has folders of its own.
    """
    if "config" not in study:
        return dict(study)
    config = dict(study["config"] or {})
    config.pop("paths", None)
    return {**study, "config": config}


def _round_floats(node: Any) -> Any:
    """Copy with each float rounded, and with lists in the place of tuples."""
    if isinstance(node, float):
        return _round_float(node)
    if isinstance(node, dict):
        return {key: _round_floats(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_round_floats(value) for value in node]
    return node


def _round_float(value: float) -> float:
    if not math.isfinite(value) or abs(value) >= _LARGEST_ROUNDED:
        return value
    return float(f"{value:.{_DIGITS}g}")
