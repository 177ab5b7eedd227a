"""The driver's answers; the tests marked gpu ask a real one."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from dlsearch.core.machine import nvml
from dlsearch.core.machine.nvml import DriverError, Gpu, GpuMeter, list_gpus

_MEMORY = {"a": SimpleNamespace(total=81559 << 20, free=80000 << 20, used=1559 << 20)}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A driver of two GPUs, the second of which says nothing of its memory; how often it is open."""
    count = {"open": 0}

    def change(by: int) -> None:
        count["open"] += by

    def memory(handle: str) -> Any:
        if handle not in _MEMORY:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return _MEMORY[handle]

    def by_uuid(uuid: str) -> str:
        if uuid not in ("GPU-a", "GPU-b"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid[-1]

    answers = {
        "nvmlInit": lambda: change(1),
        "nvmlShutdown": lambda: change(-1),
        "nvmlSystemGetDriverVersion": lambda: "580.1",
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: "ab"[index],
        "nvmlDeviceGetHandleByUUID": by_uuid,
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetName": lambda handle: f"NVIDIA {handle}",
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=37),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    return count


def test_gpus_are_listed_with_what_the_driver_says(driver: dict[str, int]) -> None:
    assert list_gpus() == [
        Gpu(0, "GPU-a", "NVIDIA a", "580.1", 81559, 80000),
        Gpu(1, "GPU-b", "NVIDIA b", "580.1", None, None),
    ]
    assert driver["open"] == 0


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert list_gpus() == []
    assert GpuMeter.open("GPU-a") is None


def test_a_driver_that_fails_is_an_error(
    driver: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: int) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lost)
    with pytest.raises(DriverError, match="GPU is lost"):
        list_gpus()
    assert driver["open"] == 0


def test_a_driver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: end.wait(30))
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 0)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(nvml, "TIMEOUT_SECONDS", 0.05)
    try:
        with pytest.raises(DriverError, match="no answer within"):
            list_gpus()
    finally:
        end.set()
        for thread in threading.enumerate():  # before the driver is the real one again
            if thread.name == "nvml":
                thread.join(10)


def test_a_meter_measures_one_gpu(driver: dict[str, int]) -> None:
    first = GpuMeter.open("GPU-a")
    second = GpuMeter.open("GPU-b")
    assert first is not None
    assert second is not None
    assert (first.load_percent(), first.used_mib()) == (37.0, 1559.0)
    assert second.used_mib() is None
    first.close()
    second.close()
    assert driver["open"] == 0


@pytest.mark.parametrize("uuid", ["", "0", "GPU-a,GPU-b", "GPU-none"])
def test_of_anything_else_there_is_no_meter(driver: dict[str, int], uuid: str) -> None:
    assert GpuMeter.open(uuid) is None
    assert driver["open"] == 0


def test_the_library_is_imported_with_the_first_question() -> None:
    code = "import sys, dlsearch.core.machine.nvml; print('pynvml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.gpu
def test_the_driver_lists_what_its_own_program_lists() -> None:
    query = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=True)
    assert [f"{gpu.index}, {gpu.uuid}, {gpu.name}" for gpu in list_gpus()] == (
        done.stdout.strip().splitlines()
    )
