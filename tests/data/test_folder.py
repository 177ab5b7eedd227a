"""Folders of images: scikit-learn's digits, written as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from dlsearch.config.errors import ConfigError
from dlsearch.data.base import SealedTestSet

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Any]

SETTINGS = {"shape": [1, 8, 8], "num_classes": 3, "num_workers": 0, "batch_size": 16}


def write(root: Path, start: int = 0, stop: int = 120) -> Path:
    """The first digits 0, 1 and 2 as ``root/<class>/<number>.png``."""
    pixels, labels = load_digits(n_class=3, return_X_y=True)
    for number in range(start, stop):
        folder = root / f"digit_{labels[number]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels[number].reshape(8, 8) * 15).astype(np.uint8)).save(folder / f"{number:04}.png")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tree"))


def batches(data: Any, split: str = "train", epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    loader = data.loader(split)
    loader.sampler.set_epoch(epoch)
    xs, ys = zip(*loader, strict=True)
    return torch.cat(xs), torch.cat(ys)


def test_one_tree_is_split(make_data: Make, tree: Path) -> None:
    data = make_data("image_folder", **SETTINGS | {"root": str(tree), "test_size": 0.25, "val_size": 30})
    facts = data.describe()
    assert facts["sizes"] == {"test": 30, "val": 30, "train": 60}
    assert facts["classes"] == ["digit_0", "digit_1", "digit_2"]
    assert np.ptp(facts["class_counts"]["train"]) <= 2
    assert facts["overlap"] == {"index": 0, "content": 0}
    x, y = batches(data)
    assert x.shape == (60, 1, 8, 8)
    assert np.bincount(y).tolist() == facts["class_counts"]["train"]
    assert x.mean().abs() < 1e-3  # statistics of the training split
    with pytest.raises(SealedTestSet):
        data.test_dataloader()
    data.unseal()
    assert len(batches(data, "test")[0]) == 30
    assert data.test_example(0).shape == (8, 8, 1)


def test_given_folders_are_kept_and_twins_are_counted(make_data: Make, tmp_path: Path) -> None:
    write(tmp_path / "train", 0, 60)
    write(tmp_path / "test", 50, 80)  # ten of them are in training too
    facts = make_data("image_folder", **SETTINGS | {"root": str(tmp_path), "val_size": 20}).describe()
    assert facts["sizes"] == {"train": 40, "val": 20, "test": 30}
    assert facts["overlap"] == {"index": 0, "content": 10}


def test_the_number_of_workers_changes_nothing(make_data: Make, tree: Path) -> None:
    augment = {"crop": 2, "rotate": 20.0, "horizontal_flip": 0.5}
    found = [
        batches(
            make_data("image_folder", **SETTINGS | {"root": str(tree), "augment": augment, "num_workers": n}), epoch=3
        )
        for n in (0, 2)
    ]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    other = batches(make_data("image_folder", **SETTINGS | {"root": str(tree), "augment": augment}), epoch=4)
    assert not torch.equal(found[0][0], other[0])


def test_images_are_resized_and_converted(make_data: Make, tree: Path) -> None:
    settings = SETTINGS | {"root": str(tree), "shape": [3, 12, 10], "mean": [0.0] * 3, "std": [1.0] * 3}
    x, _ = batches(make_data("image_folder", **settings))
    assert x.shape[1:] == (3, 12, 10)
    assert torch.equal(x[:, 0], x[:, 2])


def test_a_new_file_makes_a_new_record(make_data: Make, tmp_path: Path) -> None:
    write(tmp_path / "tree", 0, 40)
    data = make_data("image_folder", **SETTINGS | {"root": str(tmp_path / "tree")})
    before = data.describe()
    write(tmp_path / "tree", 40, 60)
    assert sum(data.describe()["sizes"].values()) == sum(before["sizes"].values()) + 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [2, 8, 8]}, "shape: expected [1 or 3, height, width], got [2, 8, 8]"),
        ({"num_workers": -1}, "num_workers: expected 0 or more, got -1"),
    ],
)
def test_bad_arguments_are_named(make_data: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_data("image_folder", **{**SETTINGS, "root": "nowhere", **changes})
    assert message in str(error.value)


def test_what_is_wrong_with_the_tree_is_said(make_data: Make, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^root: expected a folder of images, there is none at"):
        make_data("image_folder", **SETTINGS | {"root": str(tmp_path / "none")}).prepare_data()
    with pytest.raises(ValueError, match=r"^root: expected one folder a class"):
        make_data("image_folder", **SETTINGS | {"root": str(tmp_path)}).prepare_data()
    with pytest.raises(ValueError, match=r"^num_classes: expected 3, as there are class folders, got 5"):
        make_data("image_folder", **SETTINGS | {"root": str(tree), "num_classes": 5}).prepare_data()
