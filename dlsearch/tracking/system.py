"""Load and memory of this process and of its GPU, sampled by a thread into the run's journal.

Only what belongs to the trial is sampled: its own process, and the one GPU that it was given, by UUID.
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from dlsearch.tracking.layout import SYSTEM_PREFIX

if TYPE_CHECKING:
    from dlsearch.tracking.journal import Journal

_MIB = 2**20


class SystemSampler:
    """Samples from :meth:`start` to :meth:`stop`; a context manager.

    Args:
        journal: Where the rows go, as ``system/…`` at the number of the sample.
        interval_s: Between samples; None switches the sampler off.
        gpu_uuid: ``GPU-…`` or ``MIG-…``; by default what ``CUDA_VISIBLE_DEVICES`` names, when it is one UUID.
    """

    def __init__(self, journal: Journal, interval_s: float | None, gpu_uuid: str | None = None) -> None:
        """Start nothing."""
        self._journal, self._interval = journal, interval_s
        self._gpu_uuid = gpu_uuid or os.environ.get("CUDA_VISIBLE_DEVICES", "")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless switched off."""
        if self._interval:
            self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)
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
        gpu = _Gpu.open(self._gpu_uuid)
        step = 0
        while not self._stop.wait(self._interval):
            with suppress(OSError, psutil.Error):  # a full disk is the training thread's to report
                rows = {"rss_mb": process.memory_info().rss / _MIB, "cpu_percent": process.cpu_percent(None)}
                rows |= gpu.sample() if gpu is not None else {}
                self._journal.metrics({f"{SYSTEM_PREFIX}{name}": value for name, value in rows.items()}, step)
            step += 1
        if gpu is not None:
            gpu.close()


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Gpu:
    """One GPU through the driver's own library: no process to start, no dependency."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle

    @classmethod
    def open(cls, uuid: str) -> _Gpu | None:
        if not uuid.startswith(("GPU-", "MIG-")) or "," in uuid:
            return None
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return None
        handle = ctypes.c_void_p()
        if library.nvmlInit_v2() != 0:
            return None
        if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != 0:
            library.nvmlShutdown()
            return None
        return cls(library, handle)

    def sample(self) -> dict[str, float]:
        """What the driver answers; a MIG slice has no utilisation of its own."""
        found: dict[str, float] = {}
        load, memory = _Utilization(), _Memory()
        if self._library.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(load)) == 0:
            found["gpu_percent"] = float(load.gpu)
        if self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory)) == 0:
            found["gpu_mem_mb"] = memory.used / _MIB
        return found

    def close(self) -> None:
        self._library.nvmlShutdown()
