"""The figures of the report, drawn with matplotlib from ``report.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import Report
    from dlsearch.report.figures.plate import Plate


def draw_figures(report: Report) -> list[Plate]:
    """Draw every figure that the report gives something for.

    Matplotlib is imported here and not before: what reads a report only needs none.
    """
    from dlsearch.report.figures.selection import draw_all

    return draw_all(report)
