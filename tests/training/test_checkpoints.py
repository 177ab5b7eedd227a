"""Going on from checkpoints, whole and damaged: the numbers are those of an uninterrupted training."""

from __future__ import annotations

import shutil

import pytest
import torch

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.checksum import Damaged, check
from dlsearch.training.fit import fit
from dlsearch.training.run import Interrupted
from dlsearch.training.state import checkpoints
from tests.training.test_fit import RANDOM, after, composed, run_in

EPOCHS = 5
SAME = (
    "state",
    "values",
    "best_epoch",
    "best_step",
    "epochs",
    "summary",
    "state_sha256",
    "metrics_sha256",
)


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    store = tmp_path_factory.getbasetemp() / "fit-store"
    return composed(str(store), *RANDOM, f"trainer.max_epochs={EPOCHS}", "seed=3")


@pytest.fixture(scope="module")
def whole(cfg, tmp_path_factory):
    return fit(cfg, run_in(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def interrupted(cfg, tmp_path_factory):
    """Three epochs, and the beginning of a fourth."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Interrupted):
        fit(cfg, run_in(folder, **after(3)))
    return folder


@pytest.fixture
def copy(interrupted, tmp_path):
    """Links kept: the best checkpoint may be the last one's file."""
    ckpt = tmp_path / "ckpt"
    ckpt.mkdir()
    by_inode = {}
    for path in sorted((interrupted / "ckpt").iterdir()):
        known = by_inode.setdefault(path.stat().st_ino, ckpt / path.name)
        if known.exists():
            (ckpt / path.name).hardlink_to(known)
        else:
            shutil.copy(path, known)
    return tmp_path


def damage(path, at=1000):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    with path.open("r+b") as file:  # in place: what is linked to it is damaged with it
        file.write(data)


def test_what_there_is_after_an_interruption(interrupted):
    names = {p.name for p in (interrupted / "ckpt").iterdir()}
    assert names == {"last.ckpt", "previous.ckpt", "best.ckpt", "best.safetensors"}
    for path in (interrupted / "ckpt").iterdir():
        check(path)
    epochs = [
        checkpoints.read(interrupted / f"ckpt/{name}.ckpt")["epoch"]
        for name in ("last", "previous")
    ]
    assert epochs == [2, 1]


@pytest.mark.parametrize(("broken", "goes_on_from", "resumed"), [
    ((), "last.ckpt", 3),
    (("last.ckpt",), "previous.ckpt", 2),
    (("last.ckpt", "previous.ckpt"), None, None),
])  # fmt: skip
def test_a_damaged_one_is_passed_over(cfg, whole, copy, broken, goes_on_from, resumed):
    for name in broken:
        damage(copy / "ckpt" / name)
    began = []
    result = fit(cfg, run_in(copy, began=began.append))
    said = {"from": goes_on_from or "the start", "damaged": list(broken)}
    assert began == [{"micro_batches": 1, "resumption": said}]
    assert (result.resumption, result.resumed_epoch) == (said, resumed)
    for field in SAME:
        assert getattr(result, field) == getattr(whole, field), field
    for name in ("last", "previous", "best"):
        check(copy / f"ckpt/{name}.ckpt")


def test_one_whose_best_is_gone_is_passed_over(cfg, copy):
    """Or the training would end with the weights of another epoch."""
    state = checkpoints.read(copy / "ckpt/last.ckpt")
    (mine,) = (s for s in state["callbacks"].values() if "metrics_sha256" in s)
    mine["best"]["epoch"] = 0
    previous = checkpoints.read(copy / "ckpt/previous.ckpt")
    for path in (copy / "ckpt").iterdir():
        path.unlink()  # they may be one file
    torch.save(state, copy / "ckpt/last.ckpt")
    torch.save(previous, copy / "ckpt/best.ckpt")
    found = checkpoints.resume(copy / "ckpt")
    assert (found.path, found.damaged) == (None, ["last.ckpt"])
    (copy / "ckpt/best.ckpt").unlink()
    assert checkpoints.resume(copy / "ckpt").damaged == ["last.ckpt"]


def test_a_first_training_has_nothing_to_go_on_from(tmp_path):
    found = checkpoints.resume(tmp_path / "ckpt")
    assert (found.path, found.damaged, found.to_json()) == (None, [], None)


def test_what_is_asked_for_and_damaged_is_refused_in_one_line(copy, capsys):
    path = copy / "ckpt/best.ckpt"
    assert checkpoints.is_whole(path)
    damage(path)
    with pytest.raises(ConfigError, match=r"best\.ckpt is damaged") as error:
        checkpoints.weights(path)
    assert "\n" not in str(error.value)
    assert not checkpoints.is_whole(path)
    assert "is damaged" in capsys.readouterr().err
    assert not checkpoints.is_whole(copy / "absent.ckpt")


def test_what_torch_cannot_read_is_damaged_too(tmp_path):
    import zipfile

    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    check(path)
    with pytest.raises(Damaged, match="cannot be read as a checkpoint"):
        checkpoints.read(path)
