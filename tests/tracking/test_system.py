from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dlsearch.tracking.journal import Journal, rows
from dlsearch.tracking.system import SystemSampler


def test_this_process_is_sampled(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal, SystemSampler(journal, 0.02):
        time.sleep(0.3)
    found = list(rows(tmp_path / "journal.jsonl"))
    assert [row["step"] for row in found] == list(range(len(found)))
    assert len(found) >= 3
    assert 5 < found[0]["values"]["system/rss_mb"] < 100_000
    assert found[0]["values"]["system/cpu_percent"] >= 0


def test_null_switches_it_off(tmp_path: Path) -> None:
    before = threading.active_count()
    with Journal(tmp_path / "journal.jsonl") as journal, SystemSampler(journal, None):
        assert threading.active_count() == before
    assert not (tmp_path / "journal.jsonl").exists()


def test_stop_does_not_wait_for_the_interval(tmp_path: Path) -> None:
    sampler = SystemSampler(Journal(tmp_path / "journal.jsonl"), 60.0)
    sampler.start()
    started = time.monotonic()
    sampler.stop()
    assert time.monotonic() - started < 30


def test_a_gpu_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        SystemSampler(journal, 0.02, "GPU-no-such-device"),
    ):
        time.sleep(0.15)
    assert all(
        "system/gpu_percent" not in row["values"] for row in rows(tmp_path / "journal.jsonl")
    )


@pytest.mark.gpu
def test_the_gpu_is_sampled_by_its_uuid(tmp_path: Path) -> None:
    import torch

    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    with Journal(tmp_path / "journal.jsonl") as journal, SystemSampler(journal, 0.1, uuid):
        held = torch.ones(64, 2**20, device="cuda")
        time.sleep(0.5)
        del held
    values = [row["values"] for row in rows(tmp_path / "journal.jsonl")]
    assert all(value["system/gpu_mem_mb"] >= 256 for value in values[1:])
    assert all(0 <= value["system/gpu_percent"] <= 100 for value in values)
