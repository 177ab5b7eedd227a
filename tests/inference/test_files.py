"""From files to inputs: what is converted, what is refused, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dlsearch.core.errors import ConfigError
from dlsearch.inference.files import Reader, find
from dlsearch.inference.reading import NotReadable
from dlsearch.systems.vision.data.augment import ImageTransform

GREY: dict[str, Any] = {
    "kind": "image",
    "shape": [1, 4, 6],
    "mean": [0.25],
    "std": [0.5],
    "classes": ["a", "b"],
}
COLOUR: dict[str, Any] = {
    **GREY,
    "shape": [3, 4, 6],
    "mean": [0.2, 0.3, 0.4],
    "std": [0.5, 0.4, 0.3],
}
ROWS: dict[str, Any] = {
    "kind": "table",
    "shape": [2],
    "columns": ["age", "bmi"],
    "mean": [50.0, 25.0],
    "std": [10.0, 5.0],
}


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def one(reader: Reader, path: Path) -> np.ndarray:
    ((_, x),) = reader.read(path)
    return x


def seen_in_training(spec: dict[str, Any], pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) bytes as the data module's own transform shows them to the network."""
    images = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
    return ImageTransform(spec["mean"], spec["std"])(images, torch.zeros(1, dtype=torch.int64), 0)[
        0
    ].numpy()


