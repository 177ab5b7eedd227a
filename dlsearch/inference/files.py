"""From files on the command line to the inputs of a model: pictures, arrays and tables.

Pictures are converted as the training data were: to grey or colour, resized by bilinear
interpolation where their size is another (which a notice says), scaled to [0, 1], standardised.
Nothing is unpickled.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

PICTURES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
ARRAYS = {".npy"}
TABLES = {".csv", ".tsv"}
#: How far from the training images' mean, in their deviations, a picture is remarked on.
FAR = 1.9


class NotReadable(ValueError):
    """One file cannot be an input; the others may."""


@dataclass
class Reader:
    """Reads inputs, and counts what was done to them.

    Args:
        spec: The model's ``input``.
        invert: Take light for dark.
        notices: What was done, and how often.
    """

    spec: dict[str, Any]
    invert: bool = False
    notices: Counter[str] = field(default_factory=Counter)

    def read(self, path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Names and standardised inputs, (*shape), of one file.

        Raises:
            NotReadable: It is nothing that this model takes.
        """
        kind = self.spec["kind"]
        suffix = path.suffix.lower()
        if suffix in ARRAYS:
            yield from self._read_array(path)
        elif kind == "table":
            if suffix not in TABLES:
                raise NotReadable(
                    f"expected a table ({listed(TABLES | ARRAYS)}): the model takes rows of numbers"
                )
            yield from self._read_table(path)
        elif kind == "image":
            if suffix in TABLES:
                raise NotReadable("expected a picture: the model takes images")
            yield str(path), self._standardise_image(self._read_picture(path))
        else:
            raise NotReadable(
                f"expected {listed(ARRAYS)}: how this model's inputs are made is not stored with it"
            )

    # -- pictures ----------------------------------------------------------------------------------
    def _read_picture(self, path: Path) -> NDArray[np.float32]:
        """(C, H, W), in [0, 1]."""
        from PIL import Image, UnidentifiedImageError

        channels, height, width = self.spec["shape"]
        try:
            with Image.open(path) as file:
                image: Image.Image = file
                if image.mode.startswith("I;16"):
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                elif image.mode in ("I", "F"):
                    raise NotReadable(
                        f"has 32-bit pixels ({image.mode}), whose range is not known: convert it to 8 bits"
                    )
                self._note_mode(image, channels)
                image = image.convert("L" if channels == 1 else "RGB")
                if image.size != (width, height):
                    self._note_size(image.size, (width, height))
                    image = image.resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.asarray(image)
        except UnidentifiedImageError:
            raise NotReadable("is no image") from None
        except Image.DecompressionBombError:
            raise NotReadable("has more pixels than is sane for an image") from None
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, NotReadable):
                raise
            raise NotReadable(f"cannot be decoded: {_first_line(error)}") from None
        x = pixels.reshape(height, width, channels).transpose(2, 0, 1) / np.float32(255)
        return (1 - x if self.invert else x).astype(np.float32)

    def _note_mode(self, image: Any, channels: int) -> None:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            self.notices["transparency left out"] += 1
        grey = image.mode in ("1", "L", "LA")
        if channels == 1 and not grey:
            self.notices["colour converted to grey"] += 1
        elif channels == 3 and grey:
            self.notices["grey converted to colour"] += 1
        if getattr(image, "n_frames", 1) > 1:
            self.notices["first of several frames taken"] += 1

    def _note_size(self, had: tuple[int, int], wanted: tuple[int, int]) -> None:
        (a, b) = had
        (width, height) = wanted
        text = f"resized to {width}×{height}"
        if abs(math.log((a / b) / (width / height))) > 0.1:
            text += ", the sides' ratio changed"
        self.notices[text] += 1

    def _standardise_image(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, H, W) in [0, 1], standardised by channel."""
        mean, std = (np.asarray(self.spec[key], dtype=np.float64) for key in ("mean", "std"))
        level = float(np.mean((x.mean(axis=(1, 2)) - mean) / std))
        if abs(level) > FAR:
            word = "lighter" if level > 0 else "darker"
            self.notices[
                f"much {word} than the training images (--invert takes light for dark)"
            ] += 1
        found = (x - mean[:, None, None].astype(np.float32)) / std[:, None, None].astype(np.float32)
        return found.astype(np.float32)

    # -- arrays ------------------------------------------------------------------------------------
    def _read_array(self, path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise NotReadable(f"cannot be read as an array: {_first_line(error)}") from None
        if array.dtype.kind not in "buif":
            raise NotReadable(f"expected an array of numbers, got {array.dtype}")
        rows, many = self._split_batch(array)
        for index, row in enumerate(rows):
            yield f"{path}[{index}]" if many else str(path), self._convert_numbers(np.asarray(row))

    def _split_batch(self, array: NDArray[Any]) -> tuple[NDArray[Any], bool]:
        """(N, …), and whether there may be several.

        Images may have their channels last, or none when they are grey.
        """
        shape = tuple(self.spec["shape"] or ())
        if not shape:
            return array, True
        accepted = [shape]
        if self.spec["kind"] == "image":
            channels, *sides = shape
            accepted += [(*sides, channels)] + ([tuple(sides)] if channels == 1 else [])
        for form in accepted:
            if array.shape == form:
                return array[None], False
            if array.shape[1:] == form and array.ndim == len(form) + 1:
                return array, True
        wanted = " or ".join(f"({', '.join(map(str, form))})" for form in accepted)
        raise NotReadable(
            f"expected an array of shape {wanted}, or many of these, got {array.shape}"
        )

    def _convert_numbers(self, row: NDArray[Any]) -> NDArray[np.float32]:
        if self.spec["kind"] == "image":
            channels, height, width = self.spec["shape"]
            if row.shape != (channels, height, width):
                row = row.reshape(height, width, channels).transpose(2, 0, 1)
            x = (row / (255 if row.dtype.kind in "ui" else 1)).astype(np.float32)
            if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
                raise NotReadable(
                    "expected whole numbers from 0 to 255, or others from 0 to 1, not standardised"
                )
            return self._standardise_image((1 - x).astype(np.float32) if self.invert else x)
        numbers: NDArray[np.float32] = row.astype(np.float32)
        if not np.isfinite(numbers).all():
            raise NotReadable("holds numbers that are not finite")
        return self._scale_row(numbers) if self.spec["kind"] == "table" else numbers

    # -- tables ------------------------------------------------------------------------------------
    def _scale_row(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        mean, std = (np.asarray(self.spec[key], dtype=np.float32) for key in ("mean", "std"))
        return ((x - mean) / std).astype(np.float32)

    def _read_table(self, path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
        columns: list[str] = self.spec["columns"]
        rows = _read_cells(path)
        first = next((row for row in rows if any(row)), None)
        if first is None:
            raise NotReadable("holds no rows")
        order, header = self._order_columns(first, columns)
        for number, row in enumerate(rows, 1):
            if not any(row) or (header and row is first):
                continue
            if len(row) < len(first):
                raise NotReadable(f"line {number}: expected {len(first)} cells, got {len(row)}")
            x = _numbers_of_cells([row[i] for i in order], number)
            yield f"{path}:{number}", self._scale_row(x)

    def _order_columns(self, first: Sequence[str], columns: list[str]) -> tuple[list[int], bool]:
        """The position of each column of the model, and whether the first line names them."""
        if all(_parse_number(cell) is not None for cell in first):
            if len(first) != len(columns):
                raise NotReadable(
                    f"expected {len(columns)} columns ({', '.join(columns)}), got {len(first)}"
                )
            return list(range(len(columns))), False
        absent = [c for c in columns if c not in first]
        if absent:
            raise NotReadable(
                f"the first line names no column {absent[0]!r} (it takes {', '.join(columns)})"
            )
        others = len(first) - len(columns)
        if others:
            self.notices[f"{others} other column{'s' if others > 1 else ''} left out"] += 1
        return [first.index(c) for c in columns], True


def _read_cells(path: Path) -> list[list[str]]:
    """The cells of a table, row by row."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NotReadable(f"cannot be read as a table: {_first_line(error)}") from None
    return [[cell.strip() for cell in row] for row in rows]


