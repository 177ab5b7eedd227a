"""What the NVIDIA driver says of the GPUs, asked through NVML in this process.

NVML touches no CUDA, so a process that forks later may ask. Nothing is imported before the first
question, and where there is no driver the answer is an empty list.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: A driver whose GPU has failed may never answer.
TIMEOUT_SECONDS = 20.0
_MIB = 1 << 20


class DriverError(Exception):
    """The driver is installed, and fails or does not answer."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, as the driver describes it.

    Args:
        index: Its number, in the order of the PCI bus.
        uuid: ``GPU-…``.
        name: The product.
        driver: The driver's version.
        total_mib: Its memory; None where the driver does not say.
        free_mib: The memory that is free now; None where the driver does not say.
    """

    index: int
    uuid: str
    name: str
    driver: str
    total_mib: int | None
    free_mib: int | None


def list_gpus() -> list[Gpu]:
    """Every GPU that the driver shows to this process; none where no driver is installed.

    Raises:
        DriverError: The driver fails, or does not answer within `TIMEOUT_SECONDS`.
    """
    answers: list[list[Gpu]] = []
    errors: list[DriverError] = []

    def ask() -> None:
        try:
            answers.append(_ask_driver())
        except DriverError as error:
            errors.append(error)

    # A thread, because a call into a driver that hangs cannot be interrupted.
    thread = threading.Thread(
        target=ask,
        name="nvml",
        daemon=True,
    )
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    if errors:
        raise errors[0]
    if not answers:
        raise DriverError(f"no answer within {TIMEOUT_SECONDS:.0f} s")
    return answers[0]


def _ask_driver() -> list[Gpu]:
    try:
        import pynvml
    except ImportError:  # an installation that left out some requirements
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return []
    except pynvml.NVMLError as error:
        raise DriverError(str(error)) from error
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        count = pynvml.nvmlDeviceGetCount()
        return [_describe_gpu(pynvml, index, driver) for index in range(count)]
    except pynvml.NVMLError as error:
        raise DriverError(str(error)) from error
    finally:
        pynvml.nvmlShutdown()


def _describe_gpu(nvml: Any, index: int, driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = _unless_unsupported(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        driver=driver,
        total_mib=None if memory is None else memory.total // _MIB,
        free_mib=None if memory is None else memory.free // _MIB,
    )


def _unless_unsupported(nvml: Any, question: Callable[[], Any]) -> Any:
    """The driver's answer; None where this kind of GPU has none."""
    try:
        return question()
    except nvml.NVMLError_NotSupported:
        return None


class GpuMeter:
    """Measures the load and the memory of one GPU. It is open until :meth:`close`."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        """Take over an NVML that is initialised; see :meth:`open`."""
        self._nvml = nvml
        self._handle = handle

    @classmethod
    def open(cls, uuid: str) -> GpuMeter | None:
        """A meter of the GPU, or of the slice of one, with this UUID.

        Args:
            uuid: ``GPU-…`` or ``MIG-…``. Of anything else there is no meter.

        Returns:
            None where there is no such GPU, or no driver.
        """
        if not uuid.startswith(("GPU-", "MIG-")) or "," in uuid:
            return None
        try:
            import pynvml
        except ImportError:  # an installation that left out some requirements
            return None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return None
        try:
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
        except pynvml.NVMLError:
            pynvml.nvmlShutdown()
            return None

    def load_percent(self) -> float | None:
        """The share of the last second in which it computed; a MIG slice has none of its own."""
        try:
            return float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
        except self._nvml.NVMLError:
            return None

    def used_mib(self) -> float | None:
        """The memory in use, of all processes; None where the driver does not say."""
        try:
            return float(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used / _MIB)
        except self._nvml.NVMLError:
            return None

    def close(self) -> None:
        """Give NVML back."""
        self._nvml.nvmlShutdown()
