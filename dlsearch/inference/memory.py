"""A bound on the memory of what a file from elsewhere computes.

Where it asks for too much, it gets an error.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIB = 1 << 20
#: What reading a model takes beside its own size.
READING = 384 * _MIB
#: What one batch takes, and each input of it: VGG on pictures of 224 × 224 needs 30 MiB for each.
RUNNING = 512 * _MIB
EACH_INPUT = 128 * _MIB
#: Threads are started by the first batch, and each has a stack.
_STACK = 16 * _MIB


def to_run(batch: int) -> int:
    """What a batch may take, bytes."""
    return RUNNING + batch * EACH_INPUT


@contextmanager
def bounded(extra: int) -> Iterator[None]:
    """Let this process take `extra` bytes more than it has, and no more.

    Without bound where the system has none.

    Raises:
        MemoryError: Python asked for more. torch and onnxruntime raise errors of their own.
    """
    taken = _taken()
    if taken is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = taken + extra + _STACK * (os.cpu_count() or 1)
    for other in (soft, hard):
        limit = limit if other == resource.RLIM_INFINITY else min(limit, other)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _taken() -> int | None:
    """Bytes of private memory that this process may write to, as the bound counts them.

    None where unknown.
    """
    try:
        status = Path("/proc/self/status").read_text()
        for line in status.splitlines():
            if line.startswith("VmData:"):
                kibibytes = line.split()[1]
                return 1024 * int(kibibytes)
    except (OSError, ValueError, IndexError):
        return None
    return None
