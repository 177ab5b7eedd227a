"""Folders of images: scikit-learn's digits, written as files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from dlsearch.core.errors import ConfigError
from dlsearch.systems.shared.data_module import SealedTestSet

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
        Image.fromarray((pixels[number].reshape(8, 8) * 15).astype(np.uint8)).save(
            folder / f"{number:04}.png"
        )
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
    data = make_data(
        "image_folder", **SETTINGS | {"root": str(tree), "test_size": 0.25, "val_size": 30}
    )
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
    facts = make_data(
        "image_folder", **SETTINGS | {"root": str(tmp_path), "val_size": 20}
    ).describe()
    assert facts["sizes"] == {"train": 40, "val": 20, "test": 30}
    assert facts["overlap"] == {"index": 0, "content": 10}


def test_the_number_of_workers_changes_nothing(make_data: Make, tree: Path) -> None:
    augment = {"crop": 2, "rotate": 20.0, "horizontal_flip": 0.5}
    found = [
        batches(
            make_data(
                "image_folder",
                **SETTINGS | {"root": str(tree), "augment": augment, "num_workers": n},
            ),
            epoch=3,
        )
        for n in (0, 2)
    ]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    other = batches(
        make_data("image_folder", **SETTINGS | {"root": str(tree), "augment": augment}), epoch=4
    )
    assert not torch.equal(found[0][0], other[0])


def test_images_are_resized_and_converted(make_data: Make, tree: Path) -> None:
    settings = SETTINGS | {
        "root": str(tree),
        "shape": [3, 12, 10],
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
    }
    x, _ = batches(make_data("image_folder", **settings))
    assert x.shape[1:] == (3, 12, 10)
    assert torch.equal(x[:, 0], x[:, 2])


def test_a_new_file_makes_a_new_record(make_data: Make, tmp_path: Path) -> None:
    write(tmp_path / "tree", 0, 40)
    data = make_data("image_folder", **SETTINGS | {"root": str(tmp_path / "tree")})
    before = data.describe()
    write(tmp_path / "tree", 40, 60)
    after = make_data("image_folder", **SETTINGS | {"root": str(tmp_path / "tree")}).describe()
    assert sum(after["sizes"].values()) == sum(before["sizes"].values()) + 20
    assert data.describe() == before, "a module goes on with what it began with"


@pytest.fixture
def facts(make_data: Make, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What a new module says of a tree, and its path and label of each image in ``labelled``."""

    def read(root: Path = tmp_path / "tree", **changes: Any) -> dict[str, Any]:
        data = make_data("image_folder", **SETTINGS | {"root": str(root)} | changes)
        files = {**data.describe(), "folder": data.split_folder()}
        images = data.files()
        files["labelled"] = {
            os.fsdecode(path): int(images.labels[i]) for i, path in enumerate(images.paths)
        }
        return files

    return read


def whole(found: dict[str, Any]) -> dict[str, Any]:
    """Of all splits together, whoever is in which."""
    return {key: found[key] for key in ("digests", "sizes", "labelled")}


