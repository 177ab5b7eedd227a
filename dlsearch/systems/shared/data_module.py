"""What every data module of ours has: seeded splits that are made once, and a test set that is sealed."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from numpy.typing import NDArray


class SealedTestSet(RuntimeError):
    """The test set was asked for while hyperparameters are still being chosen."""

    def __init__(self) -> None:
        super().__init__(
            "the test set is sealed: hyperparameters are chosen on validation data; call unseal() once, at the end"
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
        for argument, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{argument}: expected a positive integer, got {value!r}")
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
        self._input: dict[str, Any] | None = None
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
        parts = ("train", "val") if split == "train" and self._whole else (split,)
        return np.sort(
            np.concatenate([np.load(self.split_folder() / f"{part}_index.npy") for part in parts])
        )

    def check_unsealed(self) -> None:
        """Refuse to go on towards the test set.

        Raises:
            SealedTestSet: :meth:`unseal` was not called.
        """
        if self._sealed:
            sys.audit("dlsearch.sealed", f"the test split of {self.name}")
            raise SealedTestSet

    def test_files(self) -> list[Path]:
        """Files and folders that hold the test split, and that nothing needs to open before it is unsealed."""
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
    def record(self) -> dict[str, Any]:
        """What :meth:`prepare_data` wrote down about the splits."""
        return read_json(self.split_folder() / "split.json")

    def describe(self) -> dict[str, Any]:
        """Name, shape, classes, sizes, digests, class counts and overlap, as JSON.

        The test set stays closed.
        """
        self.prepare_data()
        keys = (
            "name",
            "shape",
            "num_classes",
            "classes",
            "sizes",
            "digests",
            "class_counts",
            "overlap",
        )
        record = self.record()
        return {key: record[key] for key in keys}

    def input_spec(self) -> dict[str, Any]:
        """How an input of one's own becomes what the net sees, as JSON (``docs/using-models.md`` has the keys)."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Into every checkpoint: :meth:`input_spec`, so that a model can be used where its data are not."""
        if self._input is None:
            self._input = self.input_spec()
        return {"input": self._input}

    # -- where and among whom it trains ------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """The trainer's device, the CPU without a trainer."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    @property
    def share(self) -> dict[str, int]:
        """This process among those that train together."""
        trainer = self.trainer
        return (
            {"rank": 0, "world": 1}
            if trainer is None
            else {"rank": trainer.global_rank, "world": trainer.world_size}
        )

    @property
    def shuffles(self) -> bool:
        """Training is shuffled, unless the trainer overfits the first batches."""
        return self.trainer is None or not getattr(self.trainer, "overfit_batches", 0)


