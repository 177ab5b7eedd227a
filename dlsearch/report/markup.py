"""Figures as markup of a page, its style sheet, and the templates that hold both."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlsearch.report.figures import svg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from xml.etree.ElementTree import Element

    import jinja2
    from markupsafe import Markup

    from dlsearch.report.figures.plate import Plate

TEMPLATES = Path(__file__).parent / "templates"


class DrawnPlate(NamedTuple):
    """A figure as markup; ``narrow`` is the drawing for a phone, where there is one."""

    plate: Plate
    wide: Markup
    narrow: Markup | None


@dataclass
class DrawnPage:
    """The figures of a page as markup and as files, and the styles that they share.

    Attributes:
        figures: The figures, in the order in which they were added.
        files: The stand-alone figures, by path below the page's folder.
    """

    figures: list[DrawnPlate] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    _sheet: svg.StyleSheet = field(default_factory=svg.StyleSheet)

    def add_plate(self, plate: Plate, *, narrow_first: bool = False) -> None:
        """Write a figure as markup and as a file.

        Args:
            plate: The figure.
            narrow_first: The styles of the narrow drawing get their classes first, which numbers
                them.
        """
        wide = svg.figure_to_svg(plate.wide, plate.key)
        self.files[f"figures/{plate.key}.svg"] = svg.standalone_svg(wide, plate.alt)
        if plate.narrow is None:
            self.figures.append(DrawnPlate(plate, self._inline(wide, plate), None))
            return
        narrow = svg.figure_to_svg(plate.narrow, f"{plate.key}-n")
        if narrow_first:
            narrow_markup = self._inline(narrow, plate)
            wide_markup = self._inline(wide, plate)
        else:
            wide_markup = self._inline(wide, plate)
            narrow_markup = self._inline(narrow, plate)
        self.figures.append(DrawnPlate(plate, wide_markup, narrow_markup))

    def _inline(self, drawing: Element, plate: Plate) -> Markup:
        from markupsafe import Markup

        return Markup(self._sheet.inline_figure(drawing, plate.alt))

    def style_sheet(self) -> Markup:
        """The page's style sheet, with the styles of its figures."""
        from markupsafe import Markup

        of_all_pages = (TEMPLATES / "style.css").read_text("utf-8")
        return Markup(f"{of_all_pages}{self._sheet.css_rules()}\n")


def draw_page(plates: Iterable[Plate], *, narrow_first: bool = False) -> DrawnPage:
    """The figures as markup and files; see :meth:`DrawnPage.add_plate`."""
    page = DrawnPage()
    for plate in plates:
        page.add_plate(plate, narrow_first=narrow_first)
    return page


def csp_digest(text: str) -> str:
    """The digest by which a content-security policy admits a style sheet or a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def template_environment(
    *,
    autoescape: bool = True,
    finalize: Callable[..., Any] | None = None,
) -> jinja2.Environment:
    """Where the templates of a page are found; what a template names must be there."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
