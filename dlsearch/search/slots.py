"""Slots: where a machine's trials run. One to a GPU, else one to a CPU core, each with its share of threads."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsearch.config.errors import ConfigError


@dataclass(frozen=True)
class Slot:
    """One place for a trial.

    Args:
        index: Its number on this machine.
        device: ``cpu:0`` or a GPU's UUID.
        threads: CPU threads that a trial in it may use.
    """

    index: int
    device: str
    threads: int

    @property
    def env(self) -> dict[str, str]:
        """The environment that pins a trial to it, to be set before torch touches a device."""
        threads = str(self.threads)
        env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        if not self.device.startswith("cpu"):
            env |= {"CUDA_VISIBLE_DEVICES": self.device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return env


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """UUIDs of the GPUs that this process may use, found without torch (which must not touch CUDA before a fork)."""
    if not Path("/dev/nvidia0").exists():
        return []
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    found = dict(line.split(", ", 1) for line in asked.stdout.splitlines() if ", " in line)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(found.values())
    return [found.get(each.strip(), each.strip()) for each in visible.split(",") if each.strip()]


def slots(wanted: Any, *, threads: int | None, accelerator: str, key: str = "worker.slots") -> list[Slot]:
    """The slots of this machine.

    Args:
        wanted: How many, or ``auto``: one to a device.
        threads: CPU threads of each; None shares the cores out.
        accelerator: Lightning's word; ``cpu`` leaves GPUs alone.
        key: Where `wanted` was configured, for messages.

    Raises:
        ConfigError: `wanted` is neither ``auto`` nor a positive number.
    """
    devices = [] if accelerator == "cpu" else gpus()
    if wanted == "auto":
        count = len(devices) or cores()
    elif isinstance(wanted, int) and not isinstance(wanted, bool) and 1 <= wanted <= 1024:
        count = wanted
    else:
        raise ConfigError(key, f"expected auto or a number from 1, got {wanted!r}", f"{key}=2")
    share = threads or max(1, cores() // count)
    return [Slot(i, devices[i % len(devices)] if devices else f"cpu:{i}", share) for i in range(count)]