def _numbers_of_cells(cells: Sequence[str], line: int) -> NDArray[np.float32]:
    """The numbers in a row of a table."""
    try:
        x = np.array([float(cell) for cell in cells], dtype=np.float32)
    except ValueError:
        bad = next(cell for cell in cells if _parse_number(cell) is None)
        raise NotReadable(f"line {line}: expected numbers, got {bad!r}") from None
    if not np.isfinite(x).all():
        raise NotReadable(f"line {line}: holds numbers that are not finite")
    return x


def find(words: Sequence[str], kind: str) -> tuple[list[Path], int]:
    """The files that `words` name, folders searched through, and how many others these held.

    Raises:
        ConfigError: One is not there, or a folder holds nothing of the kind.
    """
    wanted = ARRAYS | (TABLES if kind == "table" else PICTURES if kind == "image" else set())
    files: list[Path] = []
    left_out = 0
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            every = sorted(p for p in path.rglob("*") if p.is_file())
            found = [p for p in every if p.suffix.lower() in wanted]
            if not found:
                raise ConfigError(word, f"the folder holds none of {listed(wanted)}")
            files += found
            left_out += len(every) - len(found)
        elif path.exists():
            files.append(path)
        else:
            raise ConfigError(word, "there is no such file")
    return files, left_out


def listed(suffixes: set[str]) -> str:
    """Names of formats, in order."""
    return ", ".join(sorted(s.lstrip(".") for s in suffixes))


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
