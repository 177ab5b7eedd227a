"""What images a tree of folders holds.

Names, sizes and times, at any depth, tell that they have changed.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


#: Size of a file, time of the last change of its content, and of the last change of anything about
#: it, which nobody can set: an overwrite that restores the former is seen by the latter.
Stamp = tuple[int, int, int]
#: Which folder it is, whatever its name: device and inode.
_Identity = tuple[int, int]


class Image(NamedTuple):
    """An image file.

    Args:
        path: Relative to the tree; what is no UTF-8 in it is escaped by surrogates, as Python does
            for file names.
        label: Its class.
        stamp: See :data:`Stamp`.
    """

    path: str
    label: int
    stamp: Stamp


@dataclass(frozen=True)
class Listing:
    """All images of a tree.

    Args:
        classes: Names of the class folders, sorted.
        parts: The images of ``train``, ``val`` and ``test``, as far as there are such folders, in
            order.
    """

    classes: list[str]
    parts: dict[str, list[Image]]

    def key(self) -> str:
        """A digest that changes when a file or a class comes, goes, is renamed or is written."""
        state = hashlib.sha256()
        for name in self.classes:
            state.update(os.fsencode(name))
            state.update(b"\0")
        for part, images in self.parts.items():
            state.update(f"\0{part}\0".encode())
            for image in images:
                state.update(os.fsencode(image.path))
                state.update(f"\0{image.stamp!r}\0".encode())
        return state.hexdigest()


def list_images(root: Path) -> Listing:
    """Go through a tree in the layout of torchvision's ``ImageFolder``, once.

    Links to folders are followed, as torchvision follows them, but not in circles.

    Args:
        root: With ``train/<class>`` (and ``val``, ``test``), or ``<class>``.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no class folders, a class that training has not, or a file that cannot be
            looked at.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"root: expected a folder of images, there is none at {root}")
    folders = _folders_of_parts(root)
    classes = _folder_names(folders["train"])
    if not classes:
        raise ValueError(f"root: expected one folder a class, {folders['train']} has none")
    parts: dict[str, list[Image]] = {}
    for part, folder in folders.items():
        strange = set(_folder_names(folder)) - set(classes)
        if strange:
            raise ValueError(f"root: class {min(strange)!r} of {part} is not in training")
        prefix = "" if folder == root else f"{part}/"
        parts[part] = _images_of_part(folder, prefix, classes)
    return Listing(classes, parts)


def _folders_of_parts(root: Path) -> dict[str, Path]:
    """Where ``train`` (and ``val``, ``test``) lie; the tree itself is ``train`` without such."""
    folders: dict[str, Path] = {}
    for part in ("train", "val", "test"):
        folder = root / part
        if folder.is_dir():
            folders[part] = folder
    return folders if "train" in folders else {"train": root}


def _images_of_part(folder: Path, prefix: str, classes: list[str]) -> list[Image]:
    images: list[Image] = []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            images += _images_of_class(folder / name, f"{prefix}{name}", label)
    return images


def shown(name: str) -> str:
    r"""A file's name as text that any file takes: ``\xff`` for a byte that is no UTF-8."""
    content = os.fsencode(name)
    return content.decode("utf-8", "backslashreplace")


def _folder_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return sorted(names)


def _images_of_class(folder: Path, prefix: str, label: int) -> list[Image]:
    found: list[Image] = []
    for path, stamp in _walk(str(folder), prefix, ()):
        found.append(Image(path, label, stamp))
    return sorted(found, key=lambda image: image.path.split("/"))


def _walk(
    folder: str,
    prefix: str,
    above: tuple[_Identity, ...],
) -> Iterator[tuple[str, Stamp]]:
    """Paths and stamps of the images below a folder; `above` are the folders that lead to it."""
    here = Path(folder).stat()
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{prefix}/{entry.name}"
            if entry.is_dir():
                yield from _walk(entry.path, path, (*above, identity))
            elif entry.name.lower().endswith(EXTENSIONS):
                yield path, _stamp(entry, path)


def _stamp(entry: os.DirEntry[str], path: str) -> Stamp:
    try:
        found = entry.stat()
    except OSError as error:
        raise ValueError(f"root: {shown(path)} cannot be looked at: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
