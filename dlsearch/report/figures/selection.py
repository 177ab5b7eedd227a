"""The figures of a report, in the order of the page: a table for each part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dlsearch.report.facts.contents import MainScore, Report
from dlsearch.report.figures.balance import draw_balance
from dlsearch.report.figures.confirmation.differences import draw_differences
from dlsearch.report.figures.confirmation.optimism import draw_optimism
from dlsearch.report.figures.confirmation.replicas import draw_replicas
from dlsearch.report.figures.confirmation.seed_band import draw_seed_band
from dlsearch.report.figures.inside import draw_inside
from dlsearch.report.figures.inside.weights import draw_weights
from dlsearch.report.figures.kinds import FigureOfReport, draw_evaluation
from dlsearch.report.figures.parameters.importances import draw_importances
from dlsearch.report.figures.parameters.parallel import draw_parallel
from dlsearch.report.figures.parameters.plane import draw_plane
from dlsearch.report.figures.parameters.slices import draw_slices
from dlsearch.report.figures.plate import Plate
from dlsearch.report.figures.scales import Scale, parameter_scales
from dlsearch.report.figures.search.budget import draw_expected_best
from dlsearch.report.figures.search.course import draw_course
from dlsearch.report.figures.search.curves import draw_curves
from dlsearch.report.figures.search.distribution import draw_distribution
from dlsearch.report.figures.search.pareto import draw_pareto
from dlsearch.report.figures.search.timeline import draw_timeline
from dlsearch.report.figures.training import draw_gap

#: Draws one figure over the scales of the hyperparameters.
_FigureOfScales: TypeAlias = Callable[[Report, Sequence[Scale]], Plate | None]

SEARCH_FIGURES: tuple[FigureOfReport, ...] = (
    draw_timeline,
    draw_distribution,
    draw_expected_best,
    draw_curves,
    draw_importances,
)
PARAMETER_FIGURES: tuple[_FigureOfScales, ...] = (
    draw_plane,
    draw_parallel,
)
CONFIRMATION_FIGURES: tuple[FigureOfReport, ...] = (
    draw_replicas,
    draw_differences,
    draw_optimism,
)
TRAINING_FIGURES: tuple[FigureOfReport, ...] = (
    draw_seed_band,
    draw_gap,
    draw_balance,
)


def draw_all(report: Report) -> list[Plate]:
    """Every figure that the report gives something for."""
    draw_search = draw_pareto if len(report["objectives"]) > 1 else draw_course
    plates = [draw_search(report)]
    plates += [draw(report) for draw in SEARCH_FIGURES]
    plates += _draw_parameters(report)
    plates += [draw(report) for draw in CONFIRMATION_FIGURES]
    plates += draw_evaluation(report)
    plates += [draw(report) for draw in TRAINING_FIGURES]
    main = report["test"]["main"]
    if main is not None:
        plates += _draw_net(main)
    return [plate for plate in plates if plate is not None]


def _draw_parameters(report: Report) -> list[Plate | None]:
    scales = parameter_scales(report)
    plates = [draw(report, scales) for draw in PARAMETER_FIGURES]
    return [*plates, *draw_slices(report, scales)]


def _draw_net(main: MainScore) -> list[Plate | None]:
    """The net that was kept: the weights of its first layer, and what is inside of it."""
    return [draw_weights(main["first_layer"]), *draw_inside(main["inside"])]
