"""Ways to read a file that was given up. Each returns what it got, or raises."""

from __future__ import annotations

import ctypes
import ctypes.util
import io
import linecache
import mmap
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHEATS: dict[str, Callable[[Path], bytes]] = {}
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_O_PATH = os.O_PATH


def cheat(function: Callable[[Path], bytes]) -> Callable[[Path], bytes]:
    CHEATS[function.__name__] = function
    return function


def _libc() -> Any:
    return ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)


def _read(number: int) -> bytes:
    if number < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        return os.read(number, 4096)
    finally:
        os.close(number)


def _output_of(*words: str) -> bytes:
    ended = subprocess.run(words, capture_output=True, check=False, timeout=20)
    if ended.returncode:
        raise OSError(ended.stderr.decode(errors="replace"))
    return ended.stdout


# -- Python's own ways ---------------------------------------------------------------------------------------------
@cheat
def builtin_open(path: Path) -> bytes:
    return open(path, "rb").read()  # noqa: PTH123


@cheat
def file_io_of_a_path(path: Path) -> bytes:
    with io.FileIO(path) as file:
        return file.read()


@cheat
def an_opener_of_ones_own(path: Path) -> bytes:
    with open("any", "rb", opener=lambda *_: os.open(path, os.O_RDONLY)) as file:
        return file.read()


@cheat
def a_name_in_a_folder_that_is_open(path: Path) -> bytes:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _read(os.open(path.name, os.O_RDONLY, dir_fd=folder))
    finally:
        os.close(folder)


@cheat
def the_folder_above_through_o_path(path: Path) -> bytes:
    folder = os.open(path.parent.parent, _O_PATH)
    try:
        return _read(os.open(f"{path.parent.name}/{path.name}", os.O_RDONLY, dir_fd=folder))
    finally:
        os.close(folder)


@cheat
def another_working_folder(path: Path) -> bytes:
    os.chdir(path.parent)
    return Path(path.name).read_bytes()


@cheat
def for_reading_and_writing(path: Path) -> bytes:
    return _read(os.open(path, os.O_RDWR))


@cheat
def in_a_thread(path: Path) -> bytes:
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(_libc_open(path)))
    thread.start()
    thread.join()
    return got[0]


@cheat
def a_module_that_reads_lines(path: Path) -> bytes:
    return "".join(linecache.getlines(str(path))).encode()


