"""A descriptor has one owner, who closes it once."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from dlsearch.core.files.descriptor import Descriptor


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_it_is_closed_once_and_a_strangers_file_of_the_same_number_stays_open(tmp_path) -> None:
    ours = Descriptor.open(tmp_path / "ours", os.O_WRONLY | os.O_CREAT)
    number = ours.fileno()
    ours.close()
    with Descriptor.open(tmp_path / "a stranger's", os.O_WRONLY | os.O_CREAT) as stranger:
        assert stranger.fileno() == number, "the kernel hands out the lowest number that is free"
        ours.close()
        os.write(stranger.fileno(), b"whole")
    assert (tmp_path / "a stranger's").read_bytes() == b"whole"
    assert ours.closed
    assert stranger.closed


def test_a_closed_one_has_no_number() -> None:
    read, write = Descriptor.pipe()
    with read, write:
        os.write(write.fileno(), b"x")
        assert os.read(read.fileno(), 1) == b"x"
    with pytest.raises(ValueError, match="closed"):
        read.fileno()


def test_another_owner_may_take_it_over() -> None:
    read, write = Descriptor.pipe()
    with read, Descriptor(write.detach()) as other:
        write.close()
        os.write(other.fileno(), b"x")
        assert os.read(read.fileno(), 1) == b"x"
    assert write.closed


def test_an_error_of_close_is_told_and_leaves_it_closed(monkeypatch) -> None:
    read, write = Descriptor.pipe()
    close = os.close

    def full(number: int) -> None:
        close(number)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", full)
        with pytest.raises(OSError, match="No space left"):
            write.close()
    write.close()
    assert write.closed
    assert os.read(read.fileno(), 1) == b""
    read.close()


def test_one_that_is_forgotten_does_not_leak() -> None:
    read, write = Descriptor.pipe()
    number = write.fileno()
    del write
    assert not is_open(number)
    assert os.read(read.fileno(), 1) == b""
    read.close()


def test_after_a_fork_each_process_closes_its_own() -> None:
    read, write = Descriptor.pipe()
    pid = os.fork()
    if pid == 0:  # it lives until it is killed, and has let go
        write.close()
        signal.pause()
    try:
        write.close()
        assert os.read(read.fileno(), 1) == b"", "nobody holds the other end"
        read.close()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
