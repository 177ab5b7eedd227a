"""The sealed test set: five ways to reach it during a search, each stopped, and each written down."""

from __future__ import annotations

import gzip
import io
import os
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl

from dlsearch.core import permission
from dlsearch.core.errors import ConfigError
from dlsearch.systems.shared.data_module import SealedTestSet
from dlsearch.systems.shared.supervised import Classification
from dlsearch.training.building import build_data
from dlsearch.training.callbacks import EarlyStopping
from dlsearch.training.fit import fit
from dlsearch.training.test_guard import Seal, TestSetSealed, breaches
from tests.training.test_fit import config, run_in

__all__ = ["config"]  # a fixture


@pytest.fixture
def small(config):
    return lambda *words: config("model=linear", "trainer.max_epochs=1", *words)


def peeked(tmp_path, cfg, error=TestSetSealed):
    """Train, and say what was written down; the training must not get through."""
    with pytest.raises(error, match="the test set is sealed"):
        fit(cfg, run_in(tmp_path))
    found = breaches(tmp_path)
    assert all(breach["stopped"] for breach in found)
    return [(breach["how"], breach["what"]) for breach in found]


# -- 1. a method of the data module -----------------------------------------------------------------------------
@pytest.mark.parametrize(("ask", "what"), [
    (lambda data: data.test_dataloader(), "test_dataloader"),
    (lambda data: data.unseal(), "unseal"),
    (lambda data: data.loader("test"), "the test split of digits"),
    (lambda data: data.arrays("test"), "the test split of digits"),
    (lambda data: data.test_example(0), "the test split of digits"),
])  # fmt: skip
def test_a_method_of_the_data_module(tmp_path, small, monkeypatch, ask, what):
    monkeypatch.setattr(Classification, "on_train_start", lambda self: ask(self.trainer.datamodule))
    assert peeked(tmp_path, small(), RuntimeError) == [("data module", what)]


# -- 2. the loader of another stage -----------------------------------------------------------------------------
@pytest.mark.parametrize(("ask", "what"), [
    (lambda data: data.setup("test"), "setup('test')"),
    (lambda data: data.setup(stage="predict"), "setup('predict')"),
    (lambda data: data.predict_dataloader(), "predict_dataloader"),
])  # fmt: skip
def test_the_loader_of_another_stage(tmp_path, small, monkeypatch, ask, what):
    monkeypatch.setattr(
        Classification, "on_validation_start", lambda self: ask(self.trainer.datamodule)
    )
    assert peeked(tmp_path, small()) == [("data module", what)]


# -- 3. the data set itself, with the same files ----------------------------------------------------------------
def mnist_like(root):
    """Tiny files in MNIST's format."""
    rng = np.random.default_rng(0)
    (root / "MNIST/raw").mkdir(parents=True)
    for part, size in (("train", 200), ("t10k", 50)):
        images = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = (np.arange(size) % 10).astype(np.uint8)
        raw = root / "MNIST/raw"
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, size, 28, 28) + images.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, size) + labels.tobytes()
        )


def test_the_class_of_the_data_set_inside_the_model(tmp_path, small, monkeypatch):
    from torchvision import datasets

    mnist_like(tmp_path / "data")
    made = Classification.__init__

    def peek(self, *args, **kwargs):
        made(self, *args, **kwargs)
        assert len(datasets.MNIST(tmp_path / "data", train=True)) == 200
        self.known = datasets.MNIST(tmp_path / "data", train=False).data

    monkeypatch.setattr(Classification, "__init__", peek)
    cfg = small("data=mnist", "data.val_size=50", "data.train_size=100", f"paths.data={tmp_path / 'data'}",
                f"paths.cache={tmp_path / 'cache'}")  # fmt: skip
    file = os.path.realpath(tmp_path / "data/MNIST/raw/t10k-images-idx3-ubyte")
    assert peeked(tmp_path, cfg, ConfigError) == [("file", file)]


def open_low(path):
    os.close(os.open(path, os.O_RDONLY))


@pytest.mark.parametrize(
    "read",
    [
        np.load,
        open,
        open_low,
        lambda path: np.memmap(path),
        lambda path: np.fromfile(path),
        lambda path: io.FileIO(Path(path)),
        lambda path: os.rename(os.path.realpath(path), f"{path}.away"),  # noqa: PTH104
        lambda path: os.link(os.path.realpath(path), f"{path}.too"),
    ],
)
def test_the_decoded_arrays(tmp_path, small, monkeypatch, read):
    cfg = small()
    data = build_data(cfg)
    data.prepare_data()
    (tmp_path / "link.npy").symlink_to(data.sealed_folder() / "test.npy")
    monkeypatch.setattr(
        Classification, "on_train_start", lambda self: read(str(tmp_path / "link.npy"))
    )
    file = os.path.realpath(data.sealed_folder() / "test.npy")
    assert peeked(tmp_path, cfg) == [("file", file)]


def test_scikit_learns_own_reader(tmp_path, small, monkeypatch):
    from sklearn.datasets import load_digits

    monkeypatch.setattr(Classification, "on_train_start", lambda self: load_digits())
    ((how, what),) = peeked(tmp_path, small())
    assert (how, os.path.basename(what)) == ("file", "digits.csv.gz")  # noqa: PTH119
    with gzip.open(what) as file:
        assert file.readline(), "open again after the training"