@cheat
def packed_by_zip(path: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.write(path, "it")
    return zipfile.ZipFile(packed).read("it")


# -- other names ---------------------------------------------------------------------------------------------------
@cheat
def renamed_within_its_folder(path: Path) -> bytes:
    other = path.with_name("other")
    path.rename(other)
    try:
        return other.read_bytes()
    finally:
        other.rename(path)


@cheat
def renamed_into_another_folder(path: Path) -> bytes:
    other = _free(path) / "moved"
    path.rename(other)
    try:
        return other.read_bytes()
    finally:
        other.rename(path)


@cheat
def its_folder_renamed(path: Path) -> bytes:
    other = path.parent.with_name("other")
    path.parent.rename(other)
    try:
        return (other / path.name).read_bytes()
    finally:
        other.rename(path.parent)


@cheat
def a_folder_above_it_moved(path: Path) -> bytes:
    other = _free(path) / "moved"
    path.parent.parent.rename(other)
    try:
        return (other / path.parent.name / path.name).read_bytes()
    finally:
        other.rename(path.parent.parent)


@cheat
def a_hard_link(path: Path) -> bytes:
    link = _free(path) / "link"
    os.link(path, link)
    return link.read_bytes()


@cheat
def a_hard_link_of_a_descriptor(path: Path) -> bytes:
    link = _free(path) / "link"
    number = os.open(path, _O_PATH)
    try:
        if _libc().linkat(number, b"", _AT_FDCWD, os.fsencode(link), _AT_EMPTY_PATH):
            raise OSError(ctypes.get_errno(), "linkat")
        return link.read_bytes()
    finally:
        os.close(number)


@cheat
def a_symbolic_link(path: Path) -> bytes:
    link = _free(path) / "symbolic"
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return link.read_bytes()


@cheat
def moved_by_shutil(path: Path) -> bytes:
    other = _free(path) / "moved"
    shutil.move(path, other)
    try:
        return other.read_bytes()
    finally:
        shutil.move(other, path)


@cheat
def copied_by_shutil(path: Path) -> bytes:
    return Path(shutil.copyfile(path, _free(path) / "copy")).read_bytes()


@cheat
def more_rights(path: Path) -> bytes:
    path.chmod(0o777)
    path.parent.chmod(0o777)
    return path.read_bytes()


# -- the kernel's other doors --------------------------------------------------------------------------------------
@cheat
def through_proc_self_root(path: Path) -> bytes:
    return Path(f"/proc/self/root{path}").read_bytes()


@cheat
def through_the_parents_root(path: Path) -> bytes:
    return Path(f"/proc/{os.getppid()}/root{path}").read_bytes()


@cheat
def through_the_first_process(path: Path) -> bytes:
    return Path(f"/proc/1/root{path}").read_bytes()


@cheat
def a_descriptor_without_rights_opened_again(path: Path) -> bytes:
    number = os.open(path, _O_PATH)
    try:
        return Path(f"/proc/self/fd/{number}").read_bytes()
    finally:
        os.close(number)


@cheat
def a_map_of_a_descriptor_without_rights(path: Path) -> bytes:
    number = os.open(path, _O_PATH)
    try:
        return mmap.mmap(number, 0, prot=mmap.PROT_READ)[:]
    finally:
        os.close(number)


@cheat
def a_map_of_a_file_open_to_append(path: Path) -> bytes:
    number = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        return mmap.mmap(number, 0, prot=mmap.PROT_READ)[:]
    finally:
        os.close(number)


@cheat
def sent_to_a_socket(path: Path) -> bytes:
    one, other = socket.socketpair()
    number = os.open(path, os.O_WRONLY)
    try:
        os.sendfile(one.fileno(), number, 0, 4096)
        return other.recv(4096)
    finally:
        os.close(number)


@cheat
def copied_by_the_kernel(path: Path) -> bytes:
    number = os.open(path, os.O_WRONLY)
    into = os.memfd_create("loot")
    try:
        os.copy_file_range(number, into, 4096, 0, 0)
        return os.pread(into, 4096, 0)
    finally:
        os.close(number)
        os.close(into)


@cheat
def libc_open(path: Path) -> bytes:
    return _libc_open(path)


def _libc_open(path: Path) -> bytes:
    return _read(_libc().open(os.fsencode(path), os.O_RDONLY))


@cheat
def libc_fopen(path: Path) -> bytes:
    libc = _libc()
    libc.fopen.restype = ctypes.c_void_p
    libc.fread.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    file = libc.fopen(os.fsencode(path), b"rb")
    if not file:
        raise OSError(ctypes.get_errno(), "fopen")
    buffer = ctypes.create_string_buffer(4096)
    libc.fread(buffer, 1, 4096, file)
    return buffer.value


@cheat
def a_system_call(path: Path) -> bytes:
    openat = {"x86_64": 257, "aarch64": 56}[os.uname().machine]
    return _read(_libc().syscall(openat, _AT_FDCWD, os.fsencode(path), os.O_RDONLY))


@cheat
def open_by_handle(path: Path) -> bytes:
    libc = _libc()
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.c_uint.from_buffer(handle).value = 128
    mount = ctypes.c_int()
    if libc.name_to_handle_at(_AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    folder = os.open(_free(path), os.O_RDONLY)
    try:
        return _read(libc.open_by_handle_at(folder, handle, os.O_RDONLY))
    finally:
        os.close(folder)


# -- other programs ------------------------------------------------------------------------------------------------
@cheat
def cat(path: Path) -> bytes:
    return _output_of("cat", str(path))


@cheat
def a_shell(path: Path) -> bytes:
    return _output_of("sh", "-c", f"exec 3<'{path}'; cat <&3")


@cheat
def dd_of_another_session(path: Path) -> bytes:
    return _output_of("setsid", "dd", f"if={path}", "status=none")


@cheat
def a_fresh_python(path: Path) -> bytes:
    code = f"import sys; sys.stdout.write(open({str(path)!r}).read())"
    return _output_of(sys.executable, "-I", "-c", code)


@cheat
def a_grandchild_without_a_parent(path: Path) -> bytes:
    return _output_of("sh", "-c", f"(cat '{path}' & wait $!)")


@cheat
def other_name_spaces(path: Path) -> bytes:
    return _output_of("unshare", "-U", "-r", "-m", "cat", str(path))


@cheat
def a_mount_of_its_folder(path: Path) -> bytes:
    free = _free(path)
    command = f"mount --bind '{path.parent}' '{free}' && cat '{free}/{path.name}'"
    return _output_of("unshare", "-U", "-r", "-m", "sh", "-c", command)


@cheat
def another_root(path: Path) -> bytes:
    command = f"import os; os.chroot({str(path.parent)!r}); print(open('/{path.name}').read())"
    return _output_of("unshare", "-U", "-r", sys.executable, "-c", command)


@cheat
def a_database_that_is_attached(path: Path) -> bytes:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("ATTACH DATABASE ? AS loot", (str(path.with_name("rows.db")),))
        return str(connection.execute("SELECT * FROM loot.rows").fetchall()).encode()
    finally:
        connection.close()


# -- processes that hold it ----------------------------------------------------------------------------------------
@cheat
def memory_of_a_process_that_holds_it(path: Path) -> bytes:
    pid, place = _holder(path)
    with open(f"/proc/{pid}/mem", "rb") as file:  # noqa: PTH123
        file.seek(place)
        return file.read(64)


@cheat
def process_vm_readv(path: Path) -> bytes:
    pid, place = _holder(path)
    buffer = ctypes.create_string_buffer(64)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 64)
    remote = (ctypes.c_size_t * 2)(place, 64)
    if _libc().process_vm_readv(pid, local, 1, remote, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")
    return buffer.raw


@cheat
def a_descriptor_of_a_process_that_holds_it(path: Path) -> bytes:
    pid, _ = _holder(path)
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
        if os.readlink(f"/proc/{pid}/fd/{name}") == str(path):  # noqa: PTH115
            return Path(f"/proc/{pid}/fd/{name}").read_bytes()
    raise FileNotFoundError


@cheat
def pidfd_getfd(path: Path) -> bytes:
    pid, _ = _holder(path)
    libc = _libc()
    number = os.pidfd_open(pid)
    for wanted in range(3, 32):
        stolen = libc.syscall(438, number, wanted, 0)
        if stolen >= 0 and os.fstat(stolen).st_ino == path.stat().st_ino:
            return os.pread(stolen, 4096, 0)
    raise OSError(ctypes.get_errno(), "pidfd_getfd")


@cheat
def ptrace(path: Path) -> bytes:
    pid, place = _holder(path)
    libc = _libc()
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(16, pid, None, None):  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0)
    words = [libc.ptrace(2, pid, place + 8 * n, None) for n in range(4)]  # PTRACE_PEEKDATA
    libc.ptrace(17, pid, None, None)  # PTRACE_DETACH
    return b"".join(word.to_bytes(8, sys.byteorder, signed=True) for word in words)


@cheat
def asked_of_the_fork_server(path: Path) -> bytes:
    """Has a process forked that has given up nothing, as the worker does."""
    from dlsearch.execution.processes.forkserver import ForkServer

    (folder,) = {Path(name).parent for name in [os.environ["DLSEARCH_SCRATCH"]]}
    server = ForkServer(str(folder / "fork.sock"), None, None)
    child = server.spawn("tests.security.cheats:_confess", {"path": str(path)}, env={}, log=None)
    answer = child.channel.receive()
    assert answer is not None
    return bytes.fromhex(answer["got"])


def _confess(channel: Any, payload: dict[str, Any]) -> None:
    channel.send({"got": Path(payload["path"]).read_bytes().hex()})


# -- our own modules -----------------------------------------------------------------------------------------------
@cheat
def our_record_of_the_seal_changed(path: Path) -> bytes:
    from dlsearch.core.machine import landlock
    from dlsearch.execution.processes import confinement

    confinement._held = None
    landlock.abi = lambda: 0
    landlock.confine = lambda *_, **__: 0
    return path.read_bytes()


@cheat
def confined_once_more_and_asked_for_everything(path: Path) -> bytes:
    from dlsearch.core.machine import landlock

    landlock.confine([])
    return path.read_bytes()


def _free(path: Path) -> Path:
    """A folder beside the sealed one, that may be written and read."""
    return path.parent.parent.parent / "free"


def _holder(path: Path) -> tuple[int, int]:
    """A process that was not confined and holds the file open, and its bytes in memory at a place."""
    pid, place = (_free(path) / "holder").read_text().split()
    return int(pid), int(place)


def run(channel: Any, payload: dict[str, Any]) -> None:
    """In a child of a fork server: cheat, confined or not, and say what came of it."""
    path = Path(payload["path"])
    if payload["confined"]:
        from dlsearch.core.machine import landlock

        landlock.confine([path.parent])
    try:
        got = CHEATS[payload["cheat"]](path)
        channel.send({"got": got.hex(), "error": None})
    except Exception as error:
        channel.send({"got": "", "error": f"{type(error).__name__}: {error}"})


def hold(channel: Any, payload: dict[str, Any]) -> None:
    """In a child: hold the file, open and in memory, until the other side has gone."""
    path = Path(payload["path"])
    with path.open("rb") as file:
        kept = ctypes.create_string_buffer(file.read())
        channel.send({"pid": os.getpid(), "place": ctypes.addressof(kept)})
        channel.receive()
