"""Slots: where a machine's trials run.

By default one to a GPU, else one to a core, each with its share of threads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsearch.core.errors import ConfigError
from dlsearch.core.machine.nvml import DriverError, Gpu, list_gpus
from dlsearch.core.machine.threads import environment
from dlsearch.execution.resources.allocation import allotment
from dlsearch.execution.resources.capacity import (
    Machine,
    available_mib,
    cgroup,
    check_per_gpu,
    choose_workers,
    tightest_quota,
)


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
        env = environment(self.threads)
        if not self.device.startswith("cpu"):
            env |= {"CUDA_VISIBLE_DEVICES": self.device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        elif self.no_card:  # Ray leaves them visible to tasks that asked for none
            env["CUDA_VISIBLE_DEVICES"] = ""
        return env


def threads_of_study(document: Mapping[str, Any], asked: int | None) -> int | None:
    """CPU threads that each trial of a study trains with.

    Fixed when it is opened, since results depend on it.

    Args:
        document: The study's document.
        asked: ``worker.threads`` of who serves it; None where it does not say.

    Returns:
        None where nothing is fixed, and each machine shares its cores out: in a study that was
            opened for machines elsewhere, whose cores nobody knew, or by an older dlsearch.

    Raises:
        ConfigError: Another number is asked for.
    """
    fixed: int | None = document.get("threads")
    if fixed is None:
        return asked
    if asked not in (None, fixed):
        number = "one thread" if fixed == 1 else f"{fixed} threads"
        trials = f"trials of study {document['name']!r}"
        shown = f"{trials} train with {number}, and their results depend on it; got {asked}"
        raise ConfigError(
            "worker.threads",
            shown,
            f"worker.threads={fixed}, or leave it out",
        )
    return fixed


def cores() -> int:
    """CPU cores that this process may use, as the system says it.

    An engine may have given fewer.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """UUIDs of the GPUs that this process may use.

    Found without torch, which must not touch CUDA before a fork.
    """
    found = {str(gpu.index): gpu.uuid for gpu in _ask_driver()}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not found:
        return list(found.values())
    return [found.get(each.strip(), each.strip()) for each in visible.split(",") if each.strip()]


def gpu_memory() -> dict[str, tuple[int, int]]:
    """For each GPU's UUID its memory and what is free of it now, MiB.

    Slices of a GPU are not listed.
    """
    return {
        gpu.uuid: (gpu.total_mib, gpu.free_mib)
        for gpu in _ask_driver()
        if gpu.total_mib is not None and gpu.free_mib is not None
    }


def _ask_driver() -> list[Gpu]:
    if not Path("/dev/nvidia0").exists():
        return []
    try:
        return list_gpus()
    except DriverError:
        return []


def slots(
    wanted: Any,
    *,
    threads: int | None,
    accelerator: str,
    per_gpu: Any = None,
    key: str = "worker.slots",
) -> list[Slot]:
    """The slots of this machine; see :func:`slots_and_reason`."""
    return slots_and_reason(
        wanted,
        threads=threads,
        accelerator=accelerator,
        per_gpu=per_gpu,
        key=key,
    )[0]


def slots_and_reason(
    wanted: Any,
    *,
    threads: int | None,
    accelerator: str,
    per_gpu: Any = None,
    key: str = "worker.slots",
) -> tuple[list[Slot], str | None]:
    """The slots of this machine, and why so many in one line; None where their number was given.

    Args:
        wanted: How many, or ``auto``: see
            :func:`~dlsearch.execution.resources.capacity.choose_workers`.
        threads: CPU threads of each; None shares the cores out.
        accelerator: Lightning's word; ``cpu`` leaves GPUs alone.
        per_gpu: ``worker.slots_per_gpu``; on machines without a GPU it says nothing.
        key: Where `wanted` was configured, for messages.

    Raises:
        ConfigError: `wanted` is neither ``auto`` nor a positive number, or more than `per_gpu`
            allows.
    """
    per_gpu = check_per_gpu(per_gpu)
    given = allotment()
    devices = [] if accelerator == "cpu" else given.cards(gpus())
    if given.shares_a_card:  # that is how many share it: the engine has counted already
        per_gpu = None
    machine = Machine(
        given.cores(cores()),
        tightest_quota(cgroup("cpu.max")),
        available_mib(),
        len(devices),
    )
    reason = None
    if wanted == "auto":
        count, reason = choose_workers(
            machine,
            threads=threads,
            per_gpu=per_gpu,
        )
    elif isinstance(wanted, int) and not isinstance(wanted, bool) and 1 <= wanted <= 1024:
        count = wanted
    else:
        raise ConfigError(
            key,
            f"expected auto or a number from 1, got {wanted!r}",
            f"{key}=2",
        )
    if devices and isinstance(per_gpu, int) and count > per_gpu * len(devices):
        most = per_gpu * len(devices)
        raise ConfigError(
            key,
            f"{count} is more than worker.slots_per_gpu={per_gpu} allows here",
            f"{key}={most}",
        )
    share = threads or max(1, machine.usable // count)
    none = given.gpus == 0
    return [
        Slot(
            i,
            devices[i % len(devices)] if devices else f"cpu:{i}",
            share,
            none,
        )
        for i in range(count)
    ], reason
