"""Landlock: a process gives up files, for itself and for all that it will ever start.

It needs Linux 5.19 or newer and no rights. What was given up cannot be had back, whichever way the
file is named: the kernel looks at the file, not at its name. An already open file stays open.

A ruleset of Landlock's is a list of what stays in reach, of whole folders or single files. So for
each folder above a file that is given up, everything else in it is listed. What is made in such a
folder afterwards can be written, but not read.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.core.files.descriptor import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# system calls, with the same numbers on both machines
_MACHINES = ("x86_64", "aarch64")
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
#: The first version that lets files be renamed between folders that stay in reach.
_OLDEST_ABI = 2

_READ_FILE = 1 << 2
_REFER = 1 << 13  # to link or rename a file into another folder
_HANDLED = _READ_FILE | _REFER

#: With these root reads files past their names: of handles, devices, memory and other processes.
_CAPABILITIES = {
    "dac_read_search": 2,
    "sys_module": 16,
    "sys_rawio": 17,
    "sys_ptrace": 19,
    "sys_admin": 21,
    "mknod": 27,
    "perfmon": 38,
    "bpf": 39,
}
_CAPABILITY_VERSION = 0x20080522

#: More single files than this are not listed one by one.
MAX_RULES = 200_000


class CannotConfine(OSError):
    """The kernel, or what surrounds this process, does not let it give up files."""


def abi() -> int:
    """The version of the kernel's Landlock; 0 where there is none that is new enough."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return 0
    version = int(_libc().syscall(_CREATE_RULESET, None, 0, _ASK_VERSION))
    return version if version >= _OLDEST_ABI else 0


def why_not() -> str:
    """Why there is no Landlock here, in a few words."""
    if sys.platform != "linux":
        return f"{platform.system()} has no Landlock"
    if platform.machine() not in _MACHINES:
        return f"Landlock is not known on {platform.machine()}"
    version = int(_libc().syscall(_CREATE_RULESET, None, 0, _ASK_VERSION))
    if version > 0:
        return f"Landlock's version {version} is too old, Linux 5.19 has the next"
    if ctypes.get_errno() == errno.EOPNOTSUPP:
        return "Landlock is switched off in this kernel"
    return "this kernel has no Landlock, or the container forbids it"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@dataclass
class _Node:
    """A folder or a file on the way to one that is given up.

    Args:
        children: Below it, by name.
        given_up: Whether it is out of reach, with all that lies in it.
        kept: Whether it stays in reach, although something above it does not.
    """

    children: dict[str, _Node] = field(default_factory=dict)
    given_up: bool = False
    kept: bool = False

    def at(self, path: str) -> _Node:
        """The node of an absolute path; it is made where there is none."""
        node = self
        for name in Path(path).parts[1:]:
            node = node.children.setdefault(name, _Node())
        return node


def confine(
    given_up: Iterable[str | os.PathLike[str]],
    *,
    kept: Iterable[str | os.PathLike[str]] = (),
    needed: Iterable[str | os.PathLike[str]] = (),
) -> int:
    """Give up files and folders: no process from here on reads, links or moves them.

    Args:
        given_up: Files and folders; those that do not exist are passed over.
        kept: Folders below them that stay in reach.
        needed: Paths that stay in reach also where a folder above them cannot be listed.

    Returns:
        How many rules it took.

    Raises:
        CannotConfine: It is not possible here. Nothing is given up.
    """
    root = _Node()
    paths = {os.path.realpath(path) for path in given_up}
    paths |= set(_block_devices())
    existing = {path for path in paths if os.path.lexists(path)}
    existing |= {alias for path in existing for alias in aliases(path)}
    for path in existing:
        root.at(path).given_up = True
    for each in kept:
        root.at(os.path.realpath(each)).kept = True
    for each in needed:
        _mark_needed(root, os.path.realpath(each))
    libc = _libc()
    attributes = struct.pack("=Q", _HANDLED)
    number = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if number < 0:
        raise CannotConfine(ctypes.get_errno(), why_not())
    with Descriptor(number) as ruleset:
        count = 0
        for path in _in_reach(os.sep, root):
            count += _allow(libc, ruleset.fileno(), path)
            if count > MAX_RULES:
                raise CannotConfine(errno.E2BIG, "too many single files would have to be listed")
        _drop_capabilities(libc)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise CannotConfine(ctypes.get_errno(), "no_new_privs is refused")
        if libc.syscall(_RESTRICT_SELF, ruleset.fileno(), 0):
            raise CannotConfine(ctypes.get_errno(), "Landlock is refused")
    return count


