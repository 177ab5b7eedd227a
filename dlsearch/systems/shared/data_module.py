"""What every data module of ours has.

Its splits are seeded and made once, and its test set is sealed.
"""

from __future__ import annotations

import functools
import glob
import sys
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import pytorch_lightning as pl
import torch

from dlsearch.systems.shared.cache import key_of, publish, read_array, read_json, write_json
from dlsearch.systems.shared.loader import TensorLoader, Transform
from dlsearch.systems.shared.split import (
    Indices,
    check_disjoint,
    check_size,
    class_counts,
    content_hashes,
    count,
    digest,
    repeated,
    take,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dlsearch.systems.shared.descriptions import (
        DataDescription,
        InputSpec,
        Share,
        SplitRecord,
    )


#: The folder of the cache in which test splits lie.
SEALED = "sealed"
#: Of the cache's folders: 1 had the test split beside the training split.
_LAYOUT = 2


class _TestRecord(TypedDict):
    """What is written down about the test set when it is decoded: nothing opens it again."""

    size: int
    digest: str
    class_counts: list[int]


class SealedTestSet(RuntimeError):
    """The test set was asked for while hyperparameters are still being chosen."""

    def __init__(self) -> None:
        super().__init__(
            "the test set is sealed: hyperparameters are chosen on validation data;"
            " call unseal() once, at the end"
        )


class SplitData(pl.LightningDataModule):
    """Train, validation and test, of which the last is sealed.

    Args:
        cache: Folder for what :meth:`prepare_data` makes.
        batch_size: Of training.
        eval_batch_size: Of validation and test; not `batch_size`, so that a search over that cannot
            move their figures.
        train_size: Limit on the training samples: a count, a fraction of what validation leaves,
            null for all.
        val_size: Validation samples: a count, or a fraction of what is not test.
        split_seed: Of the split alone; the same in all trials of a study.
        seed: Of order and augmentation.
        drop_last: Leave out the last training batch where it is smaller than the others.
    """

    #: folder name in the cache, and the name in reports
    name = "data"

    def __init__(
        self,
        *,
        cache: str,
        batch_size: int,
        eval_batch_size: int,
        train_size: float | None,
        val_size: float,
        split_seed: int,
        seed: int,
        drop_last: bool,
    ) -> None:
        super().__init__()
        _check_batch_size(batch_size, "batch_size")
        _check_batch_size(eval_batch_size, "eval_batch_size")
        check_size(train_size, "train_size")
        check_size(val_size, "val_size")
        self.cache = Path(cache)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.drop_last = drop_last
        self.train_size = train_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.seed = seed
        self._sealed = True
        self._input: InputSpec | None = None
        self._whole = False

    # -- the seal ----------------------------------------------------------------------------------
    def unseal(self) -> None:
        """Allow the test set to be opened; the holder of the seal may refuse."""
        sys.audit("dlsearch.unseal", self.name)
        self._sealed = False

    def include_validation(self) -> None:
        """Train on train + validation from now on, with the statistics of the training split."""
        self._whole = True

    def index(self, split: str) -> Indices:
        """Which samples ``train`` or ``val`` has."""
        parts = ["train", "val"] if split == "train" and self._whole else [split]
        folder = self.split_folder()
        indices = [np.load(folder / f"{part}_index.npy") for part in parts]
        return np.sort(np.concatenate(indices))

    def check_unsealed(self) -> None:
        """Refuse to go on towards the test set.

        Raises:
            SealedTestSet: :meth:`unseal` was not called.
        """
        if self._sealed:
            sys.audit("dlsearch.sealed", f"the test split of {self.name}")
            raise SealedTestSet

    def test_files(self) -> list[Path]:
        """Files and folders that hold the test split.

        Nothing needs to open them before it is unsealed: a search puts them out of reach of the
        processes that train.
        """
        return []

    # -- Lightning ---------------------------------------------------------------------------------
    def setup(self, stage: str | None = None) -> None:
        """Open the splits of `stage`: ``fit`` and ``validate`` never touch the test set.

        Raises:
            SealedTestSet: `stage` is ``test`` or ``predict``, and the test set is sealed.
        """
        self.prepare_data()
        if stage in ("test", "predict"):
            self.check_unsealed()

    def train_dataloader(self) -> Any:
        """Shuffled and augmented by f(seed, epoch, index)."""
        return self.loader("train")

    def val_dataloader(self) -> Any:
        """Every validation sample once, in order."""
        return self.loader("val")

    def test_dataloader(self) -> Any:
        """Every test sample once, in order.

        Raises:
            SealedTestSet: :meth:`unseal` was not called.
        """
        self.check_unsealed()
        return self.loader("test")

    @abstractmethod
    def loader(self, split: str) -> Any:
        """Batches of ``train``, ``val`` or ``test``."""

    @abstractmethod
    def split_folder(self) -> Path:
        """Where the splits' record lies; :meth:`prepare_data` makes it."""

    # -- what it is --------------------------------------------------------------------------------
    def record(self) -> SplitRecord:
        """What :meth:`prepare_data` wrote down about the splits."""
        found = read_json(self.split_folder() / "split.json")
        return cast("SplitRecord", found)

    def describe(self) -> DataDescription:
        """What the data are. The test set stays closed."""
        self.prepare_data()
        record = self.record()
        return {
            "name": record["name"],
            "shape": record["shape"],
            "num_classes": record["num_classes"],
            "classes": record["classes"],
            "sizes": record["sizes"],
            "digests": record["digests"],
            "class_counts": record["class_counts"],
            "overlap": record["overlap"],
        }

    def input_spec(self) -> InputSpec:
        """How an input of one's own becomes what the net sees; empty where that is not known."""
        return {}

    def state_dict(self) -> dict[str, InputSpec]:
        """Into every checkpoint: :meth:`input_spec`.

        So a model can be used where its data are not.
        """
        if self._input is None:
            self._input = self.input_spec()
        return {"input": self._input}

    # -- where and among whom it trains ------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """The trainer's device, the CPU without a trainer."""
        if self.trainer is None:
            return torch.device("cpu")
        return self.trainer.strategy.root_device

    @property
    def share(self) -> Share:
        """This process among those that train together."""
        trainer = self.trainer
        if trainer is None:
            return {"rank": 0, "world": 1}
        return {"rank": trainer.global_rank, "world": trainer.world_size}

    @property
    def shuffles(self) -> bool:
        """Training is shuffled, unless the trainer overfits the first batches."""
        if self.trainer is None:
            return True
        return not getattr(self.trainer, "overfit_batches", 0)


def _check_batch_size(value: object, argument: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{argument}: expected a positive integer, got {value!r}")


def _write_part(folder: Path, part: str, arrays: dict[str, NDArray[Any]]) -> None:
    """Write the arrays of ``train`` or ``test``."""
    np.save(folder / f"{part}.npy", arrays[part])
    np.save(folder / f"{part}_labels.npy", arrays[f"{part}_labels"])
    np.save(folder / f"{part}_hashes.npy", content_hashes(arrays[part]))


class ArrayData(SplitData):
    """Data that are decoded once into ``.npy`` files, which all trials then map into memory.

    ``<cache>/<name>-<key>/`` holds ``train.npy`` (validation included) and its labels; one folder
    for each split below it holds indices, digests and statistics. The test split lies apart, in
    ``<cache>/sealed/<name>-<key>/``, and nothing but an unsealed module opens it again.
    """

    #: what `shape` and `num_classes` must be
    native_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    #: raise it when `decode` changes what it returns
    version = 1

    shape: tuple[int, ...]
    num_classes: int
    _test_is_whole = False

    def test_files(self) -> list[Path]:
        """All sealed arrays, what they were decoded from, and other splits of the same data."""
        own = self.decoded_folder()
        alike = sorted(self.cache.glob(f"{glob.escape(self.name)}-*"))
        others = [folder for folder in alike if folder != own]
        return [self.sealed_folder().parent, *others, *self.source_test_files()]

    def source_test_files(self) -> list[Path]:
        """The files that :meth:`decode` reads the test split from."""
        return []

    @abstractmethod
    def decode(self) -> dict[str, NDArray[Any]]:
        """The arrays ``train``, ``train_labels``, ``test``, ``test_labels``.

        Called once a cache.
        """

    def source(self) -> Mapping[str, Any]:
        """What the decoded arrays depend on, as JSON."""
        return {"name": self.name, "version": self.version}

    @property
    def is_classified(self) -> bool:
        """Whether labels are classes."""
        return bool(self.classes)

    def check_shape(self, shape: Sequence[int], num_classes: int) -> None:
        """Refuse a shape or number of classes that is not the data's.

        Raises:
            ValueError: Either is wrong.
        """
        if tuple(shape) != self.native_shape:
            raise ValueError(
                f"shape: expected {list(self.native_shape)} for {self.name}, got {list(shape)}"
            )
        expected = len(self.classes) or 1
        if num_classes != expected:
            raise ValueError(f"num_classes: expected {expected} for {self.name}, got {num_classes}")
        self.shape = tuple(shape)
        self.num_classes = num_classes

    # -- the cache ---------------------------------------------------------------------------------
    def decoded_folder(self) -> Path:
        """Where the arrays lie that training may see."""
        return self.cache / self._folder_name()

    def sealed_folder(self) -> Path:
        """Where the arrays of the test split lie: a folder that can be given up as a whole."""
        return self.cache / SEALED / self._folder_name()

    def _folder_name(self) -> str:
        parts = {**self.source(), "layout": _LAYOUT}
        return f"{self.name}-{key_of(parts)}"

    def split_folder(self) -> Path:
        """Where this split's indices and record lie, below the arrays."""
        parts = {
            "train_size": self.train_size,
            "val_size": self.val_size,
            "split_seed": self.split_seed,
            "version": 1,
        }
        return self.decoded_folder() / f"split-{key_of(parts)}"

    def prepare_data(self) -> None:
        """Decode and split, unless the cache has both. Safe in any number of processes at once."""
        decode = functools.cache(self.decode)
        publish(self.sealed_folder(), lambda folder: _write_part(folder, "test", decode()))
        publish(self.decoded_folder(), lambda folder: self._write_arrays(folder, decode()))
        publish(self.split_folder(), self._write_split)

    def _write_arrays(self, folder: Path, arrays: dict[str, NDArray[Any]]) -> None:
        _write_part(folder, "train", arrays)
        test = arrays["test"]
        labels = arrays["test_labels"]
        record: _TestRecord = {
            "size": len(test),
            "digest": digest(test, labels),
            "class_counts": self._count_classes(labels),
        }
        write_json(folder / "test.json", record)

    def _count_classes(self, labels: NDArray[Any]) -> list[int]:
        """Samples of each class; empty where labels are none."""
        return class_counts(labels, self.num_classes) if self.is_classified else []

    def _write_split(self, folder: Path) -> None:
        decoded = self.decoded_folder()
        inputs = read_array(decoded / "train.npy")
        labels = read_array(decoded / "train_labels.npy")
        splits = self.choose(labels)
        check_disjoint(splits)
        hashes = read_array(decoded / "train_hashes.npy")
        overlap = repeated(
            hashes[splits["train"]],
            hashes[splits["val"]],
            read_array(self.sealed_folder() / "test_hashes.npy"),
        )
        train = splits["train"]
        record: SplitRecord = {
            "name": self.name,
            "shape": list(self.shape),
            "num_classes": self.num_classes,
            "classes": list(self.classes),
            "sizes": {},
            "digests": {},
            "class_counts": {},
            "overlap": {"index": 0, "content": overlap},
            "statistics": self.statistics(inputs[train], labels[train]),
        }
        for split, index in splits.items():
            np.save(folder / f"{split}_index.npy", index)
            record["sizes"][split] = len(index)
            record["digests"][split] = digest(inputs, labels, index)
            record["class_counts"][split] = self._count_classes(labels[index])
        test = cast("_TestRecord", read_json(decoded / "test.json"))
        record["sizes"]["test"] = test["size"]
        record["digests"]["test"] = test["digest"]
        record["class_counts"]["test"] = test["class_counts"]
        write_json(folder / "split.json", record)

    def choose(self, labels: NDArray[Any]) -> dict[str, Indices]:
        """Which of the samples that are not test are ``val`` and ``train``, by the split's seed.

        Raises:
            ValueError: A size asks for more than there are, or leaves nothing to train on.
        """
        strata = labels if self.is_classified else None
        rng = np.random.default_rng(self.split_seed)
        every = np.arange(len(labels))
        n_val = count(self.val_size, len(every), "val_size")
        val, rest = take(strata, every, n_val, rng)
        n_train = count(self.train_size, len(rest), "train_size")
        train, _ = take(strata, rest, n_train, rng)
        if not len(train):
            raise ValueError(
                f"train_size: expected samples to train on, got 0 of {len(labels)}"
                " (hint: lower val_size)"
            )
        return {"val": val, "train": train}

    @abstractmethod
    def statistics(
        self,
        inputs: NDArray[Any],
        labels: NDArray[Any],
    ) -> dict[str, list[float]]:
        """What standardisation needs, of the training split alone."""

    # -- batches -----------------------------------------------------------------------------------
    def arrays(self, part: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels of ``train`` (validation included) or ``test``, mapped into memory.

        Raises:
            SealedTestSet: The test set is sealed.
            ValueError: The test set is not what was decoded.
        """
        folder = self.decoded_folder()
        if part == "test":
            self.check_unsealed()
            folder = self.sealed_folder()
        inputs = read_array(folder / f"{part}.npy")
        labels = read_array(folder / f"{part}_labels.npy")
        if part == "test" and not self._test_is_whole:
            self._check_test(inputs, labels)
            self._test_is_whole = True
        return torch.from_numpy(inputs), torch.from_numpy(labels)

    def _check_test(self, inputs: NDArray[Any], labels: NDArray[Any]) -> None:
        """Check that nobody has written into the test set since it was decoded.

        Raises:
            ValueError: Its digest is another one.
        """
        decoded = cast("_TestRecord", read_json(self.decoded_folder() / "test.json"))
        if digest(inputs, labels) != decoded["digest"]:
            folder = self.sealed_folder()
            raise ValueError(
                f"the test set in {folder} is not what was decoded"
                " (hint: delete the folder, and it is decoded again)"
            )

    @abstractmethod
    def transform(self, split: str) -> Transform | None:
        """From stored to seen."""

    def loader(self, split: str) -> TensorLoader:
        """Batches of ``train``, ``val`` or ``test``, on the trainer's device."""
        self.prepare_data()
        inputs, labels = self.arrays("test" if split == "test" else "train")
        index = None if split == "test" else torch.from_numpy(self.index(split))
        is_training = split == "train"
        loader = TensorLoader(
            inputs,
            labels,
            index=index,
            batch_size=self.batch_size if is_training else self.eval_batch_size,
            shuffle=is_training and self.shuffles,
            seed=self.seed,
            drop_last=is_training and self.drop_last,
            transform=self.transform(split),
            **self.share,
        )
        return loader.to(self.device)
