"""What a figure is in the report: its drawings, its words, its width."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Widths in CSS pixels: across the page, on a phone, two in a row, three in a row.
WIDE = 920
NARROW = 340
HALF = 420
THIRD = 300

#: Width in CSS pixels from which a drawing has space for long labels.
SPACIOUS = 500


class PlateSize(StrEnum):
    """How much of the page's width a figure takes."""

    FULL = "full"
    HALF = "half"
    THIRD = "third"


@dataclass(frozen=True)
class Plate:
    """One figure of the report.

    Attributes:
        key: Name of its file, and prefix of its ids.
        title: What it shows, in a few words.
        caption: How to read it.
        alt: What it says, for a reader who does not see it.
        wide: The drawing.
        narrow: The drawing for a phone, where the wide one would be too small to read.
        size: How much of the page's width it takes.
        of_evaluation: Whether it shows what the test measured; the kind of evaluation places it.
    """

    key: str
    title: str
    caption: str
    alt: str
    wide: Figure
    narrow: Figure | None = None
    size: PlateSize = PlateSize.HALF
    of_evaluation: bool = False


def is_spacious(width: float) -> bool:
    """Whether a drawing of this width has space for long labels."""
    return width > SPACIOUS


def capitalised(words: str) -> str:
    """The words with a capital at their beginning."""
    return words[:1].upper() + words[1:]
