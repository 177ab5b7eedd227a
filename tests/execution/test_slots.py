"""Slots: how a machine is shared out."""

from __future__ import annotations

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.core.machine.nvml import DriverError, Gpu
from dlsearch.execution.resources import slots as module
from dlsearch.execution.resources.slots import gpu_memory, slots, slots_and_reason


@pytest.fixture
def machine(monkeypatch):
    def make(cores, gpus=()):
        monkeypatch.setattr(module, "cores", lambda: cores)
        monkeypatch.setattr(module, "gpus", lambda: list(gpus))
        monkeypatch.setattr(module, "cgroup", lambda _: [])
        monkeypatch.setattr(module, "available_mib", lambda: None)

    return make


@pytest.mark.parametrize(
    ("cores", "wanted", "expected"),
    [(2, "auto", (2, 1)), (8, 2, (2, 4)), (2, 4, (4, 1)), (7, 2, (2, 3))],
)
def test_cores_are_shared_out(machine, cores, wanted, expected):
    machine(cores)
    found = slots(wanted, threads=None, accelerator="auto")
    assert (len(found), found[0].threads) == expected
    assert found[0].env["OMP_NUM_THREADS"] == str(expected[1])
    assert "CUDA_VISIBLE_DEVICES" not in found[0].env


def test_a_gpu_is_a_slot_and_more_slots_than_gpus_share_them(machine):
    machine(16, ["GPU-a", "GPU-b"])
    assert [slot.device for slot in slots("auto", threads=None, accelerator="auto")] == [
        "GPU-a",
        "GPU-b",
    ]
    assert [slot.device for slot in slots(4, threads=None, accelerator="gpu")] == [
        "GPU-a",
        "GPU-b",
    ] * 2
    assert slots(1, threads=3, accelerator="auto")[0].env["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert slots("auto", threads=None, accelerator="cpu")[0].device == "cpu:0"


@pytest.mark.parametrize("wanted", [0, -1, "many", 2.0, None, True, 100_000])
def test_what_is_no_number_of_slots_is_refused(machine, wanted):
    machine(2)
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.workers"):
        slots(wanted, threads=None, accelerator="auto", key="hydra.launcher.workers")


def test_slots_per_gpu_multiplies_what_auto_finds_and_bounds_what_is_asked_for(machine):
    machine(16, ["GPU-a", "GPU-b"])
    options = {"threads": None, "accelerator": "auto"}
    assert [s.device for s in slots("auto", **options, per_gpu=2)] == ["GPU-a", "GPU-b"] * 2
    assert len(slots("auto", **options, per_gpu="auto")) == 16
    assert len(slots(3, **options, per_gpu=2)) == 3
    with pytest.raises(ConfigError, match=r"5 is more than worker\.slots_per_gpu=2 allows"):
        slots(5, **options, per_gpu=2)
    # it says nothing about cores
    assert len(slots("auto", threads=None, accelerator="cpu", per_gpu=2)) == 16


@pytest.mark.parametrize("per_gpu", [0, -1, "many", 2.0, True, 65])
def test_what_is_no_number_of_slots_per_gpu_is_refused_on_any_machine(machine, per_gpu):
    machine(2)
    with pytest.raises(ConfigError, match=r"worker\.slots_per_gpu"):
        slots("auto", threads=None, accelerator="auto", per_gpu=per_gpu)


def test_a_reason_is_given_for_what_was_not_asked_for(machine):
    machine(2)
    assert (
        slots_and_reason("auto", threads=None, accelerator="auto")[1]
        == "2 workers: 2 cores, one thread each"
    )
    assert slots_and_reason(2, threads=None, accelerator="auto")[1] is None


def test_the_memory_of_gpus_comes_from_the_driver(tmp_path, monkeypatch):
    first = Gpu(0, "GPU-1", "NVIDIA X", "580.1", total_mib=81559, free_mib=80000)
    second = Gpu(1, "GPU-2", "NVIDIA Y", "580.1", total_mib=None, free_mib=None)
    monkeypatch.setattr(module, "Path", lambda _: tmp_path)  # /dev/nvidia0 is there
    monkeypatch.setattr(module, "list_gpus", lambda: [first, second])
    assert gpu_memory() == {"GPU-1": (81559, 80000)}


def test_a_driver_that_fails_shows_no_gpus(tmp_path, monkeypatch):
    def fail():
        raise DriverError("Driver Not Loaded")

    monkeypatch.setattr(module, "Path", lambda _: tmp_path)  # /dev/nvidia0 is there
    monkeypatch.setattr(module, "list_gpus", fail)
    assert gpu_memory() == {}


def test_a_plan_says_why_so_many(machine):
    from dlsearch.cli.commands.plan import describe

    machine(6)
    found = describe(["model=linear", "data=digits", "worker.threads=2"], [])
    assert "3 workers: 6 cores, 2 threads each" in found.notices
    assert [slot.threads for slot in found.slots] == [2, 2, 2]
    assert not describe(["model=linear", "data=digits", "hydra.launcher.workers=4"], []).notices
