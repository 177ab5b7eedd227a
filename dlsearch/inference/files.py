"""From files on the command line to the inputs of a model: pictures, arrays and tables.

Pictures are converted as the training data were: to grey or colour, resized by bilinear
interpolation where their size is another (which a notice says), scaled to [0, 1], standardised.
Nothing is unpickled.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlsearch.core.errors import ConfigError
from dlsearch.inference.reading import NotReadable, first_line
from dlsearch.inference.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from dlsearch.inference.description import InputSpec

PICTURES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
ARRAYS = {".npy"}
TABLES = {".csv", ".tsv"}
#: How far from the training images' mean, in their deviations, a picture is remarked on.
FAR = 1.9
#: How far the logarithms of two ratios of sides may differ before a resized picture is called
#: distorted.
_SAME_RATIO = 0.1


class NamedInput(NamedTuple):
    """An input of a model.

    Args:
        name: Of the file, and the place in it where it holds several.
        array: (*shape), standardised.
    """

    name: str
    array: NDArray[np.float32]


@dataclass
class Reader:
    """Reads inputs, and counts what was done to them.

    Args:
        spec: The model's ``input``.
        invert: Take light for dark.
        notices: What was done, and how often.
    """

    spec: InputSpec
    invert: bool = False
    notices: Counter[str] = field(default_factory=Counter)

    def read(self, path: Path) -> Iterator[NamedInput]:
        """The inputs in one file.

        Raises:
            NotReadable: It is nothing that this model takes.
        """
        kind = self.spec["kind"]
        suffix = path.suffix.lower()
        if suffix in ARRAYS:
            yield from self._read_array(path)
        elif kind == "table":
            if suffix not in TABLES:
                accepted = listed(TABLES | ARRAYS)
                raise NotReadable(f"expected a table ({accepted}): the model takes rows of numbers")
            yield from self._read_table(path)
        elif kind == "image":
            if suffix in TABLES:
                raise NotReadable("expected a picture: the model takes images")
            picture = self._read_picture(path)
            yield NamedInput(str(path), self._standardise_image(picture))
        else:
            raise NotReadable(
                f"expected {listed(ARRAYS)}: how this model's inputs are made is not stored with it"
            )

    # -- pictures ----------------------------------------------------------------------------------
    def _shape_of_image(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self._shape()
        return channels, height, width

    def _shape(self) -> tuple[int, ...]:
        """Of one input; empty where it is not known."""
        return tuple(self.spec.get("shape") or ())

    def _statistics(self, dtype: type[np.floating[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mean and deviation of each channel or column."""
        mean = np.asarray(self.spec["mean"], dtype=dtype)
        std = np.asarray(self.spec["std"], dtype=dtype)
        return mean, std

    def _read_picture(self, path: Path) -> NDArray[np.float32]:
        """(C, H, W), in [0, 1]."""
        from PIL import Image, UnidentifiedImageError

        channels, height, width = self._shape_of_image()
        try:
            with Image.open(path) as file:
                pixels = self._decode_picture(file)
        except UnidentifiedImageError:
            raise NotReadable("is no image") from None
        except Image.DecompressionBombError:
            raise NotReadable("has more pixels than is sane for an image") from None
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, NotReadable):
                raise
            raise NotReadable(f"cannot be decoded: {first_line(error)}") from None
        channels_first = pixels.reshape(
            height,
            width,
            channels,
        ).transpose(
            2,
            0,
            1,
        )
        x = channels_first / np.float32(255)
        if self.invert:
            x = 1 - x
        return x.astype(np.float32)

    def _decode_picture(self, file: Image.Image) -> NDArray[np.uint8]:
        """The pixels, in the size and the channels that the model takes.

        Raises:
            NotReadable: The range of its pixels is not known.
        """
        from PIL import Image

        channels, height, width = self._shape_of_image()
        image = file
        if image.mode.startswith("I;16"):
            high_bytes = np.asarray(image) >> 8
            image = Image.fromarray(high_bytes.astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise NotReadable(
                f"has 32-bit pixels ({image.mode}), whose range is not known: convert it to 8 bits"
            )
        self._note_mode(image, channels)
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            self._note_size(image.size, (width, height))
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)

    def _note_mode(self, image: Any, channels: int) -> None:
        is_transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        if is_transparent:
            self.notices["transparency left out"] += 1
        is_grey = image.mode in ("1", "L", "LA")
        if channels == 1 and not is_grey:
            self.notices["colour converted to grey"] += 1
        elif channels == 3 and is_grey:
            self.notices["grey converted to colour"] += 1
        if getattr(image, "n_frames", 1) > 1:
            self.notices["first of several frames taken"] += 1

    def _note_size(self, had: tuple[int, int], wanted: tuple[int, int]) -> None:
        had_width, had_height = had
        width, height = wanted
        text = f"resized to {width}×{height}"
        had_ratio = had_width / had_height
        change = math.log(had_ratio / (width / height))
        if abs(change) > _SAME_RATIO:
            text += ", the sides' ratio changed"
        self.notices[text] += 1

    def _standardise_image(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, H, W) in [0, 1], standardised by channel."""
        mean, std = self._statistics(np.float64)
        of_channels = x.mean(axis=(1, 2))
        deviations = (of_channels - mean) / std
        level = float(np.mean(deviations))
        if abs(level) > FAR:
            word = "lighter" if level > 0 else "darker"
            text = f"much {word} than the training images (--invert takes light for dark)"
            self.notices[text] += 1
        of_pixels = (slice(None), None, None)
        subtracted = mean[of_pixels].astype(np.float32)
        divisor = std[of_pixels].astype(np.float32)
        centred = x - subtracted
        found = centred / divisor
        return found.astype(np.float32)

    # -- arrays ------------------------------------------------------------------------------------
    def _read_array(self, path: Path) -> Iterator[NamedInput]:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise NotReadable(f"cannot be read as an array: {first_line(error)}") from None
        if array.dtype.kind not in "buif":
            raise NotReadable(f"expected an array of numbers, got {array.dtype}")
        rows, may_be_several = self._split_batch(array)
        for index, row in enumerate(rows):
            name = f"{path}[{index}]" if may_be_several else str(path)
            yield NamedInput(name, self._convert_numbers(np.asarray(row)))

    def _split_batch(self, array: NDArray[Any]) -> tuple[NDArray[Any], bool]:
        """(N, …), and whether there may be several.

        Images may have their channels last, or none when they are grey.
        """
        shape = self._shape()
        if not shape:
            return array, True
        accepted = [shape]
        if self.spec["kind"] == "image":
            channels, *sides = shape
            accepted.append((*sides, channels))
            if channels == 1:
                accepted.append(tuple(sides))
        for form in accepted:
            if array.shape == form:
                return array[None], False
            is_batch = array.ndim == len(form) + 1
            if is_batch and array.shape[1:] == form:
                return array, True
        forms = [", ".join(map(str, form)) for form in accepted]
        wanted = " or ".join(f"({form})" for form in forms)
        raise NotReadable(
            f"expected an array of shape {wanted}, or many of these, got {array.shape}"
        )

    def _convert_numbers(self, row: NDArray[Any]) -> NDArray[np.float32]:
        kind = self.spec["kind"]
        if kind == "image":
            return self._standardise_image(self._convert_pixels(row))
        numbers: NDArray[np.float32] = row.astype(np.float32)
        if not np.isfinite(numbers).all():
            raise NotReadable("holds numbers that are not finite")
        return self._scale_row(numbers) if kind == "table" else numbers

    def _convert_pixels(self, row: NDArray[Any]) -> NDArray[np.float32]:
        """(C, H, W), in [0, 1]."""
        channels, height, width = self._shape_of_image()
        if row.shape != (channels, height, width):
            row = row.reshape(height, width, channels).transpose(2, 0, 1)
        largest = 255 if row.dtype.kind in "ui" else 1
        x: NDArray[np.float32] = (row / largest).astype(np.float32)
        is_in_range = np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
        if not is_in_range:
            raise NotReadable(
                "expected whole numbers from 0 to 255, or others from 0 to 1, not standardised"
            )
        if self.invert:
            x = (1 - x).astype(np.float32)
        return x

    # -- tables ------------------------------------------------------------------------------------
    def _scale_row(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        mean, std = self._statistics(np.float32)
        scaled = (x - mean) / std
        return scaled.astype(np.float32)

    def _read_table(self, path: Path) -> Iterator[NamedInput]:
        table = read_table(path, self.spec["columns"])
        if table.others:
            word = "columns" if table.others > 1 else "column"
            self.notices[f"{table.others} other {word} left out"] += 1
        for number, values in table.rows():
            yield NamedInput(f"{path}:{number}", self._scale_row(values))


def find(words: Sequence[str], kind: str) -> tuple[list[Path], int]:
    """The files that `words` name, folders searched through, and how many others these held.

    Raises:
        ConfigError: One is not there, or a folder holds nothing of the kind.
    """
    wanted = set(ARRAYS)
    if kind == "table":
        wanted |= TABLES
    elif kind == "image":
        wanted |= PICTURES
    files: list[Path] = []
    left_out = 0
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            every = sorted(inner for inner in path.rglob("*") if inner.is_file())
            found = [inner for inner in every if inner.suffix.lower() in wanted]
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
    names = sorted(suffix.lstrip(".") for suffix in suffixes)
    return ", ".join(names)
