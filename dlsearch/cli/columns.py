"""Tables on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dlsearch.cli.arguments import print_lines
from dlsearch.console.terminal import console, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_FOLDED = 500  # rows; rich takes half a millisecond for each cell


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()
) -> None:
    """Print rows under their headings; columns are flushed right but for those named in `left`.

    A terminal gets columns that fold to its width. A pipe or a file, and a long table, get one line
    for each row, so that ``grep`` and ``sort`` work.
    """
    headings = [shown(heading) for heading in headings]
    whole = [[shown(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and len(whole) <= _FOLDED:
        _fold(headings, whole, left)
        return
    print_lines(*_aligned(headings, whole, left))


def _aligned(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Collection[str],
) -> list[str]:
    """A line for each row, each column as wide as its widest cell."""
    from rich.cells import cell_len

    columns = zip(headings, *rows, strict=True)
    widths = [max(map(cell_len, column)) for column in columns]
    rule = ["─" * width for width in widths]
    lines = []
    for row in (headings, rule, *rows):
        cells = []
        for heading, cell, width in zip(headings, row, widths, strict=True):
            padding = " " * (width - cell_len(cell))
            cells.append(cell + padding if heading in left else padding + cell)
        lines.append("  ".join(cells).rstrip())
    return lines


def _fold(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(
            Text(heading), justify="left" if heading in left else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # a str would be read as markup
    console().print(table)