class ArrayData(SplitData):
    """Data that are decoded once into ``.npy`` files, which all trials then map into memory.

    ``<cache>/<name>-<key>/`` holds ``train.npy`` (validation included), ``test.npy`` and their
    labels; one folder for each split below it holds indices, digests and statistics. Nothing but an
    unsealed module opens ``test.npy`` again.
    """

    #: what `shape` and `num_classes` must be
    native_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    #: raise it when `decode` changes what it returns
    version = 1

    shape: tuple[int, ...]
    num_classes: int

    def test_files(self) -> list[Path]:
        """The decoded arrays, and what they were decoded from."""
        decoded = [self.decoded_folder() / f"test{kind}.npy" for kind in ("", "_labels", "_hashes")]
        return [*decoded, *self.source_test_files()]

    def source_test_files(self) -> list[Path]:
        """The files that :meth:`decode` reads the test split from."""
        return []

    @abstractmethod
    def decode(self) -> dict[str, NDArray[Any]]:
        """The arrays ``train``, ``train_labels``, ``test``, ``test_labels``.

        Called once a cache.
        """

    def source(self) -> dict[str, Any]:
        """What the decoded arrays depend on."""
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
        """Where the arrays lie."""
        return self.cache / f"{self.name}-{key_of(self.source())}"

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
        publish(self.decoded_folder(), self._write_arrays)
        publish(self.split_folder(), self._write_split)

    def _write_arrays(self, folder: Path) -> None:
        arrays = self.decode()
        for part in ("train", "test"):
            np.save(folder / f"{part}.npy", arrays[part])
            np.save(folder / f"{part}_labels.npy", arrays[f"{part}_labels"])
            np.save(folder / f"{part}_hashes.npy", content_hashes(arrays[part]))
        test = arrays["test"]
        labels = arrays["test_labels"]
        counts = class_counts(labels, self.num_classes) if self.is_classified else []
        write_json(
            folder / "test.json",
            {"size": len(test), "digest": digest(test, labels), "class_counts": counts},
        )

    def _write_split(self, folder: Path) -> None:
        decoded = self.decoded_folder()
        inputs = read_array(decoded / "train.npy")
        labels = read_array(decoded / "train_labels.npy")
        splits = self.choose(labels)
        check_disjoint(splits)
        hashes = read_array(decoded / "train_hashes.npy")
        overlap = repeated(
            hashes[splits["train"]], hashes[splits["val"]], read_array(decoded / "test_hashes.npy")
        )
        test = read_json(decoded / "test.json")
        counts = {
            split: class_counts(labels[index], self.num_classes) if self.is_classified else []
            for split, index in splits.items()
        }
        for split, index in splits.items():
            np.save(folder / f"{split}_index.npy", index)
        write_json(
            folder / "split.json",
            {
                "name": self.name,
                "shape": list(self.shape),
                "num_classes": self.num_classes,
                "classes": list(self.classes),
                "sizes": {
                    **{split: len(index) for split, index in splits.items()},
                    "test": test["size"],
                },
                "digests": {
                    **{split: digest(inputs, labels, index) for split, index in splits.items()},
                    "test": test["digest"],
                },
                "class_counts": {**counts, "test": test["class_counts"]},
                "overlap": {"index": 0, "content": overlap},
                "statistics": self.statistics(inputs[splits["train"]], labels[splits["train"]]),
            },
        )

    def choose(self, labels: NDArray[Any]) -> dict[str, Indices]:
        """Which of the samples that are not test are ``val`` and ``train``, by the split's seed.

        Raises:
            ValueError: A size asks for more than there are, or leaves nothing to train on.
        """
        strata = labels if self.is_classified else None
        rng = np.random.default_rng(self.split_seed)
        splits: dict[str, Indices] = {}
        splits["val"], rest = take(
            strata, np.arange(len(labels)), count(self.val_size, len(labels), "val_size"), rng
        )
        splits["train"], _ = take(
            strata, rest, count(self.train_size, len(rest), "train_size"), rng
        )
        if not len(splits["train"]):
            raise ValueError(
                f"train_size: expected samples to train on, got 0 of {len(labels)} (hint: lower val_size)"
            )
        return splits

    @abstractmethod
    def statistics(self, inputs: NDArray[Any], labels: NDArray[Any]) -> dict[str, list[float]]:
        """What standardisation needs, of the training split alone."""

    # -- batches -----------------------------------------------------------------------------------
    def arrays(self, part: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels of ``train`` (validation included) or ``test``, mapped into memory.

        Raises:
            SealedTestSet: The test set is sealed.
        """
        if part == "test":
            self.check_unsealed()
        folder = self.decoded_folder()
        inputs, labels = (
            torch.from_numpy(read_array(folder / f"{part}{kind}.npy")) for kind in ("", "_labels")
        )
        return inputs, labels

    @abstractmethod
    def transform(self, split: str) -> Transform | None:
        """From stored to seen."""

    def loader(self, split: str) -> TensorLoader:
        """Batches of ``train``, ``val`` or ``test``, on the trainer's device."""
        self.prepare_data()
        inputs, labels = self.arrays("test" if split == "test" else "train")
        index = None if split == "test" else torch.from_numpy(self.index(split))
        training = split == "train"
        return TensorLoader(
            inputs,
            labels,
            index=index,
            batch_size=self.batch_size if training else self.eval_batch_size,
            shuffle=training and self.shuffles,
            seed=self.seed,
            drop_last=training and self.drop_last,
            transform=self.transform(split),
            **self.share,
        ).to(self.device)
