"""The seal of a process: which data it is for, what is said of it, and what has a second name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dlsearch.core.machine import landlock
from dlsearch.execution.processes import confinement
from dlsearch.execution.processes.confinement import find_linked, key_of_data, phrase, run_apart

OURS = "dlsearch.systems.vision.data.image.Digits"


def config(target: str = OURS, **data: Any) -> dict[str, Any]:
    node = {"_target_": target, "cache": "${paths.cache}", "seed": "${seed}", **data}
    return {"seed": 1, "data": node, "paths": {"cache": "${paths.store}/cache", "store": "s"}}


def test_batches_and_seeds_need_no_files_of_their_own() -> None:
    base = key_of_data(config(batch_size=32))
    assert key_of_data(config(batch_size=64)) == base
    assert key_of_data({**config(batch_size=32), "seed": 2}) == base
    assert key_of_data({**config(batch_size=32), "model": {"width": 3}}) == base


@pytest.mark.parametrize(
    "other",
    [
        config(split_seed=1),
        {**config(), "paths": {"cache": "elsewhere"}},
        config("dlsearch.systems.vision.data.image.MNIST"),
    ],
)
def test_another_split_place_or_set_does(other: dict[str, Any]) -> None:
    assert key_of_data(other) != key_of_data(config())


def test_a_seed_may_split_the_data_of_somebody_elses_module() -> None:
    one = config("wines.Data")
    assert key_of_data({**one, "seed": 2}) != key_of_data(one)


def test_a_task_that_brings_its_own_loaders() -> None:
    assert key_of_data({"data": None, "seed": 1}) == key_of_data({"data": None, "seed": 2})


def test_the_words() -> None:
    assert phrase({"by": "kernel", "landlock": 7}) == "kernel (Landlock ABI 7)"
    assert phrase({"by": "audit hook", "why": "no"}) == "audit hook (no)"


def test_a_process_that_no_fork_server_made_keeps_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(confinement.SCRATCH, raising=False)
    seal = confinement.hold_for(config())
    assert seal["by"] == "audit hook"
    assert "NoNewPrivs:\t1" not in Path("/proc/self/status").read_text() or landlock.abi() == 0


def test_without_landlock_the_audit_hook_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(landlock, "why_not", lambda: "this kernel has no Landlock")
    assert confinement.seal_process([]) == {
        "by": "audit hook",
        "why": "this kernel has no Landlock",
    }


def test_files_with_a_second_name_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "sealed"
    folder.mkdir()
    (folder / "alone").touch()
    (folder / "twice").touch()
    os.link(folder / "twice", tmp_path / "other")
    assert find_linked([str(folder), str(tmp_path / "absent")]) == [str(folder / "twice")]


def test_a_process_apart_leaves_nothing_here() -> None:
    kept: list[int] = []

    def work() -> dict[str, Any]:
        kept.append(1)
        return {"pid": os.getpid()}

    assert run_apart(work)["pid"] != os.getpid()
    assert kept == []


def test_where_a_process_apart_dies_this_one_does() -> None:
    with pytest.raises(SystemExit) as end:
        run_apart(lambda: os._exit(7))
    assert end.value.code == 7
