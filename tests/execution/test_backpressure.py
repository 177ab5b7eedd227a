"""A disk that is full, really: by the limit on a file's size, and by a small file system where that can be made."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sqlite3
import subprocess
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from dlsearch.core.files.disk import has_room, is_full
from dlsearch.execution import backpressure as module
from dlsearch.execution.backpressure import LEAST, BackPressure, needed
from dlsearch.tracking.journal import Journal, rows
from tests.study.studies import complete, draft, holder, opened


@contextmanager
def at_most(size):
    """No file of this process grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def small():
    """A file system of one MiB; not in pytest's folder, which a mount that is left behind would make immovable."""
    folder = Path(tempfile.mkdtemp(prefix="dlsearch-test-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def fill(folder: Path) -> Path:
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        while os.statvfs(folder).f_bavail:
            file.write(bytes(1 << 12))
        with pytest.raises(OSError, match="No space left") as error:
            file.write(bytes(1 << 12))
    assert is_full(error.value)
    return path


def test_what_says_that_there_is_no_room():
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        assert is_full(OSError(code, os.strerror(code)))
    assert not is_full(OSError(errno.EACCES, "no"))
    assert not is_full(None)
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert is_full(wrapped)


@pytest.mark.parametrize(
    "allocation", ["by the system", "unknown, as on macOS", "not on this file system"]
)
def test_room_is_tried_and_not_asked_for(tmp_path, monkeypatch, allocation):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if allocation == "unknown, as on macOS":
        monkeypatch.delattr(os, "posix_fallocate")
    elif allocation == "not on this file system":
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert has_room(tmp_path, 1 << 16)
    assert has_room(tmp_path, 3 << 20)
    with at_most(1 << 12):
        assert not has_room(tmp_path, 1 << 16)
        assert has_room(tmp_path, 1 << 10)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        has_room(tmp_path / "absent", 1)


def test_it_waits_says_so_once_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    said = []
    back_pressure = BackPressure(tmp_path, said.append)
    assert back_pressure.has_space()
    with at_most(1 << 12):
        back_pressure.note_disk_full("a checkpoint")
        back_pressure.note_disk_full("a journal", 3 * LEAST)
        assert not back_pressure.has_space()
    with at_most(2 * LEAST):
        assert not back_pressure.has_space(), "the larger of the two"
    assert back_pressure.has_space()
    assert back_pressure.has_space()
    assert said == [
        f"waiting for room in {tmp_path}: a checkpoint",
        f"there is room again in {tmp_path}",
    ]


def test_what_a_checkpoint_needs(tmp_path):
    assert needed(tmp_path, None) == LEAST
    assert needed(tmp_path, 10**6) == 32 * 10**6
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt/last.ckpt").write_bytes(bytes(3 * LEAST))
    assert needed(tmp_path, 10**9) == 6 * LEAST


def test_a_full_database_takes_nothing_back_and_goes_on_when_there_is_room(tmp_path, monkeypatch):
    """SQLite's own words; what was accepted before is there, and the claim that failed leaves no trace that stays."""
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    study = opened(tmp_path, draft(6))
    first = study.claim(holder())
    assert study.finish(first, complete(0.5))
    # all that was written moves from the log into the file
    with study.storage.engine.connect() as connection:
        connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
    wal = tmp_path / "dlsearch.db-wal"
    tried, between = [], []

    def claim():
        tried.append(1)
        if len(tried) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        return study.claim(holder())

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    back_pressure = BackPressure(tmp_path, lambda _: None)
    monkeypatch.setattr(module, "LEAST", 1)
    with at_most(max(wal.stat().st_size, 4096) if wal.exists() else 4096):
        with pytest.raises(Exception, match=r"disk is full|disk I/O error") as error:
            study.claim(holder())
        assert is_full(error.value)
        claim = back_pressure.insist(
            claim, give_up=lambda: False, between=lambda: between.append(1)
        )
    assert len(tried) == 3
    assert len(between) == 2
    assert claim is not None
    assert study.finish(claim, complete(0.7))
    numbers = [claim.number]
    while (claim := study.claim(holder())) is not None:
        numbers.append(claim.number)
        study.finish(claim, complete())
    assert sorted(numbers) == [1, 2, 3, 4, 5]
    with closing(sqlite3.connect(tmp_path / "dlsearch.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute(
            "SELECT count(*), count(DISTINCT number) FROM trials"
        ).fetchone() == (6, 6)
        assert database.execute(
            "SELECT count(*) FROM dlsearch_attempt WHERE state='running'"
        ).fetchone() == (0,)


def test_a_disk_that_is_broken_and_not_full_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    monkeypatch.setattr(module, "TRIES", 3)
    tried = []

    def fail():
        tried.append(1)
        raise OSError(errno.ENOSPC, "full, it says")

    with pytest.raises(OSError, match="full, it says"):
        BackPressure(tmp_path, lambda _: None).insist(
            fail, give_up=lambda: False, between=lambda: None
        )
    assert len(tried) == 3


def test_insisting_ends_when_told_and_at_other_errors(tmp_path):
    back_pressure = BackPressure(tmp_path, lambda _: None)

    def full():
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        back_pressure.insist(full, give_up=lambda: True, between=lambda: None)
    with pytest.raises(ZeroDivisionError):
        back_pressure.insist(lambda: 1 / 0, give_up=lambda: False, between=lambda: None)


def test_a_journal_on_a_full_disk_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.open("train", "r", "e")
    size = path.stat().st_size
    with at_most(size + 100):
        journal.metrics({"a": 1.0}, 0)
        journal.metrics({"b" * 90: 2.0}, 1)
        with pytest.raises(OSError, match="File too large"):
            journal.flush()
        assert path.stat().st_size == size + 100, "in the middle of a row"
        assert [row["row"] for row in rows(path)] == ["open", "metrics"]
    journal.metrics({"c": 3.0}, 2)
    journal.close()
    assert [row.get("step") for row in rows(path)] == [None, 0, 1, 2]


def test_a_checkpoint_on_a_full_file_system_is_the_one_before(small):
    """And the part of it that was written is gone: where a disk is full, its room is needed."""
    import torch
    from lightning_fabric.utilities.cloud_io import _atomic_save

    from dlsearch.training.state import checkpoints

    class Trainer:
        def save_checkpoint(self, path):
            _atomic_save({"state_dict": {"w": torch.zeros(20_000)}, "epoch": self.epoch}, path)

    trainer = Trainer()
    trainer.epoch = 1
    checkpoints.save(trainer, small, best=True)
    fill(small)
    trainer.epoch = 2
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(trainer, small, best=True)
    assert sorted(p.name for p in small.iterdir()) == ["best.ckpt", "filler", "last.ckpt"]
    (small / "filler").unlink()
    assert checkpoints.resume(small).path == small / "last.ckpt"
    assert checkpoints.read(small / "last.ckpt")["epoch"] == 1
    checkpoints.save(trainer, small, best=False)
    assert [
        checkpoints.read(small / f"{n}.ckpt")["epoch"] for n in ("last", "previous", "best")
    ] == [2, 1, 1]