def test_a_picture_is_standardised_as_in_training(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "x.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    reader = Reader(COLOUR)
    np.testing.assert_allclose(
        one(reader, tmp_path / "x.png"), seen_in_training(COLOUR, pixels), atol=2e-6
    )
    np.testing.assert_allclose(
        one(Reader(GREY), tmp_path / "grey.png"), seen_in_training(GREY, pixels[..., :1]), atol=2e-6
    )
    assert not reader.notices


@pytest.mark.parametrize("form", ["chw", "hwc", "float", "many"])
def test_arrays_in_any_order_are_the_same_input(
    tmp_path: Path, pixels: np.ndarray, form: str
) -> None:
    array = {
        "chw": pixels.transpose(2, 0, 1),
        "hwc": pixels,
        "float": pixels / 255,
        "many": pixels[None],
    }[form]
    np.save(tmp_path / "x.npy", array)
    ((name, x),) = Reader(COLOUR).read(tmp_path / "x.npy")
    np.testing.assert_allclose(x, seen_in_training(COLOUR, pixels), atol=2e-6)
    assert name.endswith("[0]") == (form == "many")


def test_other_sizes_and_modes_are_converted_and_said(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).resize((20, 40)).convert("RGBA").save(tmp_path / "x.png")
    reader = Reader(GREY)
    assert one(reader, tmp_path / "x.png").shape == (1, 4, 6)
    assert set(reader.notices) == {
        "transparency left out", "colour converted to grey", "resized to 6×4, the sides' ratio changed"
    }  # fmt: skip


def test_sixteen_bits_become_eight_and_are_not_cut_off(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "x.png")
    np.testing.assert_allclose(
        one(Reader(GREY), tmp_path / "x.png"), seen_in_training(GREY, pixels[..., :1]), atol=2e-6
    )


def test_light_is_taken_for_dark_and_the_need_is_remarked_on(tmp_path: Path) -> None:
    spec = {**GREY, "mean": [0.13], "std": [0.31]}
    Image.fromarray(np.full((4, 6), 240, dtype=np.uint8)).save(tmp_path / "x.png")
    plain, turned = Reader(spec), Reader(spec, invert=True)
    assert one(plain, tmp_path / "x.png").mean() == pytest.approx(
        (240 / 255 - 0.13) / 0.31, abs=1e-5
    )
    assert one(turned, tmp_path / "x.png").mean() == pytest.approx(
        (15 / 255 - 0.13) / 0.31, abs=1e-5
    )
    assert "much lighter than the training images (--invert takes light for dark)" in plain.notices
    assert not turned.notices


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.png", b"not a picture", "is no image"),
        ("x.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be decoded|is no image"),
        ("x.npy", b"not an array", "cannot be read as an array"),
        ("x.csv", b"1,2", "expected a picture"),
    ],
)
def test_what_is_no_input_is_named(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotReadable, match=why):
        list(Reader(GREY).read(tmp_path / name))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(NotReadable, match="cannot be read as an array"):
        list(Reader(GREY).read(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (
            np.zeros((5, 5)),
            r"expected an array of shape \(1, 4, 6\) or \(4, 6, 1\) or \(4, 6\), or many of these",
        ),
        (np.full((4, 6), 1.5), "others from 0 to 1, not standardised"),
        (np.full((4, 6), np.nan), "others from 0 to 1"),
        (np.array(["a"]), "expected an array of numbers"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, array: np.ndarray, why: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(NotReadable, match=why):
        list(Reader(GREY).read(tmp_path / "x.npy"))


def test_columns_go_by_name_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("name,bmi,age\nAda,30,60\nBob,20,40\n")
    reader = Reader(ROWS)
    assert [(n.rsplit(":")[-1], x.tolist()) for n, x in reader.read(tmp_path / "x.csv")] == [
        ("2", [1.0, 1.0]), ("3", [-1.0, -1.0])
    ]  # fmt: skip
    assert reader.notices == {"1 other column left out": 1}
    (tmp_path / "y.tsv").write_text("60\t30\n\n40\t20\n")
    assert [x.tolist() for _, x in Reader(ROWS).read(tmp_path / "y.tsv")] == [
        [1.0, 1.0],
        [-1.0, -1.0],
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("age,weight\n1,2\n", "names no column 'bmi'"),
        ("1,2,3\n", r"expected 2 columns \(age, bmi\), got 3"),
        ("age,bmi\n1,two\n", "line 2: expected numbers, got 'two'"),
        ("age,bmi\n1\n", "line 2: expected 2 cells, got 1"),
        ("age,bmi\n1,inf\n", "line 2: holds numbers that are not finite"),
        ("", "holds no rows"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(NotReadable, match=why):
        list(Reader(ROWS).read(tmp_path / "x.csv"))


def test_folders_are_searched_and_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("in/b.png", "in/deep/a.JPG", "in/notes.txt"):
        (tmp_path / name).touch()
    files, others = find([str(tmp_path / "in")], "image")
    assert ([f.name for f in files], others) == (["b.png", "a.JPG"], 1)
    with pytest.raises(ConfigError, match="there is no such file"):
        find([str(tmp_path / "gone.png")], "image")
    with pytest.raises(ConfigError, match="the folder holds none of csv, npy, tsv"):
        find([str(tmp_path / "in")], "table")


def test_a_checkpoint_carries_what_makes_a_row_an_input(tmp_path: Path) -> None:
    from dlsearch.systems.basic.data.tabular import Diabetes

    data = Diabetes(cache=str(tmp_path / "cache"))
    data.prepare_data()
    raw = data.decode()["train"][:7]
    lines = [",".join(Diabetes.columns), *(",".join(map(repr, row)) for row in raw.tolist())]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    spec = data.state_dict()["input"]
    found = np.stack([x for _, x in Reader(spec).read(tmp_path / "x.csv")])
    np.testing.assert_allclose(found, data.arrays("train")[0][:7].numpy(), atol=1e-5)
    assert spec["targets"][0]["name"] == "disease progression"


def test_a_checkpoint_carries_what_makes_a_picture_an_input(tmp_path: Path) -> None:
    from dlsearch.systems.vision.data.image import Digits

    data = Digits(root="", cache=str(tmp_path / "cache"), shape=[1, 8, 8], num_classes=10)
    data.prepare_data()
    Image.fromarray(data.arrays("train")[0][data.index("val")[0], 0].numpy()).save(
        tmp_path / "x.png"
    )
    seen = next(iter(data.val_dataloader()))[0][0].numpy()
    np.testing.assert_allclose(
        one(Reader(data.state_dict()["input"]), tmp_path / "x.png"), seen, atol=2e-6
    )
