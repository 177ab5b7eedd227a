"""Batches of images that are read from disk by worker processes.

They are for what does not fit in memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dlsearch.systems.shared.loader import InOrder, Shuffled, count_batches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dlsearch.systems.shared.split import Indices
    from dlsearch.systems.vision.data.augment import ImageTransform


class ImageFiles(Dataset[tuple[Tensor, int, int]]):
    """Decodes and resizes one file at a time; all that is random happens later, to batches.

    Args:
        root: Folder that the paths start from.
        paths: One file each.
        labels: (N,) classes.
        shape: (channels, height, width) to convert and resize to.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Indices,
        shape: tuple[int, int, int],
    ) -> None:
        self.root = root
        self.labels = labels
        self.shape = shape
        # Bytes, as the file system has them, and no Python objects, whose counts would unshare
        # workers' memory.
        names = [os.fsencode(path) for path in paths]
        self.paths = np.array(names, dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """(C, H, W)."""
        from PIL import Image

        channels, height, width = self.shape
        path = self.root / os.fsdecode(self.paths[index])
        with Image.open(path) as file:
            image = file.convert("L" if channels == 1 else "RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.array(image)
        channels_last = pixels.reshape(height, width, channels)
        return np.ascontiguousarray(channels_last.transpose(2, 0, 1))

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        pixels = torch.from_numpy(self.pixels(index))
        label = int(self.labels[index])
        return pixels, label, index


class StreamingLoader:
    """(x, y) batches out of a DataLoader of (bytes, label, index).

    They are augmented and standardised on the device.

    Because the randomness is applied here by (seed, epoch, index), the number of workers changes
    nothing.

    Args:
        files: All images.
        index: The samples to use.
        batch_size: Samples a batch.
        shuffle: A new order in each epoch, by f(seed, epoch).
        seed: Of the order.
        drop_last: Leave out a last batch that is smaller than the others.
        transform: From stored to seen.
        num_workers: Processes that decode.
        device: Where batches are made.
        rank: Of this process, of `world` ones that share each epoch.
        world: Number of processes.
    """

    def __init__(
        self,
        files: ImageFiles,
        index: Indices,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        transform: ImageTransform,
        num_workers: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.index = index
        self.transform = transform
        self.device = device
        self.sampler = Shuffled(len(index), seed) if shuffle else InOrder(len(index))
        self.batch_sampler = _Batches(
            self.sampler,
            index,
            batch_size,
            drop_last,
            rank,
            world,
            even=shuffle,
        )
        self._loader = DataLoader(
            files,
            batch_sampler=self.batch_sampler,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            persistent_workers=num_workers > 0,
        )

    def to(self, device: torch.device | str) -> StreamingLoader:
        """Make batches on `device` from now on."""
        self.device = torch.device(device)
        return self

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.sampler.epoch
        for batch in self._loader:
            images, labels, index = (each.to(self.device, non_blocking=True) for each in batch)
            yield self.transform(images, index, epoch), labels


class _Batches:
    """Lists of sample numbers, one a batch."""

    def __init__(
        self,
        order: Shuffled | InOrder,
        index: Indices,
        batch_size: int,
        drop_last: bool,
        rank: int,
        world: int,
        even: bool,
    ) -> None:
        self.order = order
        self.index = index
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.rank = rank
        self.world = world
        size = len(index)
        if even and world > 1:
            self.n_samples = size // world
        else:
            self.n_samples = len(range(rank, size, world))

    def __len__(self) -> int:
        return count_batches(
            self.n_samples,
            self.batch_size,
            drop_last=self.drop_last,
        )

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order.order().numpy()
        own = order[self.rank :: self.world]
        numbers = self.index[own[: self.n_samples]]
        for batch in range(len(self)):
            start = batch * self.batch_size
            yield numbers[start : start + self.batch_size].tolist()
