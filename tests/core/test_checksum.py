"""Checkpoints with a digest: whatever happens to one, it shows; and torch reads it as before."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from dlsearch.core.files.checksum import Damaged, check, seal

CONTENT = {"state_dict": {"w": torch.arange(200.0)}, "epoch": 3, "rng": (1, [2, 3])}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    torch.save(CONTENT, path)
    seal(path)
    return path


@pytest.mark.parametrize("mmap", [False, True])
def test_a_sealed_checkpoint_is_a_checkpoint(sealed: Path, mmap: bool) -> None:
    check(sealed)
    found = torch.load(sealed, weights_only=True, mmap=mmap)
    assert torch.equal(found["state_dict"]["w"], CONTENT["state_dict"]["w"])
    assert (found["epoch"], found["rng"]) == (3, (1, [2, 3]))


def test_every_cut_and_every_flipped_bit_shows(sealed: Path) -> None:
    whole, rng = sealed.read_bytes(), random.Random(0)
    size = len(whole)
    ends = [*range(120), *(size - n for n in range(1, 240))]  # where the records and the digest lie
    cuts = {*ends, *(rng.randrange(size) for _ in range(300))}
    flips = {(at, rng.randrange(8)) for at in (*range(100), *(size - n for n in range(1, 140)))}
    flips |= {(rng.randrange(size), rng.randrange(8)) for _ in range(400)}
    assert len(cuts) + len(flips) > 1000
    copy = sealed.with_name("copy.ckpt")
    for cut in cuts:
        copy.write_bytes(whole[:cut])
        with pytest.raises(Damaged):
            check(copy)
    for at, bit in flips:
        changed = bytearray(whole)
        changed[at] ^= 1 << bit
        copy.write_bytes(changed)
        with pytest.raises(Damaged):
            check(copy)
    copy.write_bytes(whole + b"more")
    with pytest.raises(Damaged):
        check(copy)


def test_one_without_a_digest_is_held_against_its_crcs(tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    path = tmp_path / "old.ckpt"
    torch.save(CONTENT, path)
    check(path)
    data = bytearray(path.read_bytes())
    at = data.find(torch.arange(200.0).numpy().tobytes())
    data[at + 100] ^= 4
    path.write_bytes(data)
    with pytest.raises(Damaged, match="another checksum"):
        check(path)
    path.write_bytes(data[:-300])
    with pytest.raises(Damaged, match="cut short"):
        check(path)


def test_what_is_no_archive_is_refused(tmp_path: Path, sealed: Path) -> None:
    path = tmp_path / "no.ckpt"
    path.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="no zip archive"):
        seal(path)
    with pytest.raises(ValueError, match="without a comment"):
        seal(sealed)
    check(shutil.copy(sealed, path))
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "absent.ckpt")


@pytest.mark.parametrize("sealed", [True, False])
def test_a_checkpoint_that_expands_is_refused_before_it_does(tmp_path: Path, sealed: bool) -> None:
    import io
    import zipfile

    import torch

    from dlsearch.core.errors import ConfigError
    from dlsearch.training.state.weights import read

    plain, path = io.BytesIO(), tmp_path / "best.ckpt"
    torch.save({"state_dict": {"net.w": torch.zeros(10_000_000)}}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    if sealed:
        seal(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(Damaged, match="compressed, which torch never writes"):
        check(path)
    with pytest.raises(ConfigError, match="compressed, which torch never writes"):
        read(path)
