"""The seal that the kernel holds: every way in :mod:`tests.security.cheats` gets nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dlsearch.core.machine import landlock
from dlsearch.execution.processes.forkserver import ForkServer
from tests.security.cheats import CHEATS

SECRET = b"what only the winner may be scored on: 7 2 1 0 4 1 4 9 5 9 0 6"
#: They need more than every machine gives, so that they may get nothing without the seal, too.
PRIVILEGED = {
    "a_descriptor_of_a_process_that_holds_it", "a_map_of_a_descriptor_without_rights", "a_map_of_a_file_open_to_append",
    "a_mount_of_its_folder", "another_root", "asked_of_the_fork_server", "copied_by_the_kernel", "memory_of_a_process_that_holds_it",
    "open_by_handle", "other_name_spaces", "pidfd_getfd", "process_vm_readv", "ptrace", "sent_to_a_socket",
    "through_the_first_process", "through_the_parents_root",
}  # fmt: skip

needs_landlock = pytest.mark.skipif(not landlock.abi(), reason=landlock.why_not())


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer.start(["tests.security.cheats"])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, server: ForkServer) -> Iterator[Path]:
    """A file in a folder of its own, a database beside it, and a process that holds the file."""
    store = tmp_path_factory.mktemp("store")
    path = store / "sealed" / "set" / "test"
    path.parent.mkdir(parents=True)
    path.write_bytes(SECRET)
    with closing(sqlite3.connect(path.with_name("rows.db"))) as rows, rows:
        rows.execute("CREATE TABLE rows (text)")
        rows.execute("INSERT INTO rows VALUES (?)", (SECRET.decode(),))
    (store / "free").mkdir()
    holder = server.spawn(
        "tests.security.cheats:hold",
        {"path": str(path)},
        env={},
        log=None,
    )
    held = holder.channel.receive()
    assert held is not None
    (store / "free/holder").write_text(f"{held['pid']} {held['place']}")
    yield path
    holder.channel.close()
    holder.reap()


@pytest.fixture(scope="module")
def tried(
    server: ForkServer, sealed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    logs = tmp_path_factory.mktemp("logs")

    def run(name: str, *, confined: bool) -> dict[str, Any]:
        payload = {"cheat": name, "path": str(sealed), "confined": confined}
        child = server.spawn("tests.security.cheats:run", payload, env={}, log=logs / f"{name}.log")
        answer = child.channel.receive()
        child.reap()
        child.close()
        for left in (sealed.parents[2] / "free").iterdir():
            if left.name != "holder":
                left.unlink()
        assert sealed.read_bytes() == SECRET, "the cheat has tidied up"
        return answer or {"got": "", "error": "died"}

    return run


@needs_landlock
@pytest.mark.parametrize("name", CHEATS)
def test_no_way_gets_a_byte(tried: Callable[..., Any], name: str) -> None:
    found = tried(name, confined=True)
    assert found["got"] == "", name


@pytest.mark.parametrize("name", sorted(set(CHEATS) - PRIVILEGED))
def test_the_same_way_gets_everything_without_the_seal(
    tried: Callable[..., Any], name: str
) -> None:
    found = tried(name, confined=False)
    assert SECRET in bytes.fromhex(found["got"]), found["error"]


def test_there_are_more_than_twenty() -> None:
    assert len(CHEATS) > 20
