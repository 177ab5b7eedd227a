"""What a store names is below it, without links, and a plain file or folder; whatever else it names is refused."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from dlsearch.core.files.inside import OutsideError, check_root, inside, is_below, is_inside, plain


@pytest.fixture
def store(tmp_path):
    """A store with a run, and a secret beside it."""
    store = tmp_path / "store"
    (store / "studies/s/t00000/ckpt").mkdir(parents=True)
    (store / "studies/s/t00000/config.yaml").write_text("a: 1\n")
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "elsewhere").mkdir()
    return store


LEGAL = [
    "studies", "studies/s/t00000/config.yaml", "studies/s/../s/t00000", "./studies//s", "not/there/yet", "a b/ü",
    "studies/s/t00000/config.yaml/below-a-file", "..hidden", "a..b/c",
]  # fmt: skip


@pytest.mark.parametrize("path", LEGAL)
def test_what_lies_below_is_taken(store, path):
    found = inside(store, path)
    assert found == Path(os.path.normpath(store / path))
    assert inside(store, store / path) == found, "absolute as well"
    assert is_inside(store, path)
    assert is_below(store, path)


OUTSIDE = [
    "..", "../secret", "../../etc/passwd", "studies/../../secret", "studies/s/../../../secret", "/etc/passwd", "/",
    "", ".", "studies/..", "//etc/passwd", "/proc/self/environ", "../store", "../store/", "../store2/x", "a\0b",
    "../" * 40 + "etc/passwd", "/dev/null", "studies/./../../secret",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_what_leads_out_is_refused(store, path):
    with pytest.raises(OutsideError) as refused:
        inside(store, path)
    assert "\n" not in str(refused.value)
    assert not is_inside(store, path)
    assert not is_below(store, path)


def test_a_neighbour_whose_name_begins_alike_is_outside(store):
    (store.parent / "store2").mkdir()
    assert not is_inside(store, store.parent / "store2/x")


@pytest.mark.parametrize("value", [b"studies", 7, None, ["studies"]])
def test_what_is_no_text_is_refused(store, value):
    with pytest.raises((OutsideError, TypeError)):
        inside(store, value)


LINKS = {
    "file": ("studies/s/t00000/best.ckpt", "../../../../secret"),
    "absolute": ("studies/s/t00000/best.ckpt", "/etc/passwd"),
    "folder": ("studies/s/t00001", "../../../elsewhere"),
    "study": ("studies/other", "/tmp"),
    "top": ("runs", "../elsewhere"),
    "dangling": ("studies/s/t00000/new", "/nonexistent/file"),
    "loop": ("studies/s/loop", "loop"),
    "within the store": ("studies/s/again", "t00000"),
    "to itself": ("studies/s/here", "."),
}


@pytest.mark.parametrize("kind", LINKS)
def test_no_link_is_followed(store, kind):
    name, target = LINKS[kind]
    (store / name).symlink_to(target)
    for path in (name, f"{name}/below", f"{name}/../{Path(name).name}"):
        with pytest.raises(OutsideError, match="symbolic link"):
            inside(store, path)


def special(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as made:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path is short
            try:
                made.bind(path.name)
            finally:
                os.chdir(here)


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_what_is_no_file_is_refused_and_not_opened(store, kind):
    special(store / "studies/s/x", kind)
    for path in ("studies/s/x", "studies/s/x/below"):
        with pytest.raises(OutsideError, match="neither a file nor a folder"):
            inside(store, path)
    with pytest.raises(OutsideError, match="neither a file nor a folder"):
        plain(store, "studies/s")


def test_a_name_too_long_for_the_system_is_refused(store):
    with pytest.raises(OutsideError):
        inside(store, "x" * 5000)


@pytest.mark.parametrize("how", ["link", "below a link", "relative"])
def test_the_store_itself_may_be_a_link(store, how, monkeypatch):
    link = store.parent / "link"
    link.symlink_to(store if how != "below a link" else store.parent)
    root = link if how != "below a link" else link / "store"
    if how == "relative":
        monkeypatch.chdir(store.parent)
        root = Path("link")
    given = inside(root, "studies/s/t00000/config.yaml")
    assert given == root / "studies/s/t00000/config.yaml"
    assert given.read_text() == "a: 1\n"
    assert inside(root, root / "studies/s") == root / "studies/s"
    assert inside(root, store / "studies/s") == root / "studies/s", "as it was resolved elsewhere"
    (store / "runs").symlink_to("/tmp")
    assert not is_inside(root, "runs")


def test_a_folder_is_plain_with_all_that_is_in_it(store):
    folder = store / "studies/s/t00000"
    assert plain(store, folder) == folder
    assert plain(store, "studies/none") == store / "studies/none"
    (folder / "ckpt/best.ckpt").write_text("x")
    (folder / "ckpt/latest.ckpt").symlink_to("best.ckpt")
    assert plain(store, folder), "a callback's own link stays within its folder"
    (folder / "ckpt/out").symlink_to("../../../../../secret")
    assert plain(store, folder, deep=False)
    with pytest.raises(OutsideError, match="symbolic link"):
        plain(store, folder)


@pytest.mark.parametrize(
    "name",
    ["dlsearch.db", "dlsearch.db-wal", "dlsearch.db.lock", "dlsearch.db.s.lock", "mlflow.db", "mlflow.db-journal",
     "shipper.log", "shipper.lock", "ui-mlflow.log", "ui-optuna.log", "studies", "runs", "artifacts", "look", "weights",
     "cache"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo"])
def test_what_dlsearch_keeps_in_the_root_is_plain(tmp_path, name, kind):
    check_root(tmp_path / "none")
    (tmp_path / "notes").symlink_to("/etc")
    check_root(tmp_path)
    if kind == "fifo":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/etc/hostname" if kind == "link" else "/nonexistent/x")
    with pytest.raises(OutsideError, match=re.escape(name)):
        check_root(tmp_path)


@pytest.mark.parametrize("name", ["dlsearch.db", "mlflow.db"])
def test_a_journal_that_names_a_file_to_remove_is_refused(tmp_path, name):
    victim = tmp_path / "victim"
    journal = tmp_path / f"{name}-journal"
    journal.write_bytes(bytes(512))
    check_root(tmp_path)
    path = os.fsencode(victim)
    total = sum(path) & 0xFFFFFFFF
    tail = (
        len(path).to_bytes(4, "big") + total.to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    )
    journal.write_bytes(bytes(512) + bytes(4) + path + tail)
    with pytest.raises(OutsideError, match="would remove"):
        check_root(tmp_path)


def test_what_is_said_of_a_name_is_one_printable_line(store):
    (store / "studies/\x1b[31m\nred").symlink_to("/tmp")
    with pytest.raises(OutsideError) as refused:
        inside(store, "studies/\x1b[31m\nred")
    assert str(refused.value).isprintable()