def test_a_file_deep_in_the_tree_is_seen(
    facts: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    root = write(tmp_path / "tree", 0, 40)
    deep = root / "digit_1/by/hand"
    deep.mkdir(parents=True)
    before = facts()
    os.link(root / "digit_1/0001.png", deep / "again.png")
    after = facts()
    assert after["labelled"] == {**before["labelled"], "digit_1/by/hand/again.png": 1}
    assert after["digests"] != before["digests"]


def test_an_overwrite_that_keeps_size_and_time_is_seen(
    facts: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    root = write(tmp_path / "tree", 0, 40)
    before = facts()
    path = root / "digit_1/0001.png"
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert facts()["digests"] != before["digests"]


def test_times_and_places_are_no_content(
    facts: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    root = write(tmp_path / "tree", 0, 40)
    before = facts()
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    assert whole(facts()) == whole(before)
    shutil.copytree(root, tmp_path / "elsewhere/copy")
    assert whole(facts(tmp_path / "elsewhere/copy")) == whole(before)


@pytest.mark.parametrize(
    "name", [b"0000\n.png", b"0000\xe9\xff.PNG", "größe.png".encode(), b".png"]
)
def test_any_name_that_a_file_can_have_is_read(
    facts: Callable[..., dict[str, Any]], tmp_path: Path, name: bytes
) -> None:
    root = write(tmp_path / "tree", 0, 40)
    shutil.copy(root / "digit_0/0000.png", os.fsencode(root / "digit_0") + b"/" + name)
    found = facts()["labelled"]
    assert found.pop(f"digit_0/{os.fsdecode(name)}") == 0
    assert len(found) == 40
    assert all(label == int(path[len("digit_")]) for path, label in found.items())


def test_a_class_whose_name_is_no_text_is_shown_by_its_bytes(
    facts: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    root = write(tmp_path / "tree", 0, 40)
    (root / "digit_2").rename(os.fsdecode(os.fsencode(root) + b"/digit_\xe9"))
    assert facts()["classes"] == ["digit_0", "digit_1", "digit_\\xe9"]


def test_every_image_of_any_name_is_loaded(make_data: Make, tmp_path: Path) -> None:
    root = write(tmp_path / "tree", 0, 40)
    shutil.copy(root / "digit_2/0002.png", os.fsencode(root) + b"/digit_2/\xe9\n.png")
    data = make_data(
        "image_folder", **SETTINGS | {"root": str(root), "val_size": 1, "test_size": 1}
    )
    assert len(batches(data)[0]) == 39


def test_a_class_that_is_renamed_is_another_record(
    facts: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    root = write(tmp_path / "tree", 0, 40)
    before = facts()
    (root / "digit_0").rename(root / "zero")
    after = facts()
    assert after["classes"] == ["digit_1", "digit_2", "zero"]
    assert after["digests"] != before["digests"]
    assert after["labelled"]["zero/0000.png"] == 2


def test_links_are_followed_as_torchvision_follows_them(
    facts: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    from torchvision.datasets import ImageFolder

    write(tmp_path / "elsewhere", 0, 40)
    write(tmp_path / "tree", 40, 60)
    (tmp_path / "tree/digit_3").symlink_to(tmp_path / "elsewhere/digit_0")
    (tmp_path / "tree/digit_1/more").symlink_to(tmp_path / "elsewhere/digit_1")
    expected = {
        str(Path(path).relative_to(tmp_path / "tree")): y
        for path, y in ImageFolder(tmp_path / "tree").samples
    }
    assert facts(num_classes=4)["labelled"] == expected
    (tmp_path / "tree/digit_1/circle").symlink_to(tmp_path / "tree/digit_1")
    assert facts(num_classes=4)["labelled"] == expected


def test_a_link_to_nothing_is_named(make_data: Make, tmp_path: Path) -> None:
    root = write(tmp_path / "tree", 0, 40)
    (root / "digit_0/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(
        ValueError, match=r"^root: digit_0/gone\.png cannot be looked at: No such file"
    ):
        make_data("image_folder", **SETTINGS | {"root": str(root)}).prepare_data()


def test_images_keep_the_order_that_splits_were_drawn_from(
    facts: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    root = write(tmp_path / "tree", 0, 40)
    for name in ("a-b", "a"):  # by characters, a-b/ comes before a/
        (root / "digit_1" / name).mkdir()
        shutil.copy(root / "digit_1/0001.png", root / "digit_1" / name)
    in_order = [path for folder in sorted(root.iterdir()) for path in sorted(folder.rglob("*.png"))]
    assert list(facts()["labelled"]) == [str(path.relative_to(root)) for path in in_order]


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
    with pytest.raises(
        FileNotFoundError, match=r"^root: expected a folder of images, there is none at"
    ):
        make_data("image_folder", **SETTINGS | {"root": str(tmp_path / "none")}).prepare_data()
    with pytest.raises(ValueError, match=r"^root: expected one folder a class"):
        make_data("image_folder", **SETTINGS | {"root": str(tmp_path)}).prepare_data()
    with pytest.raises(
        ValueError, match=r"^num_classes: expected 3, as there are class folders, got 5"
    ):
        make_data("image_folder", **SETTINGS | {"root": str(tree), "num_classes": 5}).prepare_data()
