"""The figures of the report, drawn with matplotlib from ``report.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlsearch.report.figures.plate import Plate


def draw(f: dict[str, Any]) -> list[Plate]:
    """Draw every figure that the facts give something for."""
    from dlsearch.report.figures import confirmation, course, inside, outcome, parameters, timeline, tradeoff, training
    from dlsearch.report.figures.scales import scales

    axes = scales(f)
    plates = [
        tradeoff.pareto(f) if len(f["objectives"]) > 1 else course.course(f),
        timeline.timeline(f),
        course.distribution(f),
        course.expected(f),
        course.curves(f),
        parameters.importances(f),
        parameters.plane(f, axes),
        parameters.parallel(f, axes),
        *parameters.slices(f, axes),
        confirmation.replicas(f),
        confirmation.differences(f),
        confirmation.optimism(f),
        outcome.confusion(f),
        training.seed_band(f),
        training.gap(f),
        training.balance(f),
        training.weights(f),
        *inside.plates((f["test"]["main"] or {}).get("inside")),
    ]
    return [p for p in plates if p is not None]
