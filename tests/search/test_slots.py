"""Slots: how a machine is shared out."""

from __future__ import annotations

import pytest

from dlsearch.config.errors import ConfigError
from dlsearch.search import slots as module
from dlsearch.search.slots import slots


@pytest.fixture
def machine(monkeypatch):
    def make(cores, gpus=()):
        monkeypatch.setattr(module, "cores", lambda: cores)
        monkeypatch.setattr(module, "gpus", lambda: list(gpus))

    return make


@pytest.mark.parametrize(
    ("cores", "wanted", "expected"), [(2, "auto", (2, 1)), (8, 2, (2, 4)), (2, 4, (4, 1)), (7, 2, (2, 3))]
)
def test_cores_are_shared_out(machine, cores, wanted, expected):
    machine(cores)
    found = slots(wanted, threads=None, accelerator="auto")
    assert (len(found), found[0].threads) == expected
    assert found[0].env["OMP_NUM_THREADS"] == str(expected[1])
    assert "CUDA_VISIBLE_DEVICES" not in found[0].env


def test_a_gpu_is_a_slot_and_more_slots_than_gpus_share_them(machine):
    machine(16, ["GPU-a", "GPU-b"])
    assert [slot.device for slot in slots("auto", threads=None, accelerator="auto")] == ["GPU-a", "GPU-b"]
    assert [slot.device for slot in slots(4, threads=None, accelerator="gpu")] == ["GPU-a", "GPU-b"] * 2
    assert slots(1, threads=3, accelerator="auto")[0].env["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert slots("auto", threads=None, accelerator="cpu")[0].device == "cpu:0"


@pytest.mark.parametrize("wanted", [0, -1, "many", 2.0, None, True, 100_000])
def test_what_is_no_number_of_slots_is_refused(machine, wanted):
    machine(2)
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.workers"):
        slots(wanted, threads=None, accelerator="auto", key="hydra.launcher.workers")
