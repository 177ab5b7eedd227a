"""Load and memory of this process and of its GPU, sampled by a thread into the run's journal.

Only what belongs to the trial is sampled: its own process, and the one GPU that it was given, by
UUID.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from dlsearch.core.machine.nvml import GpuMeter
from dlsearch.tracking.layout import SYSTEM_PREFIX

if TYPE_CHECKING:
    from dlsearch.tracking.journal import Journal

_MIB = 2**20


class SystemSampler:
    """Samples from :meth:`start` to :meth:`stop`; a context manager.

    Args:
        journal: Where the rows go, as ``system/…`` at the number of the sample.
        interval_s: Between samples; None switches the sampler off.
        gpu_uuid: ``GPU-…`` or ``MIG-…``; by default what ``CUDA_VISIBLE_DEVICES`` names, when it is
            one UUID.
    """

    def __init__(
        self,
        journal: Journal,
        interval_s: float | None,
        gpu_uuid: str | None = None,
    ) -> None:
        """Start nothing."""
        self._journal = journal
        self._interval = interval_s
        self._gpu_uuid = gpu_uuid or os.environ.get("CUDA_VISIBLE_DEVICES", "")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless switched off."""
        if self._interval:
            self._thread = threading.Thread(
                target=self._run,
                name="system-metrics",
                daemon=True,
            )
            self._thread.start()

    def stop(self) -> None:
        """End; no row is written afterwards."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> SystemSampler:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _run(self) -> None:
        process = psutil.Process()
        process.cpu_percent(None)  # the first answer has nothing to compare with
        meter = GpuMeter.open(self._gpu_uuid)
        sample = 0
        while not self._stop.wait(self._interval):
            with suppress(OSError, psutil.Error):  # a full disk is the training thread's to report
                values = _measure_process(process) | _measure_gpu(meter)
                named = {f"{SYSTEM_PREFIX}{name}": value for name, value in values.items()}
                self._journal.metrics(named, sample)
            sample += 1
        if meter is not None:
            meter.close()


def _measure_process(process: psutil.Process) -> dict[str, float]:
    return {
        "rss_mb": process.memory_info().rss / _MIB,
        "cpu_percent": process.cpu_percent(None),
    }


def _measure_gpu(meter: GpuMeter | None) -> dict[str, float]:
    """What the driver says of the GPU; nothing of what it does not say."""
    if meter is None:
        return {}
    found = {"gpu_percent": meter.load_percent(), "gpu_mem_mb": meter.used_mib()}
    return {name: value for name, value in found.items() if value is not None}
