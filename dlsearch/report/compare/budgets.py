"""What equal budgets buy in the studies of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.compare.models import BudgetCurve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.report.compare.models import (
        BudgetComparison,
        BudgetRow,
        ComparedStudy,
        EqualHours,
    )

SECONDS_PER_HOUR = 3600


def compare_budgets(studies: Sequence[ComparedStudy], maximize: bool) -> BudgetComparison:
    """The expected best where all samplers are independent, else the best so far."""
    with_scores = [study for study in studies if study["best_so_far"]]
    if len(with_scores) < 2:
        return {
            "kind": None,
            "trials": None,
            "rows": [],
        }
    if all(study["expected_best"] for study in studies):
        n = min(len(study["expected_best"]) for study in studies)
        return {
            "kind": BudgetCurve.EXPECTED,
            "trials": n,
            "rows": _expected_rows(studies, n),
        }
    n = min(study["trials"]["run"] for study in with_scores)
    return {
        "kind": BudgetCurve.BEST,
        "trials": n,
        "rows": [_best_row(study, n, maximize) for study in studies],
    }


def _expected_rows(studies: Sequence[ComparedStudy], n: int) -> list[BudgetRow]:
    totals = [len(study["expected_best"]) * _seconds_a_trial(study) for study in studies]
    hours = min(totals) / SECONDS_PER_HOUR
    rows: list[BudgetRow] = []
    for study in studies:
        _, mean, low, high = study["expected_best"][n - 1]
        rows.append(
            {
                "name": study["name"],
                "value": mean,
                "low": low,
                "high": high,
                "device_hours": _in_equal_hours(study, hours),
            }
        )
    return rows


def _seconds_a_trial(study: ComparedStudy) -> float:
    seconds = study["seconds_a_trial"]
    assert seconds is not None
    return seconds


def _in_equal_hours(study: ComparedStudy, hours: float) -> EqualHours:
    affordable = int(hours * SECONDS_PER_HOUR / _seconds_a_trial(study) + 1e-9)
    count = max(1, min(len(study["expected_best"]), affordable))
    _, mean, _, _ = study["expected_best"][count - 1]
    return {
        "hours": hours,
        "trials": count,
        "value": mean,
    }


def _best_row(study: ComparedStudy, n: int, maximize: bool) -> BudgetRow:
    """The best of the first n trials."""
    reached = [value for number, value in study["best_so_far"] if number < n]
    best = None
    if reached:
        best = max(reached) if maximize else min(reached)
    return {
        "name": study["name"],
        "value": best,
        "device_hours": None,
    }
