"""What no command may do, done on purpose in a child of the warm process: the harness must see each of these."""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tests.security.foreign.inputs.payloads import pickled


def reads(box: Path) -> None:
    (box / "outside/secret.txt").read_text()


def reads_by_a_link(box: Path) -> None:
    (box / "work/mlruns/link").symlink_to(box / "outside/secret.txt")
    (box / "work/mlruns/link").read_text()


def reads_natively(box: Path) -> None:
    libc = ctypes.CDLL(None)
    descriptor = libc.open(os.fsencode(box / "outside/secret.txt"), os.O_RDONLY)
    libc.read(descriptor, ctypes.create_string_buffer(10), 10)
    libc.close(descriptor)


def reads_the_machine(box: Path) -> None:
    Path("/etc/passwd").read_text()


def reads_the_environment(box: Path) -> None:
    Path("/proc/self/environ").read_bytes()


def reads_names(box: Path) -> None:
    os.listdir(box / "outside")


def writes(box: Path) -> None:
    (box / "home/.bashrc").write_text("x")


def writes_beside(box: Path) -> None:
    (box / "work/new.txt").write_text("x")


def writes_by_a_link(box: Path) -> None:
    (box / "work/mlruns/out").symlink_to(box / "outside")
    (box / "work/mlruns/out/new").write_text("x")


def writes_natively(box: Path) -> None:
    libc = ctypes.CDLL(None)
    descriptor = libc.open(os.fsencode(box / "outside/ran"), os.O_WRONLY | os.O_CREAT, 0o644)
    libc.close(descriptor)


def writes_natively_beside(box: Path) -> None:
    ctypes.CDLL(None).mkdir(os.fsencode(box / "work/new"), 0o755)


def writes_a_database(box: Path) -> None:
    sqlite3.connect(box / "outside/x.db").close()


def deletes(box: Path) -> None:
    (box / "outside/victim.txt").unlink()


def deletes_a_folder(box: Path) -> None:
    shutil.rmtree(box / "outside/folder")


def deletes_natively(box: Path) -> None:
    ctypes.CDLL(None).unlink(os.fsencode(box / "outside/victim.txt"))


def deletes_by_renaming(box: Path) -> None:
    (box / "outside/victim.txt").rename(box / "work/mlruns/x")


def executes_in_a_shell(box: Path) -> None:
    os.system("true")


def executes_a_program(box: Path) -> None:
    subprocess.run(["true"], check=False)


def executes_by_spawning(box: Path) -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def executes_by_becoming(box: Path) -> None:
    os.execv("/bin/true", ["true"])


def executes_a_text(box: Path) -> None:
    eval("__import__('sys').audit('F0RE1" + "GN')")


def executes_a_module(box: Path) -> None:
    (box / "work/mlruns/foreign_module.py").write_text("x = 1\n")
    sys.path.append(str(box / "work/mlruns"))
    importlib.import_module("foreign_module")


def executes_a_module_of_another_name(box: Path) -> None:
    (box / "work/mlruns/something.py").write_text("x = 1\n")
    sys.path.append(str(box / "work/mlruns"))
    importlib.import_module("something")


def executes_a_library(box: Path) -> None:
    (box / "work/mlruns/x.so").write_bytes(b"no library")
    try:
        ctypes.CDLL(str(box / "work/mlruns/x.so"))
    except OSError:
        pass


def executes_in_another_python(box: Path) -> None:
    subprocess.run([sys.executable, "-c", "import sys; sys.audit('F0RE1GN')"], check=True)


def unpickles(box: Path) -> None:
    pickle.loads(pickled())


def connects(box: Path) -> None:
    with socket.socket() as link:
        link.settimeout(0.1)
        try:
            link.connect(("127.0.0.1", 9))
        except OSError:
            pass


def looks_a_host_up(box: Path) -> None:
    try:
        socket.getaddrinfo("foreign.invalid", 80)
    except OSError:
        pass


def reads_in_another_python(box: Path) -> None:
    subprocess.run([sys.executable, "-c", "print(open('/etc/passwd').read(0))"], check=True)


def reads_in_a_fork(box: Path) -> None:
    if (child := os.fork()) == 0:
        (box / "outside/secret.txt").read_text()
        os._exit(0)
    os.waitpid(child, 0)


def writes_later(box: Path) -> None:
    """When the command has ended."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(0.5)
        (box / "outside/late").write_text("x")
        os._exit(0)


def sets_the_environment(box: Path) -> None:
    os.environ["CXX"] = "F0RE1" + "GN"


def hangs(box: Path) -> None:
    time.sleep(1000)


def spins(box: Path) -> None:
    while True:
        pass


def hangs_in_a_fork(box: Path) -> None:
    if (child := os.fork()) == 0:
        time.sleep(1000)
    os.waitpid(child, 0)


def eats_memory(box: Path) -> None:
    taken = bytearray(300 << 20)
    taken[:: 1 << 12] = b"x" * len(taken[:: 1 << 12])
    time.sleep(1000)


def eats_memory_in_forks(box: Path) -> None:
    for _ in range(2):
        if os.fork() == 0:
            taken = bytearray(150 << 20)
            taken[:: 1 << 12] = b"x" * len(taken[:: 1 << 12])
            time.sleep(1000)
    time.sleep(1000)


def nothing(box: Path) -> None:
    """What a command may do."""
    (box / "work/mlruns/new").mkdir()
    (box / "work/mlruns/new/x").write_text("x")
    (box / "work/mlruns/new/x").rename(box / "work/mlruns/y")
    (box / "tmp/x").write_text("x")
    (box / "work/record/report.json").read_text()
    sqlite3.connect(box / "work/mlruns/x.db").close()
    shutil.rmtree(box / "work/mlruns/new")
    os.environ["OMP_NUM_THREADS"] = "1"
    pickle.loads(pickle.dumps({"a": [1, 2.0]}))
