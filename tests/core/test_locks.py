from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import Timeout

from dlsearch.core.files.locks import exclusive_lock, file_lock

_HOLD = (
    "import sys; from pathlib import Path; from dlsearch.core.files.locks import {}\n"
    "with {}: print('held', flush=True); sys.stdin.read()"
)
_ALONE = ("file_lock", "file_lock(Path(sys.argv[1]))")
_SHARED = ("file_lock", "file_lock(Path(sys.argv[1]), shared=True)")
_OF_FILELOCK = ("exclusive_lock", "exclusive_lock(Path(sys.argv[1]))")


def hold(path: Path, kind: tuple[str, str]) -> subprocess.Popen[str]:
    """A process that holds a lock, and has said so."""
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD.format(*kind), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline().strip() == "held"
    return other


def is_free(path: Path, operation: int = fcntl.LOCK_EX) -> bool:
    """Whether the kernel would grant the lock, asked as any program asks."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("kind", [_ALONE, _SHARED, _OF_FILELOCK])
def test_the_kernel_holds_the_lock_and_releases_it_when_its_holder_is_killed(
    tmp_path: Path, kind: tuple[str, str]
) -> None:
    path = tmp_path / "lock"
    with hold(path, kind) as other:
        assert not is_free(path)
        assert is_free(path, fcntl.LOCK_SH) == (kind == _SHARED)
        other.kill()
        other.wait()
    assert path.exists()
    assert is_free(path)


def test_a_lock_that_is_held_alone_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    got = threading.Event()

    def wait_for_it() -> None:
        with file_lock(path):
            got.set()

    with file_lock(path):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not got.wait(0.2)
    assert got.wait(10)
    waiting.join()


def test_a_free_lock_stays_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path):
        pass
    with file_lock(path):
        pass
    assert path.exists()


def make_symlink(path: Path, target: Path) -> None:
    path.symlink_to(target)


def make_second_name(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def test_filelock_follows_no_symbolic_link(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("theirs")
    path = tmp_path / "lock"
    path.symlink_to(target)
    with (
        pytest.raises(OSError, match="symbolic link"),
        exclusive_lock(path).acquire(blocking=False),
    ):
        pass


@pytest.mark.parametrize("link", [make_symlink, make_second_name])
def test_a_lock_of_a_database_is_no_other_file(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("theirs")
    path = tmp_path / "lock"
    link(path, target)
    with pytest.raises(OSError, match=r"symbolic link|second name"), file_lock(path):
        pass


def test_a_file_system_without_locks_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no flock here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="no flock here"):
        exclusive_lock(tmp_path / "lock").acquire(blocking=False)
    with pytest.raises(OSError, match="no flock here"), file_lock(tmp_path / "other"):
        pass


def test_one_process_holds_it_once(tmp_path: Path) -> None:
    with (
        exclusive_lock(tmp_path / "lock"),
        pytest.raises(Timeout),
        exclusive_lock(tmp_path / "lock").acquire(blocking=False),
    ):
        pass
