"""Shares of a machine: what an engine gave becomes slots, threads and cards."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from dlsearch.execution.resources import slots as module
from dlsearch.execution.resources.allocation import Allotment, allotment
from dlsearch.execution.resources.slots import slots

GPUS = ["GPU-a", "GPU-b", "GPU-c"]


@pytest.fixture
def machine(monkeypatch):
    """A machine of 16 cores whose cards are `GPUS`, and what an engine gave of it."""

    def make(given, visible=GPUS):
        monkeypatch.setattr(module, "cores", lambda: 16)
        monkeypatch.setattr(module, "gpus", lambda: list(visible))
        monkeypatch.setattr(module, "cgroup", lambda _: [])
        monkeypatch.setattr(module, "available_mib", lambda: None)
        monkeypatch.setattr(module, "allotment", lambda: given)

    return make


@pytest.mark.parametrize(("given", "expected"), [
    (Allotment(), [("GPU-a", 5), ("GPU-b", 5), ("GPU-c", 5)]),
    (Allotment("Ray", 4.0, 0.0), [("cpu:0", 1), ("cpu:1", 1), ("cpu:2", 1), ("cpu:3", 1)]),
    (Allotment("Ray", 0.5, 0.0), [("cpu:0", 1)]),
    (Allotment("Ray", 2.0, 1.0), [("GPU-a", 2)]),
    (Allotment("Ray", 4.0, 2.0), [("GPU-a", 2), ("GPU-b", 2)]),
    (Allotment("Ray", 1.0, 0.5), [("GPU-a", 1)]),
    (Allotment("Slurm", 6.0, None), [("GPU-a", 2), ("GPU-b", 2), ("GPU-c", 2)]),
    (Allotment("Slurm", 64.0, 3.0), [("GPU-a", 5), ("GPU-b", 5), ("GPU-c", 5)]),
])  # fmt: skip
def test_a_share_of_a_machine_is_what_its_slots_use(machine, given, expected):
    machine(given)
    found = slots("auto", threads=None, accelerator="auto")
    assert [(slot.device, slot.threads) for slot in found] == expected


def test_a_fraction_of_a_card_holds_one_trial_whatever_may_share_a_whole_one(machine):
    machine(Allotment("Ray", 1.0, 0.25), ["GPU-b"])
    for per_gpu in (None, 4, "auto"):
        (slot,) = slots("auto", threads=None, accelerator="auto", per_gpu=per_gpu)
        assert slot.env["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    machine(Allotment("Ray", 4.0, 2.0))
    assert len(slots("auto", threads=None, accelerator="auto", per_gpu=2)) == 4


def test_a_share_without_a_card_leaves_the_machines_cards_alone(machine):
    machine(Allotment("Ray", 2.0, 0.0))
    assert [
        slot.env["CUDA_VISIBLE_DEVICES"] for slot in slots("auto", threads=None, accelerator="auto")
    ] == ["", ""]
    machine(Allotment())
    assert "CUDA_VISIBLE_DEVICES" not in slots("auto", threads=None, accelerator="cpu")[0].env


@pytest.mark.parametrize(("environment", "expected"), [
    ({}, Allotment()),
    ({"SLURM_CPUS_PER_TASK": "4"}, Allotment()),  # somebody's leftover: this is no job
    ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "8"}, Allotment("Slurm", 4.0, None)),
    ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8", "SLURM_GPUS_ON_NODE": "2"}, Allotment("Slurm", 8.0, 2.0)),
    ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8(x2)"}, Allotment("Slurm", None, None)),
])  # fmt: skip
def test_slurm_says_it_in_the_environment(environment, expected):
    assert allotment(environment) == expected


@pytest.mark.parametrize(("mode", "resources", "expected"), [
    ("worker", {"CPU": 2.0, "GPU": 0.5}, Allotment("Ray", 2.0, 0.5)),
    ("worker", {}, Allotment("Ray", 1.0, 0.0)),
    ("driver", {"CPU": 8.0}, Allotment()),
])  # fmt: skip
def test_ray_says_it_when_asked(monkeypatch, mode, resources, expected):
    context = SimpleNamespace(
        worker=SimpleNamespace(mode=mode), get_assigned_resources=lambda: resources
    )
    ray = SimpleNamespace(
        is_initialized=lambda: True, WORKER_MODE="worker", get_runtime_context=lambda: context
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert allotment({}) == expected
