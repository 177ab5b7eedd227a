"""Data modules: splits, seal, cache, and loaders against plain tensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from dlsearch.core.errors import ConfigError
from dlsearch.systems.shared.data_module import SealedTestSet
from dlsearch.systems.vision.data.image import Digits

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Any]

FACTS = {"name", "shape", "num_classes", "classes", "sizes", "digests", "class_counts", "overlap"}


def test_digits_are_described(make_data: Make) -> None:
    facts = make_data("digits").describe()
    assert set(facts) == FACTS
    assert facts["sizes"] == {"train": 1077, "val": 360, "test": 360}
    assert facts["overlap"] == {"index": 0, "content": 0}
    assert facts["classes"] == list("0123456789")
    totals = np.sum([facts["class_counts"][split] for split in ("train", "val", "test")], axis=0)
    # the whole data set
    assert totals.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    for split, size in facts["sizes"].items():
        assert np.abs(np.array(facts["class_counts"][split]) - totals * size / 1797).max() < 2
        assert len(facts["digests"][split]) == 64


def test_the_split_depends_on_its_own_seed_alone(make_data: Make) -> None:
    first = make_data("digits", seed=0).describe()
    assert make_data("digits", seed=1).describe() == first
    assert make_data("digits", batch_size=7).describe() == first
    other = make_data("digits", split_seed=1).describe()
    assert other["sizes"] == first["sizes"]
    assert not set(other["digests"].values()) & set(first["digests"].values())


def test_digests_are_those_of_a_fresh_cache(make_data: Make, tmp_path: Path) -> None:
    assert make_data("digits", folder=tmp_path).describe() == make_data("digits").describe()


def test_splits_are_disjoint_and_limits_keep_validation(make_data: Make) -> None:
    whole, small = make_data("digits"), make_data("digits", train_size=100)
    train, val = (set(whole.loader(split).index.tolist()) for split in ("train", "val"))
    assert not train & val
    assert len(train | val) == 1437
    assert set(small.loader("val").index.tolist()) == val
    few = small.loader("train").index.tolist()
    assert len(few) == 100
    assert set(few) <= train
    assert small.describe()["digests"]["val"] == whole.describe()["digests"]["val"]
    assert min(small.describe()["class_counts"]["train"]) >= 9


def test_sizes_may_be_fractions(make_data: Make) -> None:
    facts = make_data("digits", test_size=0.5, val_size=0.25, train_size=0.5).describe()
    assert facts["sizes"] == {"test": 898, "val": 225, "train": 337}


def test_a_loader_is_the_standardised_arrays(make_data: Make) -> None:
    data = make_data("digits", batch_size=100)
    pixels, labels = data.arrays("train")
    index = data.loader("train").index
    seen = torch.cat([x for x, _ in data.loader("train")])
    assert seen.mean().abs() < 1e-4
    assert (seen.std() - 1).abs() < 1e-3
    chosen = pixels[index].double() / 255
    expected = (pixels[data.loader("val").index].double() / 255 - chosen.mean()) / chosen.std(
        correction=0
    )
    x, y = next(iter(data.val_dataloader()))
    torch.testing.assert_close(x.double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(y, labels[data.loader("val").index])


def test_training_is_shuffled_by_the_seed_and_validation_is_not(make_data: Make) -> None:
    def labels(seed: int, split: str) -> list[int]:
        return torch.cat([y for _, y in make_data("digits", seed=seed).loader(split)]).tolist()

    assert labels(0, "train") == labels(0, "train") != labels(1, "train")
    assert labels(0, "val") == labels(1, "val")


def test_augmentation_is_for_training_alone(make_data: Make) -> None:
    plain, changed = make_data("digits"), make_data("digits", augment={"crop": 2})
    assert torch.equal(
        next(iter(plain.val_dataloader()))[0], next(iter(changed.val_dataloader()))[0]
    )
    assert not torch.equal(
        next(iter(plain.train_dataloader()))[0], next(iter(changed.train_dataloader()))[0]
    )


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_the_test_set_is_sealed(make_data: Make, name: str) -> None:
    data = make_data(name)
    data.setup("fit")
    data.train_dataloader(), data.val_dataloader(), data.describe()
    for ask in (
        lambda: data.setup("test"),
        data.test_dataloader,
        lambda: data.loader("test"),
        lambda: data.arrays("test"),
    ):
        with pytest.raises(SealedTestSet, match="the test set is sealed"):
            ask()
    data.unseal()
    data.setup("test")
    assert sum(len(y) for _, y in data.test_dataloader()) == data.describe()["sizes"]["test"]


def test_a_trial_opens_no_file_of_the_test_set(
    make_data: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data("digits")
    data.prepare_data()
    opened: list[str] = []
    real = np.load

    def spy(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(Path(file).name)
        return real(file, *args, **kwargs)

    monkeypatch.setattr(np, "load", spy)
    trial = make_data("digits")
    trial.prepare_data()
    trial.setup("fit")
    for loader in (trial.train_dataloader(), trial.val_dataloader()):
        assert len(list(loader)) == len(loader)
    trial.describe()
    assert opened
    assert not [name for name in opened if name.startswith("test")]


def test_the_test_split_lies_apart_and_its_files_are_named(make_data: Make, tmp_path: Path) -> None:
    (tmp_path / "digits-0123456789ab").mkdir()  # of an older version, or of another split
    data = make_data("digits", folder=tmp_path)
    data.prepare_data()
    assert not list(data.decoded_folder().rglob("test*.npy"))
    assert len(list(data.sealed_folder().glob("test*.npy"))) == 3
    named = data.test_files()
    assert named[:2] == [tmp_path / "sealed", tmp_path / "digits-0123456789ab"]
    assert [file.name for file in named[2:]] == ["digits.csv.gz"]
    assert data.decoded_folder() not in named


def test_a_test_set_that_was_written_into_is_refused(make_data: Make, tmp_path: Path) -> None:
    data = make_data("digits", folder=tmp_path)
    data.prepare_data()
    labels = data.sealed_folder() / "test_labels.npy"
    np.save(labels, np.zeros_like(np.load(labels)))
    data.unseal()
    with pytest.raises(ValueError, match=r"is not what was decoded \(hint: delete the folder"):
        data.test_dataloader()


def test_a_sealed_test_image_is_not_shown(make_data: Make) -> None:
    data = make_data("digits")
    with pytest.raises(SealedTestSet):
        data.test_example(0)
    data.unseal()
    image = data.test_example(3)
    assert (image.shape, image.dtype) == ((8, 8, 1), np.uint8)
    assert torch.equal(torch.from_numpy(image).permute(2, 0, 1), data.arrays("test")[0][3])


#: Forked from a process of its own: the one that runs the tests has threads, whose locks a child would inherit held.
AT_ONCE = """
import json, multiprocessing, os, sys

