"""Tables in text files: which of their columns are a model's, and the numbers in them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlsearch.inference.reading import NotReadable, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class Line(NamedTuple):
    """A line of a table that is not empty.

    Args:
        number: From 1, empty lines counted.
        cells: Its cells, without white space around them.
    """

    number: int
    cells: list[str]


class Row(NamedTuple):
    """What a model takes of a line.

    Args:
        number: Of the line.
        values: Of the model's columns, in its order.
    """

    number: int
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Table:
    """A table whose columns are known.

    Args:
        lines: Those with numbers.
        positions: Of each column of the model, in a line.
        width: Cells that a line must have.
        others: How many columns are none of the model's.
    """

    lines: list[Line]
    positions: list[int]
    width: int
    others: int

    def rows(self) -> Iterator[Row]:
        """The rows, one after the other.

        Raises:
            NotReadable: One is too short, or holds something else than numbers.
        """
        for number, cells in self.lines:
            if len(cells) < self.width:
                raise NotReadable(
                    f"line {number}: expected {self.width} cells, got {len(cells)}",
                )
            taken = [cells[position] for position in self.positions]
            yield Row(number, _numbers_in(taken, number))


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Open a table; its first line may name its columns.

    Args:
        path: Comma-separated, or by tabs where its name ends in ``.tsv``.
        columns: That the model takes.

    Raises:
        NotReadable: It is no table, is empty, or has other columns.
    """
    lines = _read_lines(path)
    if not lines:
        raise NotReadable("holds no rows")
    first = lines[0].cells
    takes = ", ".join(columns)
    others = len(first) - len(columns)
    has_header = any(_parse_number(cell) is None for cell in first)
    if not has_header:
        if others:
            raise NotReadable(f"expected {len(columns)} columns ({takes}), got {len(first)}")
        positions = list(range(len(columns)))
        return Table(lines, positions, len(first), others)
    absent = [column for column in columns if column not in first]
    if absent:
        raise NotReadable(
            f"the first line names no column {absent[0]!r} (it takes {takes})",
        )
    positions = [first.index(column) for column in columns]
    return Table(lines[1:], positions, len(first), others)


def _read_lines(path: Path) -> list[Line]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NotReadable(f"cannot be read as a table: {first_line(error)}") from None
    lines: list[Line] = []
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if any(cells):
            lines.append(Line(number, cells))
    return lines


def _numbers_in(cells: Sequence[str], line: int) -> NDArray[np.float32]:
    numbers: list[float] = []
    for cell in cells:
        number = _parse_number(cell)
        if number is None:
            raise NotReadable(f"line {line}: expected numbers, got {cell!r}")
        numbers.append(number)
    x = np.array(numbers, dtype=np.float32)
    if not np.isfinite(x).all():
        raise NotReadable(f"line {line}: holds numbers that are not finite")
    return x


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
