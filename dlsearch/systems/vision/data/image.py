"""Image sets that fit in memory: scikit-learn's digits, MNIST, Fashion-MNIST, CIFAR-10."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlsearch.systems.shared.bundled import packaged
from dlsearch.systems.shared.cache import no_empty_folders
from dlsearch.systems.shared.data_module import ArrayData
from dlsearch.systems.shared.split import check_size, count, take
from dlsearch.systems.vision.data.augment import Augment, ImageTransform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dlsearch.systems.shared.descriptions import InputSpec, SplitRecord


class ImageArrays(ArrayData):
    """Images held as bytes, augmented and standardised by the batch on the training device.

    Args:
        root: Folder of the data set's files; what is missing is downloaded there.
        cache: Folder of decoded arrays.
        shape: (channels, height, width).
        num_classes: Number of classes.
        batch_size: Of training.
        eval_batch_size: Of validation and test.
        train_size: Limit on the training samples: a count, a fraction, or null for all.
        val_size: Validation samples, cut from the official training set: a count or a fraction.
        test_size: Test samples, where the data set has no official test set: a count or a fraction.
        split_seed: Of the split alone.
        seed: Of order and augmentation.
        mean: Of each channel, of values in [0, 1]; null computes it on the training split.
        std: Standard deviations, in the same way.
        augment: What may happen to a training image.
        drop_last: Leave out the last training batch where it is smaller than the others.
    """

    #: whether the test set is given, not cut
    official_test = False

    def __init__(
        self,
        *,
        root: str,
        cache: str,
        shape: Sequence[int],
        num_classes: int,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        train_size: float | None = None,
        val_size: float = 0.1,
        test_size: float | None = None,
        split_seed: int = 0,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: Augment | None = None,
        drop_last: bool = False,
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
        self.root = Path(root)
        self.check_shape(shape, num_classes)
        check_size(test_size, "test_size")
        if self.official_test and test_size is not None:
            raise ValueError(
                f"test_size: expected null, {self.name} has an official test set"
                " (hint: see data.val_size)"
            )
        self.test_size = test_size
        self.augment = augment
        self.mean, self.std = check_statistics(mean, std, self.shape[0])

    def statistics(
        self,
        inputs: NDArray[Any],
        labels: NDArray[Any],
    ) -> dict[str, list[float]]:
        """Mean and deviation of each channel."""
        return channel_statistics(histograms(inputs))

    def transform(self, split: str) -> ImageTransform:
        """Standardisation, and augmentation in training."""
        statistics = self.record()["statistics"]
        return ImageTransform(
            mean=self.mean or statistics["mean"],
            std=self.std or statistics["std"],
            augment=self.augment if split == "train" else None,
            seed=self.seed,
        )

    def input_spec(self) -> InputSpec:
        """The shape of an image, the statistics that standardise it, and the classes."""
        return image_spec(self.shape, self.mean, self.std, self.record())

    def test_example(self, index: int) -> NDArray[np.uint8]:
        """A test image as it is stored: (H, W, C) uint8.

        Raises:
            SealedTestSet: :meth:`unseal` was not called.
        """
        images, _ = self.arrays("test")
        pixels = images[index].numpy()
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def histograms(images: NDArray[np.uint8]) -> NDArray[Any]:
    """How often each channel has each value: (N, C, H, W) to (C, 256)."""
    counts: list[NDArray[Any]] = []
    for channel in range(images.shape[1]):
        values = images[:, channel].ravel()
        counts.append(np.bincount(values, minlength=256))
    return np.stack(counts)


def channel_statistics(counts: NDArray[Any]) -> dict[str, list[float]]:
    """Mean and deviation of each channel, of values in [0, 1], from (C, 256) :func:`histograms`."""
    level = np.arange(256) / 255
    total = counts.sum(1)
    mean = (counts * level).sum(1) / total
    deviation = level - mean[:, None]
    variance = (counts * deviation**2).sum(1) / total
    std = np.maximum(np.sqrt(variance), 1e-6)
    return {"mean": mean.tolist(), "std": std.tolist()}


def image_spec(
    shape: Sequence[int],
    mean: list[float] | None,
    std: list[float] | None,
    record: SplitRecord,
) -> InputSpec:
    """How a picture becomes an input.

    It is converted to `shape`, scaled to [0, 1], and standardised by channel.

    Args:
        shape: (channels, height, width).
        mean: Of each channel; None takes that of the training split.
        std: Standard deviations, in the same way.
        record: Of the splits.
    """
    found = record["statistics"]
    return {
        "kind": "image",
        "shape": list(shape),
        "mean": mean or found["mean"],
        "std": std or found["std"],
        "classes": list(record["classes"]),
    }


def check_statistics(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    channels: int,
) -> tuple[list[float] | None, list[float] | None]:
    """Both or neither, one number for each channel.

    Raises:
        ValueError: Otherwise.
    """
    for argument, value in (("mean", mean), ("std", std)):
        if (value is None) != (mean is None):
            raise ValueError(
                f"{argument}: expected mean and std both, or both null to compute them"
            )
        if value is not None and len(value) != channels:
            raise ValueError(
                f"{argument}: expected one number for each of the {channels} channels,"
                f" got {list(value)}"
            )
    if mean is None or std is None:
        return None, None
    if min(std) <= 0:
        raise ValueError(f"std: expected positive numbers, got {list(std)}")
    return list(mean), list(std)


class Digits(ImageArrays):
    """The 1,797 digits of 8×8 pixels that come with scikit-learn (Alpaydin and Kaynak, 1998).

    There is no file to download.
    """

    name = "digits"
    native_shape = (1, 8, 8)
    classes = tuple("0123456789")

    def source(self) -> Mapping[str, Any]:
        """There is no official test set: the arrays depend on the split too."""
        return {
            **super().source(),
            "test_size": self.test_size,
            "split_seed": self.split_seed,
        }

    def source_test_files(self) -> list[Path]:
        """All digits are in one file."""
        return packaged("digits.csv.gz")

    def decode(self) -> dict[str, NDArray[Any]]:
        """Grey levels 0..16 become 0..255."""
        from sklearn.datasets import load_digits

        levels, labels = load_digits(return_X_y=True)
        pixels = np.round(levels * (255 / 16)).astype(np.uint8)
        images = pixels.reshape(-1, *self.native_shape)
        rng = np.random.default_rng(self.split_seed)
        test_size = 0.2 if self.test_size is None else self.test_size
        number = count(test_size, len(images), "test_size")
        test, rest = take(labels, np.arange(len(images)), number, rng)
        labels = labels.astype(np.int64)
        return {
            "train": images[rest],
            "train_labels": labels[rest],
            "test": images[test],
            "test_labels": labels[test],
        }


class TorchvisionImages(ImageArrays):
    """A set that torchvision reads, and downloads where it is absent.

    torchvision costs seconds to import, so nothing but :meth:`decode` does.
    """

    #: its class in torchvision.datasets
    reader: str
    #: files of the test set below `root`
    test_names: tuple[str, ...] = ()

    official_test = True

    def source_test_files(self) -> list[Path]:
        """As torchvision lays them out."""
        return [self.root / name for name in self.test_names]

    def decode(self) -> dict[str, NDArray[Any]]:
        """The official training and test sets, channels first."""
        found: dict[str, NDArray[Any]] = {}
        for part in ("train", "test"):
            images, labels = self._read(train=part == "train")
            channels_last = images.reshape(len(images), *images.shape[1:3], -1)
            found[part] = np.ascontiguousarray(
                channels_last.transpose(
                    0,
                    3,
                    1,
                    2,
                )
            )
            found[f"{part}_labels"] = labels
        return found

    def _read(self, *, train: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        from torchvision import datasets

        reader = getattr(datasets, self.reader)
        try:
            data = reader(self.root, train=train, download=False)
        except RuntimeError:  # not there, or not whole
            raw = Path(self.root) / self.reader / "raw"  # where torchvision puts the MNIST family
            with no_empty_folders(raw):
                try:
                    data = reader(self.root, train=train, download=True)
                except (RuntimeError, OSError) as error:
                    raise FileNotFoundError(
                        f"root: {self.reader} is neither in {self.root} nor could it be downloaded"
                    ) from error
        return np.asarray(data.data), np.asarray(data.targets, dtype=np.int64)


def idx_files(name: str) -> tuple[str, ...]:
    """The test set's files of the MNIST family, packed and unpacked."""
    kinds = ("images-idx3", "labels-idx1")
    return tuple(
        f"{name}/raw/t10k-{kind}-ubyte{packed}" for kind in kinds for packed in ("", ".gz")
    )


class MNIST(TorchvisionImages):
    """70,000 handwritten digits of 28×28 pixels (LeCun et al., 1998)."""

    name = "mnist"
    reader = "MNIST"
    test_names = idx_files("MNIST")
    native_shape = (1, 28, 28)
    classes = tuple("0123456789")


class FashionMNIST(TorchvisionImages):
    """70,000 pictures of clothes, in the form of MNIST (Xiao et al., 2017)."""

    name = "fashion_mnist"
    reader = "FashionMNIST"
    test_names = idx_files("FashionMNIST")
    native_shape = (1, 28, 28)
    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )


class CIFAR10(TorchvisionImages):
    """60,000 colour photographs of 32×32 pixels in ten classes (Krizhevsky, 2009)."""

    name = "cifar10"
    reader = "CIFAR10"
    test_names = ("cifar-10-batches-py/test_batch", "cifar-10-python.tar.gz")
    native_shape = (3, 32, 32)
    classes = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