def _mark_needed(root: _Node, path: str) -> None:
    """Note a path down that matters where a folder above it cannot be listed."""
    node = root
    for name in Path(path).parts[1:]:
        if node.given_up or not node.children:
            return
        known = node.children.get(name)
        if known is None:
            node.children[name] = _Node(kept=True)
            return
        node = known


def _in_reach(folder: str, node: _Node) -> Iterator[str]:
    """What stays in reach of a folder on the way to something that is given up."""
    if not node.children and not node.given_up:
        yield folder
        return
    names = set(node.children)
    if not node.given_up:
        with suppress(OSError):  # it can be passed, and not listed
            names |= set(os.listdir(folder))  # noqa: PTH208 a hundred thousand names
    for name in names:
        path = os.path.join(folder, name)  # noqa: PTH118
        child = node.children.get(name)
        if child is None or child.kept:
            yield path
        elif child.given_up:
            if child.children:
                yield from _in_reach(path, child)
        elif child.children:
            yield from _in_reach(path, _Node(child.children, given_up=node.given_up))


def _allow(libc: ctypes.CDLL, ruleset: int, path: str) -> int:
    """Add the rule that keeps a path in reach; returns how many rules that were."""
    try:
        file = Descriptor.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # it has gone, or cannot be reached at all
        return 0
    with file:
        kind = os.fstat(file.fileno()).st_mode
        if stat.S_ISLNK(kind):  # what it leads to has its own rule
            return 0
        allowed = _HANDLED if stat.S_ISDIR(kind) else _READ_FILE
        rule = struct.pack("=Qi", allowed, file.fileno())
        if libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0):
            return 0
    return 1


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up what root could read files past their names with."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)
    if libc.capget(header, held):
        return
    effective, permitted, inheritable, effective_2, permitted_2, inheritable_2 = struct.unpack(
        "=6I", held.raw
    )
    low = 0
    high = 0
    for number in _CAPABILITIES.values():
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        if number < 32:
            low |= 1 << number
        else:
            high |= 1 << number - 32
    rest = struct.pack(
        "=6I",
        effective & ~low,
        permitted & ~low,
        inheritable & ~low,
        effective_2 & ~high,
        permitted_2 & ~high,
        inheritable_2 & ~high,
    )
    libc.capset(header, rest)


def _block_devices() -> list[str]:
    """The disks that this process could read: files lie on them.

    None where a GPU's driver has yet to make a device beside them: that would be out of reach.
    """
    driver = Path("/dev/nvidiactl")
    if driver.exists() and not driver.with_name("nvidia-uvm").exists():
        return []
    try:
        names = os.listdir("/sys/class/block")  # noqa: PTH208
    except OSError:
        return []
    devices = [f"/dev/{name.replace('!', '/')}" for name in names]
    return [device for device in devices if os.access(device, os.R_OK)]


@dataclass(frozen=True)
class _Mount:
    """A line of the table of mounts.

    Args:
        device: Major and minor number.
        root: Which folder of the file system shows.
        place: Where.
    """

    device: str
    root: str
    place: str


def _mounts() -> list[_Mount]:
    found: list[_Mount] = []
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            _, _, device, root, place, *_ = line.split(" ")
            found.append(_Mount(device, _unescape(root), _unescape(place)))
    return found


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def aliases(path: str) -> list[str]:
    """Other names that a file or folder has because its file system is mounted twice."""
    mounts = _mounts()
    own = [each for each in mounts if _is_below(path, each.place)]
    if not own:
        return []
    here = max(own, key=lambda each: len(each.place))
    inside = _join(here.root, os.path.relpath(path, here.place))
    found: list[str] = []
    for mount in mounts:
        if mount.device != here.device or not _is_below(inside, mount.root):
            continue
        below = os.path.relpath(inside, mount.root)
        name = _join(mount.place, below)
        with suppress(OSError):
            if name != path and os.path.samefile(name, path):  # noqa: PTH121
                found.append(name)
    return found


def _join(folder: str, name: str) -> str:
    return os.path.normpath(os.path.join(folder, name))  # noqa: PTH118


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
