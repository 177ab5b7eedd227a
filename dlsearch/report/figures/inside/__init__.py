"""Figures of what is inside a net: feature maps, what excites features, gradients, losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlsearch.inspection.findings import InsideFindings
    from dlsearch.report.figures.plate import Plate


def draw_inside(inside: InsideFindings | None) -> list[Plate]:
    """All figures of what is inside that the record gives something for."""
    from dlsearch.report.figures.inside.deconvolution import draw_deconvolution
    from dlsearch.report.figures.inside.gradients import draw_gradients
    from dlsearch.report.figures.inside.kernels import draw_fixed_kernels
    from dlsearch.report.figures.inside.loss import draw_loss
    from dlsearch.report.figures.inside.maps import draw_feature_maps
    from dlsearch.report.figures.inside.warped import draw_warped

    if not inside:
        return []
    figures = (
        draw_fixed_kernels,
        draw_feature_maps,
        draw_deconvolution,
        draw_warped,
        draw_gradients,
        draw_loss,
    )
    plates = [draw(inside) for draw in figures]
    return [plate for plate in plates if plate is not None]
