"""Image folders of any size, one folder a class, streamed from disk; ImageNet is one."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlsearch.systems.shared.cache import key_of, publish, write_json
from dlsearch.systems.shared.data_module import SplitData
from dlsearch.systems.shared.split import (
    Indices,
    check_disjoint,
    check_size,
    class_counts,
    count,
    take,
)
from dlsearch.systems.vision.data.augment import Augment, ImageTransform
from dlsearch.systems.vision.data.image import (
    channel_statistics,
    check_statistics,
    histograms,
    image_spec,
)
from dlsearch.systems.vision.data.listing import Listing, list_images, shown
from dlsearch.systems.vision.data.streaming import ImageFiles, StreamingLoader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlsearch.systems.shared.descriptions import InputSpec, SplitRecord

_SAMPLED = 2048  # images that estimate mean and deviation
#: Of what the cache holds: 1 was named after the times of folders, and had a line for each path.
_VERSION = 2
#: The paths, and the separator between them: the one byte that no file name has.
_PATHS = "paths.bin"
_BETWEEN = b"\0"


class ImageFolder(SplitData):
    """A tree of images in torchvision's ``ImageFolder`` layout.

    Either ``root/train/<class>/*``, with ``root/val`` and ``root/test`` where there are such, or
    ``root/<class>/*``. What is not given is cut from training: `val_size` of it, `test_size` of it.

    Args:
        root: The tree.
        cache: Folder for the list of files, splits and digests.
        shape: (channels, height, width) that images are converted and resized to.
        num_classes: Number of class folders; null takes what is found.
        batch_size: Of training.
        eval_batch_size: Of validation and test.
        train_size: Limit on the training samples: a count, a fraction, or null for all.
        val_size: Validation samples, where there is no ``val`` folder: a count or a fraction.
        test_size: Test samples, where there is no ``test`` folder: a count or a fraction.
        split_seed: Of the split alone.
        seed: Of order and augmentation.
        mean: Of each channel, of values in [0, 1]; null computes it on (a sample of) the training
            split.
        std: Standard deviations, in the same way.
        augment: What may happen to a training image.
        drop_last: Leave out the last training batch where it is smaller than the others.
        num_workers: Processes that decode images, for each loader.
        hash_content: Digests of the files' bytes, which are all read once for it; false: of names
            and sizes.
    """

    name = "image_folder"

    def __init__(
        self,
        *,
        root: str,
        cache: str,
        shape: Sequence[int],
        num_classes: int | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        train_size: float | None = None,
        val_size: float = 0.1,
        test_size: float = 0.1,
        split_seed: int = 0,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: Augment | None = None,
        drop_last: bool = False,
        num_workers: int = 2,
        hash_content: bool = True,
    ) -> None:
        super().__init__(
            cache=cache,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            train_size=train_size,
            val_size=val_size,
            split_seed=split_seed,
            seed=seed,
            drop_last=drop_last,
        )
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
            raise ValueError(f"shape: expected [1 or 3, height, width], got {list(shape)}")
        if num_workers < 0:
            raise ValueError(f"num_workers: expected 0 or more, got {num_workers}")
        check_size(test_size, "test_size")
        self.root = Path(root)
        self.shape = (shape[0], shape[1], shape[2])
        self.num_classes = num_classes
        self.test_size = test_size
        self.augment = augment
        self.mean, self.std = check_statistics(mean, std, shape[0])
        self.num_workers = num_workers
        self.hash_content = hash_content

    # -- what there is -----------------------------------------------------------------------------
    @functools.cached_property
    def _listing(self) -> Listing:
        """The images as this module first saw them.

        A training does not look at its folders again.
        """
        return list_images(self.root)

    @functools.cached_property
    def _key(self) -> str:
        arguments = [
            self.shape,
            self.train_size,
            self.val_size,
            self.test_size,
            self.split_seed,
            self.hash_content,
        ]
        parts = {
            "root": shown(str(self.root.resolve())),
            "files": self._listing.key(),
            "arguments": arguments,
        }
        return key_of({**parts, "version": _VERSION})

    def split_folder(self) -> Path:
        """Named after the arguments, and after names, sizes and times of all images."""
        return self.cache / f"{self.name}-{self._key}"

    def prepare_data(self) -> None:
        """List, split and hash the files, once.

        Nothing is decoded but what estimates mean and deviation.
        """
        publish(self.split_folder(), self._write)
        self._check_classes(self.record()["num_classes"])

    def _check_classes(self, found: int) -> None:
        if self.num_classes not in (None, found):
            raise ValueError(
                f"num_classes: expected {found}, as there are class folders, got {self.num_classes}"
            )

    def _write(self, folder: Path) -> None:
        listing = self._listing
        classes = [shown(name) for name in listing.classes]
        self._check_classes(len(classes))
        paths: list[str] = []
        labels: list[int] = []
        splits: dict[str, Indices] = {}
        for part, images in listing.parts.items():
            start = len(paths)
            paths += [image.path for image in images]
            labels += [image.label for image in images]
            splits[part] = np.arange(start, len(paths))
        strata = np.asarray(labels, dtype=np.int64)
        self._cut_splits(strata, splits)
        check_disjoint(splits)
        hashes = [self._hash(path) for path in paths]
        for part, index in splits.items():
            np.save(folder / f"{part}_index.npy", index)
        (folder / _PATHS).write_bytes(_BETWEEN.join(map(os.fsencode, paths)))
        np.save(folder / "labels.npy", strata)
        write_json(
            folder / "split.json",
            self._record(
                classes,
                paths,
                strata,
                splits,
                hashes,
            ),
        )

    def _cut_splits(self, strata: Indices, splits: dict[str, Indices]) -> None:
        """Cut what is not given from training.

        Args:
            strata: Class of every image.
            splits: The folders that there are; ``test`` and ``val`` are added where they are not,
                and ``train`` loses what they get.
        """
        rng = np.random.default_rng(self.split_seed)
        pool = splits["train"]
        for part, size in (("test", self.test_size), ("val", self.val_size)):
            if part not in splits:
                number = count(size, len(pool), f"{part}_size")
                splits[part], pool = take(strata, pool, number, rng)
        number = count(self.train_size, len(pool), "train_size")
        splits["train"], _ = take(strata, pool, number, rng)
        if not len(splits["train"]):
            raise ValueError(
                "root: expected images to train on, found none (hint: root/train/<class>/*.png)"
            )

    def _record(
        self,
        classes: list[str],
        paths: list[str],
        labels: Indices,
        splits: dict[str, Indices],
        hashes: list[bytes],
    ) -> SplitRecord:
        record: SplitRecord = {
            "name": self.root.resolve().name,
            "shape": list(self.shape),
            "num_classes": len(classes),
            "classes": classes,
            "sizes": {},
            "digests": {},
            "class_counts": {},
            "overlap": {"index": 0, "content": 0},
            "statistics": {},
        }
        for part, index in splits.items():
            record["sizes"][part] = len(index)
            record["digests"][part] = _digest(hashes, labels, index)
            record["class_counts"][part] = class_counts(labels[index], len(classes))
        if self.hash_content:
            record["overlap"]["content"] = _count_twins(hashes, splits)
        if not self.mean:
            files = ImageFiles(self.root, paths, labels, self.shape)
            record["statistics"] = self._statistics(files, splits)
        return record

    def _hash(self, path: str) -> bytes:
        file = self.root / path
        if self.hash_content:
            with file.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").digest()
        size = file.stat().st_size
        text = os.fsencode(path) + f"\n{size}".encode()
        return hashlib.sha256(text).digest()

    def _statistics(
        self,
        files: ImageFiles,
        splits: dict[str, Indices],
    ) -> dict[str, list[float]]:
        """Over a seeded sample of training images."""
        rng = np.random.default_rng(self.split_seed)
        train = splits["train"]
        chosen = rng.permutation(train)[:_SAMPLED]
        histogram = np.zeros((self.shape[0], 256))
        for index in chosen:
            histogram += histograms(files.pixels(int(index))[None])
        return channel_statistics(histogram)

    # -- batches -----------------------------------------------------------------------------------
    def files(self) -> ImageFiles:
        """All images, in the order that indices count."""
        labels = np.load(self.split_folder() / "labels.npy")
        return ImageFiles(self.root, self._paths(), labels, self.shape)

    def _paths(self) -> list[str]:
        content = (self.split_folder() / _PATHS).read_bytes()
        return [os.fsdecode(path) for path in content.split(_BETWEEN)]

    def loader(self, split: str) -> StreamingLoader:
        """Batches of ``train``, ``val`` or ``test``, made on the trainer's device."""
        if split == "test":
            self.check_unsealed()
        self.prepare_data()
        is_training = split == "train"
        statistics = self.record()["statistics"]
        transform = ImageTransform(
            mean=self.mean or statistics["mean"],
            std=self.std or statistics["std"],
            augment=self.augment if is_training else None,
            seed=self.seed,
        )
        return StreamingLoader(
            self.files(),
            self.index(split),
            batch_size=self.batch_size if is_training else self.eval_batch_size,
            shuffle=is_training and self.shuffles,
            seed=self.seed,
            drop_last=is_training and self.drop_last,
            transform=transform,
            num_workers=self.num_workers,
            device=self.device,
            **self.share,
        )

    def test_files(self) -> list[Path]:
        """The ``test`` folder; where there is none, the files that were drawn."""
        if (self.root / "test").is_dir():
            return [self.root / "test"]
        paths = self._paths()
        drawn = np.load(self.split_folder() / "test_index.npy")
        return [self.root / paths[number] for number in drawn.tolist()]

    def input_spec(self) -> InputSpec:
        """The shape of an image, the statistics that standardise it, and the classes."""
        return image_spec(self.shape, self.mean, self.std, self.record())

    def test_example(self, index: int) -> NDArray[np.uint8]:
        """A test image as nets see it before standardisation: (H, W, C) uint8.

        Raises:
            SealedTestSet: :meth:`unseal` was not called.
        """
        self.check_unsealed()
        drawn = np.load(self.split_folder() / "test_index.npy")
        pixels = self.files().pixels(int(drawn[index]))
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _digest(hashes: list[bytes], labels: Indices, index: Indices) -> str:
    """SHA-256 of the files and classes of a split, in order."""
    state = hashlib.sha256()
    for number in index:
        state.update(hashes[number])
        state.update(labels[number].tobytes())
    return state.hexdigest()


def _count_twins(hashes: list[bytes], splits: dict[str, Indices]) -> int:
    """Held-out images that have a twin in a split that comes before theirs."""
    twins = 0
    seen = {hashes[number] for number in splits["train"]}
    for part in ("val", "test"):
        content = [hashes[number] for number in splits[part]]
        twins += sum(each in seen for each in content)
        seen.update(content)
    return twins
