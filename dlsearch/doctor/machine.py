"""The machine and the store: cores, GPUs, memory, disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from dlsearch.core.machine import landlock
from dlsearch.core.machine.nvml import DriverError, list_gpus
from dlsearch.doctor.models import CpuRecord, GpuRecord, MemoryRecord, SealAbility, StoreRecord
from dlsearch.doctor.problems import Problems, first_line, format_size
from dlsearch.execution.processes.confinement import AUDIT_HOOK, KERNEL
from dlsearch.execution.resources.capacity import cgroup as _cgroup
from dlsearch.execution.resources.capacity import tightest_quota
from dlsearch.execution.resources.slots import cores

NETWORK_FILESYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}
)
MIN_FREE_BYTES = 1 << 30
MIN_MEMORY_BYTES = 2 << 30


def cpu(problems: Problems) -> CpuRecord:
    """Cores of the machine, those this process may use, and the quota of its container."""
    usable = cores()
    quota = _quota()
    if quota is not None and quota < usable:
        problems.say(
            f"this container may use {quota:g} of the {usable} cores that it sees",
            f"worker.slots={max(1, int(quota))}",
        )
    return CpuRecord(os.cpu_count(), usable, quota)


def _quota() -> float | None:
    return tightest_quota(_cgroup("cpu.max"))


def gpus(problems: Problems) -> list[GpuRecord]:
    """Every GPU that the driver knows, asked without torch."""
    try:
        found = list_gpus()
    except DriverError as error:
        problems.say(
            f"the NVIDIA driver fails: {first_line(error)}",
            "mend the driver, or trainer.accelerator=cpu",
        )
        return []
    return [
        GpuRecord(
            index=gpu.index,
            name=gpu.name,
            uuid=gpu.uuid,
            memory_mib=gpu.total_mib,
            driver=gpu.driver,
        )
        for gpu in found
    ]


def memory(problems: Problems) -> MemoryRecord:
    """Bytes of memory: of the machine, still available, and allowed to this container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return MemoryRecord(None, None, None)
    rows = dict(line.split(":", 1) for line in lines)
    total = _bytes_of(rows["MemTotal"])
    available = _bytes_of(rows["MemAvailable"])
    limits = [int(text) for text in _cgroup("memory.max") if text != "max"]
    limit = min(limits, default=None)
    left = min(available, limit or available)
    if left < MIN_MEMORY_BYTES:
        problems.say(
            f"only {format_size(left)} of memory is left",
            "end something, or set worker.slots=1",
        )
    return MemoryRecord(total, available, limit)


def seal() -> SealAbility:
    """Whether the kernel can hold the seal on the test set, or Python's audit hook must."""
    version = landlock.abi()
    if version:
        return SealAbility(KERNEL, version)
    return SealAbility(AUDIT_HOOK, 0, landlock.why_not())


def _bytes_of(text: str) -> int:
    """``  16384 kB``, as the system says it, in bytes."""
    kib, *_ = text.split()
    return int(kib) * 1024


def filesystem(path: Path) -> str | None:
    """The type of the file system that holds `path`; None where the system does not say."""
    try:
        rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return None
    found: tuple[Path, str] | None = None
    for row in rows:  # of two mounts on one place, the later one shows
        mount = Path(row[4].replace("\\040", " "))
        inside = path.resolve().is_relative_to(mount)
        if inside and (found is None or len(mount.parts) >= len(found[0].parts)):
            found = (mount, row[row.index("-") + 1])
    return found[1] if found else None


def store_folder(store: Path, storage_url: str, problems: Problems) -> StoreRecord:
    """Whether `store` can be written, has space and lies on a local disk; leaves nothing behind."""
    folder = store.resolve()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            writable = True
    except OSError as error:
        writable = False
        problems.say(
            f"the store {store} cannot be written: {first_line(error)}",
            "paths.store=… or DLSEARCH_STORE",
        )
    free = shutil.disk_usage(folder).free
    kind = filesystem(folder)
    network = kind is not None and (kind in NETWORK_FILESYSTEMS or kind.startswith("fuse."))
    if free < MIN_FREE_BYTES:
        problems.say(
            f"only {format_size(free)} are free at the store {store}",
            "free some, or name another: paths.store=…",
        )
    if network and storage_url.startswith("sqlite"):
        problems.say(
            f"the store {store} is on {kind}, a network file system, where SQLite's WAL corrupts",
            "put the store on a local disk, "
            "or the studies into PostgreSQL: study.storage=postgresql+psycopg://…",
        )
    return StoreRecord(
        path=str(store),
        exists=store.is_dir(),
        writable=writable,
        free=free,
        filesystem=kind,
        network=network,
    )
