"""Only plain files are opened where others may have put something else."""

from __future__ import annotations

import os

import pytest

from dlsearch.core.files.regular import open_regular, open_to_append, read_text, write_text


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("mine")
    return path


def put(kind, path, victim):
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(victim.with_name("new"))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "device"])
def test_nothing_else_is_read_or_appended_to(tmp_path, victim, kind):
    path = tmp_path / "x"
    put(kind, path, victim)
    for action in (open_regular, read_text, open_to_append):
        with pytest.raises(OSError, match=r"x"):
            action(path)
    assert victim.read_text() == "mine"
    assert not (tmp_path / "new").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "hard link", "nothing"])
def test_a_file_that_is_made_takes_the_name_alone(tmp_path, victim, kind):
    path = tmp_path / "x"
    if kind == "hard link":
        path.hardlink_to(victim)
    else:
        put(kind, path, victim)
    write_text(path, "new ü")
    assert read_text(path) == "new ü"
    assert not path.is_symlink()
    assert victim.read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_a_second_name_is_not_written_to(tmp_path, victim):
    (tmp_path / "x").hardlink_to(victim)
    with pytest.raises(OSError, match="second name"):
        open_to_append(tmp_path / "x")
    assert read_text(tmp_path / "x") == "mine", "but read: it is in the store"


def test_a_plain_file_is_read_and_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "x")
    with open_to_append(tmp_path / "x", also_read=True) as file:
        os.write(file.fileno(), b"ab")
    with open_to_append(tmp_path / "x") as file:
        os.write(file.fileno(), b"c")
    assert read_text(tmp_path / "x") == "abc"
    with pytest.raises(OSError, match="larger"):
        read_text(tmp_path / "x", 2)
    with open_to_append(tmp_path / "/dev/null") as file:
        os.write(file.fileno(), b"gone")