from dlsearch.systems.vision.data.image import Digits


def prepare(start, results):
    data = Digits(root="", cache=sys.argv[1], shape=[1, 8, 8], num_classes=10, val_size=300)
    start.wait()
    data.prepare_data()
    total = int(data.arrays("train")[0].sum())
    results.put((os.getpid(), data.describe()["digests"]["train"], total))


context = multiprocessing.get_context("fork")
start, results = context.Event(), context.Queue()
processes = [context.Process(target=prepare, args=(start, results)) for _ in range(4)]
for process in processes:
    process.start()
start.set()
found = [results.get(timeout=60) for _ in processes]
for process in processes:
    process.join()
print(json.dumps({"found": found, "codes": [process.exitcode for process in processes]}))
"""


@pytest.mark.storm
def test_any_number_of_processes_may_prepare_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    assert said["codes"] == [0, 0, 0, 0]
    assert len({pid for pid, _, _ in said["found"]}) == 4
    assert len({(digest, total) for _, digest, total in said["found"]}) == 1
    left = [
        path.name for path in tmp_path.rglob("*") if path.name.startswith(".") and path.is_dir()
    ]
    assert left == []


def test_what_fails_halfway_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Digits(root="", cache=str(tmp_path), shape=[1, 8, 8], num_classes=10)
    with monkeypatch.context() as patch:
        patch.setattr(Digits, "decode", lambda self: {"train": np.zeros((2, 1, 8, 8), np.uint8)})
        with pytest.raises(KeyError):
            data.prepare_data()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert data.describe()["sizes"]["val"] == 144


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("digits", {"shape": [1, 28, 28]}, "shape: expected [1, 8, 8] for digits, got [1, 28, 28]"),
        ("digits", {"num_classes": 9}, "num_classes: expected 10 for digits, got 9"),
        ("digits", {"batch_size": 0}, "batch_size: expected a positive integer, got 0"),
        (
            "digits",
            {"val_size": -1},
            "val_size: expected a count, a fraction below 1 or null, got -1",
        ),
        ("digits", {"mean": [0.5]}, "std: expected mean and std both"),
        ("digits", {"augment": {"rotate": 200}}, "rotate: expected 0 to 180, got 200"),
        (
            "mnist",
            {"test_size": 10},
            "test_size: expected null, mnist has an official test set (hint: see data.val_size)",
        ),
        (
            "cifar10",
            {"mean": [0.5], "std": [0.5]},
            "mean: expected one number for each of the 3 channels, got [0.5]",
        ),
        ("diabetes", {"num_classes": 2}, "num_classes: expected 1 for diabetes, got 2"),
    ],
)
def test_bad_arguments_are_named(
    make_data: Make, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        make_data(name, **changes)
    assert message in str(error.value)


def test_sizes_that_do_not_fit_are_refused_when_the_data_are_there(make_data: Make) -> None:
    with pytest.raises(
        ValueError, match=r"^val_size: expected at most the 1437 samples that are left, got 2000"
    ):
        make_data("digits", val_size=2000).prepare_data()
    with pytest.raises(ValueError, match=r"^train_size: expected samples to train on"):
        make_data("digits", val_size=1437).prepare_data()


def test_diabetes_is_standardised_by_its_training_split(make_data: Make) -> None:
    data = make_data("diabetes")
    facts = data.describe()
    assert facts["sizes"] == {"test": 88, "val": 88, "train": 266}
    assert facts["classes"] == []
    x, y = (torch.cat(part) for part in zip(*data.loader("train"), strict=True))
    assert (x.shape, y.shape) == ((266, 10), (266, 1))
    for tensor in (x, y):
        assert tensor.mean(0).abs().max() < 1e-5
        assert (tensor.std(0, correction=0) - 1).abs().max() < 1e-5
    x_val, _ = next(iter(data.loader("val")))
    assert x_val.mean(0).abs().max() > 1e-3  # fitted elsewhere
    assert next(iter(make_data("diabetes", standardise_target=False).loader("val")))[1].min() >= 25


def _root() -> Path:
    return Path(os.environ.get("DLSEARCH_DATA", ""))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sizes", "mean"),
    [
        ("mnist", {"train": 50_000, "val": 10_000, "test": 10_000}, [0.1307]),
        ("fashion_mnist", {"train": 50_000, "val": 10_000, "test": 10_000}, [0.2860]),
        ("cifar10", {"train": 45_000, "val": 5_000, "test": 10_000}, [0.4914, 0.4822, 0.4465]),
    ],
)
@pytest.mark.filterwarnings("default")  # torchvision's own
def test_large_sets_are_whole(
    make_data: Make, name: str, sizes: dict[str, int], mean: list[float]
) -> None:
    data = make_data(name, data_root=_root())
    facts = data.describe()
    assert facts["sizes"] == sizes
    assert facts["overlap"]["index"] == 0
    assert facts["class_counts"]["test"] == (
        [1000] * 10 if name != "mnist" else facts["class_counts"]["test"]
    )
    pixels, _ = data.arrays("train")
    torch.testing.assert_close(
        (pixels.float() / 255).mean((0, 2, 3)), torch.tensor(mean), rtol=0, atol=2e-4
    )
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (64, *facts["shape"])
    assert y.dtype == torch.int64
