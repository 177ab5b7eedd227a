"""Who opens, reads, changes or removes the marker files, in whatever language: Linux tells by inotify."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_EVENTS = {
    0x1: "read",
    0x2: "write",
    0x4: "write",
    0x20: "read",
    0x40: "delete",
    0x80: "write",
    0x100: "write",
    0x200: "delete",
    0x400: "delete",
    0x800: "delete",
}
_MASK = sum(_EVENTS)
_IS_FOLDER, _IGNORED = 0x40000000, 0x8000
_HEAD = struct.Struct("iIII")


class Watch:
    """Watches folders and files below `box` from now on.

    Args:
        box: The sandbox.
        places: Folders and files, relative to it. What happens to any name in a folder is told.
        ignored: Names in those folders of which nothing is told.
    """

    def __init__(self, box: Path, places: list[str], ignored: tuple[str, ...] = ()) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._ignored = ignored
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._names: dict[int, str] = {}
        for place in places:
            number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(box / place), _MASK)
            if number < 0:
                raise OSError(ctypes.get_errno(), f"inotify_add_watch {place}")
            self._names[number] = place

    def seen(self) -> list[dict[str, str]]:
        """What happened since the last call, each kind once a name."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        while True:
            try:
                block = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                break
            at = 0
            while at < len(block):
                number, mask, _, length = _HEAD.unpack_from(block, at)
                name = block[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0").decode()
                at += _HEAD.size + length
                place = self._names.get(number, "?")
                if mask & _IGNORED or name in self._ignored:
                    continue
                if mask & _IS_FOLDER and mask & 0x21 and place == "home":
                    continue  # its names may be looked up
                for bit, what in _EVENTS.items():
                    if mask & bit:
                        where = f"{place}/{name}" if name else place
                        found.setdefault(
                            (what, where),
                            {"what": what, "event": "inotify", "detail": where, "at": ""},
                        )
        return list(found.values())

    def close(self) -> None:
        """Watch no more."""
        os.close(self._descriptor)
