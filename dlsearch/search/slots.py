"""Slots: where a machine's trials run. By default one to a GPU, else one to a core, each with its share of threads."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsearch.config.errors import ConfigError
from dlsearch.search.allotment import allotment
from dlsearch.search.capacity import Machine, available_mib, cgroup, check_per_gpu, choose_workers, tightest_quota


@dataclass(frozen=True)
class Slot:
    """One place for a trial.

    Args:
        index: Its number on this machine.
        device: ``cpu:0`` or a GPU's UUID.
        threads: CPU threads that a trial in it may use.
        no_card: Whether cards that the machine may have are somebody else's.
    """

    index: int
    device: str
    threads: int
    no_card: bool = False

    @property
    def env(self) -> dict[str, str]:
        """The environment that pins a trial to it, to be set before torch touches a device."""
        threads = str(self.threads)
        env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        if not self.device.startswith("cpu"):
            env |= {"CUDA_VISIBLE_DEVICES": self.device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        elif self.no_card:  # Ray leaves them visible to tasks that asked for none
            env["CUDA_VISIBLE_DEVICES"] = ""
        return env


def cores() -> int:
    """CPU cores that this process may use, as the system says it; an engine may have given fewer."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """UUIDs of the GPUs that this process may use, found without torch (which must not touch CUDA before a fork)."""
    found = {index: uuid for index, uuid, *_ in _ask_driver("index", "uuid")}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not found:
        return list(found.values())
    return [found.get(each.strip(), each.strip()) for each in visible.split(",") if each.strip()]


def gpu_memory() -> dict[str, tuple[int, int]]:
    """For each GPU's UUID its memory and what is free of it now, MiB; slices of a GPU are not listed."""
    rows = _ask_driver("uuid", "memory.total", "memory.free")
    return {uuid: (int(total), int(free)) for uuid, total, free in rows if total.isdigit() and free.isdigit()}


def _ask_driver(*fields: str) -> list[list[str]]:
    if not Path("/dev/nvidia0").exists():
        return []
    try:
        asked = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in asked.stdout.splitlines()]
    return [row for row in rows if len(row) == len(fields)]


def slots(
    wanted: Any, *, threads: int | None, accelerator: str, per_gpu: Any = None, key: str = "worker.slots"
) -> list[Slot]:
    """The slots of this machine; see :func:`slots_and_reason`."""
    return slots_and_reason(wanted, threads=threads, accelerator=accelerator, per_gpu=per_gpu, key=key)[0]


def slots_and_reason(
    wanted: Any, *, threads: int | None, accelerator: str, per_gpu: Any = None, key: str = "worker.slots"
) -> tuple[list[Slot], str | None]:
    """The slots of this machine, and why so many in one line; None where their number was given.

    Args:
        wanted: How many, or ``auto``: see :func:`~dlsearch.search.capacity.choose_workers`.
        threads: CPU threads of each; None shares the cores out.
        accelerator: Lightning's word; ``cpu`` leaves GPUs alone.
        per_gpu: ``worker.slots_per_gpu``; on machines without a GPU it says nothing.
        key: Where `wanted` was configured, for messages.

    Raises:
        ConfigError: `wanted` is neither ``auto`` nor a positive number, or more than `per_gpu` allows.
    """
    per_gpu, given = check_per_gpu(per_gpu), allotment()
    devices = [] if accelerator == "cpu" else given.cards(gpus())
    if given.shares_a_card:  # that is how many share it: the engine has counted already
        per_gpu = None
    machine = Machine(given.cores(cores()), tightest_quota(cgroup("cpu.max")), available_mib(), len(devices))
    reason = None
    if wanted == "auto":
        count, reason = choose_workers(machine, threads=threads, per_gpu=per_gpu)
    elif isinstance(wanted, int) and not isinstance(wanted, bool) and 1 <= wanted <= 1024:
        count = wanted
    else:
        raise ConfigError(key, f"expected auto or a number from 1, got {wanted!r}", f"{key}=2")
    if devices and isinstance(per_gpu, int) and count > per_gpu * len(devices):
        most = per_gpu * len(devices)
        raise ConfigError(key, f"{count} is more than worker.slots_per_gpu={per_gpu} allows here", f"{key}={most}")
    share = threads or max(1, machine.usable // count)
    none = given.gpus == 0
    return [Slot(i, devices[i % len(devices)] if devices else f"cpu:{i}", share, none) for i in range(count)], reason
