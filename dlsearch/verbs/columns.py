"""Tables on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dlsearch.verbs.words import print_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_FOLDED = 500  # rows; rich takes half a millisecond for each cell


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()) -> None:
    """Print rows under their headings; columns are flushed right but for those named in `left`.

    A terminal gets columns that fold to its width. A pipe or a file, and a long table, get one line for each row, so
    that ``grep`` and ``sort`` work.
    """
    from dlsearch.search.watch import printable

    whole = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and len(whole) <= _FOLDED:
        _fold(headings, whole, left)
        return
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(headings, *whole, strict=True)]
    lines = [list(headings), ["─" * width for width in widths], *whole]
    for line in lines:
        cells = []
        for heading, cell, width in zip(headings, line, widths, strict=True):
            room = " " * (width - cell_len(cell))
            cells.append(cell + room if heading in left else room + cell)
        print_lines("  ".join(cells).rstrip())


def _fold(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(Text(heading), justify="left" if heading in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # a str would be read as markup
    Console().print(table)