def test_a_swallowed_refusal_is_written_down_all_the_same(tmp_path, small, monkeypatch):
    def peek(self):
        for _ in range(3):
            with suppress(RuntimeError):
                self.trainer.datamodule.test_dataloader()

    monkeypatch.setattr(Classification, "on_train_start", peek)
    assert fit(small(), run_in(tmp_path)).state == "complete"
    assert breaches(tmp_path) == [
        {"how": "data module", "what": "test_dataloader", "stopped": True}
    ]


def test_a_forked_process_is_held_too(tmp_path, small, monkeypatch):
    data = build_data(small())
    data.prepare_data()
    path = data.sealed_folder() / "test_labels.npy"

    def peek(self):
        pid = os.fork()
        if pid == 0:
            try:
                np.load(path)
            except TestSetSealed:
                os._exit(3)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3

    monkeypatch.setattr(Classification, "on_train_start", peek)
    fit(small(), run_in(tmp_path))
    assert [breach["what"] for breach in breaches(tmp_path)] == [os.path.realpath(path)]


# -- 4. a callback ------------------------------------------------------------------------------------------------
def test_a_callback(tmp_path, small, monkeypatch):
    def peek(self, trainer, *_):
        trainer.validate(trainer.lightning_module, dataloaders=trainer.datamodule.test_dataloader())

    monkeypatch.setattr(EarlyStopping, "on_train_epoch_end", peek)
    assert peeked(tmp_path, small()) == [("data module", "test_dataloader")]


# -- 5. trainer.test ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("other", [False, True])
def test_trainer_test_of_this_trainer_and_of_another(tmp_path, small, monkeypatch, other):
    def peek(self):
        trainer = (
            pl.Trainer(logger=False, accelerator="cpu", barebones=True) if other else self.trainer
        )
        trainer.test(self, datamodule=self.trainer.datamodule)

    monkeypatch.setattr(Classification, "on_train_end", peek)
    assert peeked(tmp_path, small()) == [("trainer", "Trainer.test")]


# -- what is no breach ----------------------------------------------------------------------------------------------
def test_an_ordinary_training_and_its_confirmation_leave_nothing(tmp_path, small):
    before = pl.Trainer.test
    result = fit(small(), run_in(tmp_path, test=True))
    assert result.test["n"] == 360
    assert not (tmp_path / "breaches.jsonl").exists()
    assert pl.Trainer.test is before


def test_data_that_are_decoded_within_the_trial_are_no_breach(tmp_path, small):
    mnist_like(tmp_path / "data")
    cfg = small("data=mnist", "data.val_size=50", "data.train_size=100", f"paths.data={tmp_path / 'data'}",
                f"paths.cache={tmp_path / 'cache'}")  # fmt: skip
    assert fit(cfg, run_in(tmp_path)).state == "complete"
    assert breaches(tmp_path) == []


MODULE = """
import pytorch_lightning as pl, torch
from torch.utils.data import DataLoader, TensorDataset

class Data(pl.LightningDataModule):
    def __init__(self, shape, num_classes):
        super().__init__()

    def setup(self, stage):
        x = torch.randn(96, 64)
        self.parts = {"fit": TensorDataset(x[:64], x[:64].argmax(1) % 10)}
        if stage == "test":
            self.parts["test"] = TensorDataset(x[64:], x[64:].argmax(1) % 10)

    def train_dataloader(self):
        return DataLoader(self.parts["fit"], 32)

    val_dataloader = train_dataloader

    def test_dataloader(self):
        return DataLoader(self.parts["test"], 32)
"""


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_users_data_module_is_sealed_and_opened_like_ours(tmp_path, small, monkeypatch):
    (tmp_path / "seal_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    permission.grant(["seal_user"])
    cfg = small("allow_targets=[seal_user]")
    cfg.data = {"_target_": "seal_user.Data", "shape": [64], "num_classes": 10}
    assert fit(cfg, run_in(tmp_path / "a", test=True)).test["n"] == 32
    doors = {
        "test_dataloader": lambda self: self.trainer.datamodule.test_dataloader(),
        "Trainer.test": lambda self: self.trainer.test(self, datamodule=self.trainer.datamodule),
    }
    for name, door in doors.items():
        monkeypatch.setattr(Classification, "on_train_end", door)
        assert [what for _, what in peeked(tmp_path / name, cfg)] == [name]


def test_an_image_folder_keeps_its_test_files_closed(tmp_path):
    from PIL import Image

    from dlsearch.systems.vision.data.folder import ImageFolder

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    data = ImageFolder(root=str(tmp_path / "images"), cache=str(tmp_path / "cache"), shape=[3, 4, 4], num_workers=0,
                       val_size=4, test_size=4, batch_size=4)  # fmt: skip
    with Seal(tmp_path) as seal:
        seal.watch(data)
        assert len(data.test_files()) == 4
        assert sum(len(y) for split in ("train", "val") for _, y in data.loader(split)) == 16
        with pytest.raises(SealedTestSet):
            data.loader("test")
        with pytest.raises(TestSetSealed):
            data.test_files()[0].read_bytes()
    assert data.test_files()[0].read_bytes()
    assert [breach["how"] for breach in breaches(tmp_path)] == ["data module", "file"]
