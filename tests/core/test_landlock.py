"""Landlock: what is given up is out of reach, and nothing else is."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlsearch.core.machine import landlock

pytestmark = pytest.mark.skipif(not landlock.abi(), reason=landlock.why_not())


def confined(function: Callable[[], Any]) -> Any:
    """What a function returns in a child of this process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def can_read(path: Path) -> bool:
    try:
        path.read_bytes()
    except PermissionError:
        return False
    return True


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a/sealed/one", "a/sealed/kept/two", "a/beside", "b/three"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


def readable(tree: Path) -> list[str]:
    files = (path for path in sorted(tree.rglob("*")) if path.is_file())
    return [str(path.relative_to(tree)) for path in files if can_read(path)]


def test_a_folder_is_given_up_and_nothing_beside_it(tree: Path) -> None:
    def look() -> list[str]:
        landlock.confine([tree / "a/sealed"])
        return readable(tree)

    assert confined(look) == ["a/beside", "b/three"]
    assert len(readable(tree)) == 4, "this process has everything"


def test_a_single_file_and_one_that_does_not_exist(tree: Path) -> None:
    def look() -> list[str]:
        landlock.confine([tree / "a/sealed/one", tree / "a/absent"])
        return readable(tree)

    assert confined(look) == ["a/beside", "a/sealed/kept/two", "b/three"]


def test_a_folder_below_one_that_is_given_up_may_stay(tree: Path) -> None:
    def look() -> list[str]:
        landlock.confine([tree / "a/sealed"], kept=[tree / "a/sealed/kept"])
        return readable(tree)

    assert confined(look) == ["a/beside", "a/sealed/kept/two", "b/three"]


def test_a_link_leads_to_what_it_names(tree: Path) -> None:
    (tree / "b/out").symlink_to(tree / "a/sealed/one")
    (tree / "b/in").symlink_to(tree / "a/beside")

    def look() -> list[bool]:
        landlock.confine([tree / "a/sealed"])
        return [can_read(tree / "b/out"), can_read(tree / "b/in")]

    assert confined(look) == [False, True]


def test_what_is_named_by_a_link_is_given_up(tree: Path) -> None:
    (tree / "b/link").symlink_to(tree / "a/sealed")

    def look() -> list[str]:
        landlock.confine([tree / "b/link"])
        return readable(tree)

    assert "a/sealed/one" not in confined(look)


def test_the_second_time_adds_to_the_first(tree: Path) -> None:
    def look() -> list[str]:
        landlock.confine([tree / "a/sealed"])
        landlock.confine([tree / "b"])
        return readable(tree)

    assert confined(look) == ["a/beside"]


def test_files_can_be_made_read_and_moved_beside_it(tree: Path) -> None:
    def work() -> str:
        landlock.confine([tree / "a/sealed"])
        (tree / "b/new").mkdir()
        (tree / "b/new/file").write_text("made")
        (tree / "b/new/file").rename(tree / "b/moved")
        return (tree / "b/moved").read_text()

    assert confined(work) == "made"


def test_devices_memory_and_programs_stay_in_reach(tree: Path) -> None:
    def work() -> list[Any]:
        landlock.confine([tree / "a/sealed"])
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as shared:
            shared.write(b"shared")
            shared.flush()
            return [
                Path(shared.name).read_text(),
                len(Path("/dev/urandom").open("rb").read(4)),
                "Name:" in Path("/proc/self/status").read_text(),
                os.waitstatus_to_exitcode(os.system("true")),
            ]

    assert confined(work) == ["shared", 4, True, 0]


def test_a_folder_above_that_cannot_be_listed(tree: Path) -> None:
    """Root lists it all the same; what is needed below it stays in reach in any case."""
    (tree / "a").chmod(0o311)

    def look() -> list[bool]:
        landlock.confine([tree / "a/sealed"], needed=[tree / "a/beside"])
        return [can_read(tree / "a/beside"), can_read(tree / "a/sealed/one")]

    try:
        assert confined(look) == [True, False]
    finally:
        (tree / "a").chmod(0o755)


def test_a_place_that_shows_the_same_folder_is_an_alias(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "mounted").symlink_to(tree / "a")  # as a bind mount shows it
    mounts = [
        landlock._Mount("8:1", "/", "/"),
        landlock._Mount("8:1", str(tree / "a"), str(tree / "mounted")),
    ]
    monkeypatch.setattr(landlock, "_mounts", lambda: mounts)
    assert landlock.aliases(str(tree / "a/sealed")) == [str(tree / "mounted/sealed")]
    assert landlock.aliases(str(tree / "b")) == []


def test_too_many_single_files_are_refused_and_nothing_is_given_up(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "MAX_RULES", 3)

    def look() -> list[Any]:
        try:
            landlock.confine([tree / "a/sealed"])
        except landlock.CannotConfine as error:
            return [error.strerror, can_read(tree / "a/sealed/one")]
        return []

    assert confined(look) == ["too many single files would have to be listed", True]
