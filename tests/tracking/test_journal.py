from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
from pathlib import Path

import pytest

from dlsearch.tracking import journal as module
from dlsearch.tracking import layout
from dlsearch.tracking.journal import Journal, read, rows, run_id, shipped_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "studies" / "s" / "journal.jsonl"


def kinds(path: Path) -> list[str]:
    return [row["row"] for row in rows(path)]


def test_nothing_is_written_before_the_first_row(path: Path) -> None:
    Journal(path).close()
    assert not path.parent.exists()


def test_rows_come_back(path: Path) -> None:
    before = time.time_ns() // 1_000_000
    with Journal(path) as journal:
        key = journal.open(
            "trial", "s/t00000", "dlsearch/p/d", "studies/s/journal.jsonl", {"n": 1}, started_ms=5
        )
        journal.params({"hp/lr": 0.1, "hp/x": None, "hp/password": "x"})
        journal.metrics({"val/loss": 0.5, "bad key{}": 1}, 7)
        journal.tags({"t": True})
        journal.artifact(path.parent / "config.yaml", "study")
        journal.dataset("digits", "ab", "train", "http://u:p@h/x")
        journal.model("winner", {"test/accuracy": 0.9})
        journal.status("FINISHED")
    found = list(rows(path))
    assert [row["row"] for row in found] == [
        *("open", "params", "metrics", "tags", "artifact", "dataset", "model", "status")
    ]
    assert found[0]["key"] == key
    assert found[0]["started"] == 5
    assert found[1]["values"] == {"hp/lr": "0.1", "hp/x": "null", "hp/password": "***"}
    assert found[2]["values"] == {"val/loss": 0.5, "bad key__": 1.0}
    assert found[2]["step"] == 7
    assert found[4]["file"] == "config.yaml"
    assert "u:p" not in found[5]["source"]
    assert (found[6]["name"], found[6]["metrics"]) == ("winner", {"test/accuracy": 0.9})
    assert all(before <= row["t"] <= time.time_ns() // 1_000_000 for row in found)


def test_not_finite_numbers_are_kept_in_valid_json(path: Path) -> None:
    with Journal(path) as journal:
        journal.metrics({"a": math.nan, "b": math.inf, "c": -math.inf}, 0)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (row,) = rows(path)
    assert math.isnan(float(row["values"]["a"]))
    assert float(row["values"]["b"]) == math.inf
    assert float(row["values"]["c"]) == -math.inf


def test_reopening_keeps_the_key(path: Path) -> None:
    first = Journal(path)
    key = first.open("study", "study:s", "e")
    first.status("KILLED")
    first.close()
    second = Journal(path)
    assert second.open("study", "study:s", "e") == key
    second.close()
    assert kinds(path) == ["open", "status", "open"]


def test_a_torn_last_line_is_no_row(path: Path) -> None:
    with Journal(path) as journal:
        journal.open("study", "study:s", "e")
        journal.metrics({"a": 1}, 0)
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"row":"metrics","t":1,"step":1,"val')
    found, end = read(path)
    assert [row["row"] for row, _ in found] == ["open", "metrics"]
    assert end == whole
    with Journal(path) as journal:
        journal.metrics({"a": 2}, 2)
    assert [row.get("step") for row in rows(path)] == [None, 0, 2]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_any_cut_costs_at_most_the_cut_row(path: Path, cut: int) -> None:
    with Journal(path) as journal:
        for step in range(3):
            journal.metrics({"a": step}, step)
    os.truncate(path, path.stat().st_size - cut)
    with Journal(path) as journal:
        journal.metrics({"a": 9}, 9)
    steps = [row["step"] for row in rows(path)]
    assert steps[-1] == 9
    assert steps[:-1] == [0, 1, 2][: len(steps) - 1]
    assert len(steps) >= 3 if cut < 55 else len(steps) >= 2


def test_garbage_in_the_middle_is_passed_over(path: Path) -> None:
    with Journal(path) as journal:
        journal.metrics({"a": 1}, 1)
    with path.open("ab") as file:
        file.write(b"\xff\xfe\r\0 nonsense\n[1]\n{}\n")
    with Journal(path) as journal:
        journal.metrics({"a": 2}, 2)
    assert [row["step"] for row in rows(path)] == [1, 2]


def test_a_row_longer_than_the_block_is_read_whole(path: Path) -> None:
    with Journal(path) as journal:
        journal.params({"cfg/long": "x" * 5000})
        journal.metrics({"a": 1}, 1)
    found, end = read(path, 0, limit=100)
    assert len(found) == 1
    assert [row["row"] for row, _ in read(path, end)[0]] == ["metrics"]


def test_a_full_disk_is_an_oserror_and_costs_no_row(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path)
    journal.metrics({"a": 1}, 1)
    write, room = os.write, [10]

    def full(fd: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(room[0], len(data))
        room[0] -= taken
        return write(fd, bytes(data[:taken]))

    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        journal.flush()
    journal.metrics({"a": 2}, 2)
    room[0] = 10_000
    journal.close()
    assert [row["step"] for row in rows(path)] == [1, 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_the_real_full_device() -> None:
    journal = Journal(Path("/dev/full"))
    journal.metrics({"a": 1}, 1)
    with pytest.raises(OSError, match="No space"):
        journal.flush()


def test_threads_do_not_mix_lines(path: Path) -> None:
    journals = [Journal(path), Journal(path)]

    def work(which: int) -> None:
        for step in range(300):
            journals[which % 2].metrics({f"m{which}": step}, step)
            if step % 50 == 0:
                journals[which % 2].flush()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for journal in journals:
        journal.close()
    found = [(name, row["step"]) for row in rows(path) for name in row["values"]]
    assert len(found) == 1200
    for which in range(4):
        assert [step for name, step in found if name == f"m{which}"] == list(range(300))


def test_rows_are_buffered_until_flush(path: Path) -> None:
    journal = Journal(path)
    journal.metrics({"a": 1}, 1)
    assert not path.exists()
    journal.flush()
    assert kinds(path) == ["metrics"]
    journal.close()


def test_wrong_words_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="kind"):
        Journal(path).open("sweep", "x", "e")
    with pytest.raises(ValueError, match="status"):
        Journal(path).status("DONE")


def test_run_id_is_what_the_shipper_noted(path: Path) -> None:
    assert run_id(path) is None
    path.parent.mkdir(parents=True)
    shipped_path(path).write_text('{"run_id": "abc", "offset": 3}')
    assert run_id(path) == "abc"
    shipped_path(path).write_text('{"run_')
    assert run_id(path) is None


def test_names_that_mlflow_cannot_tell_apart_stay_apart(tmp_path):
    path = tmp_path / "journal.jsonl"
    names = ["val/recall@1", "val/recall#1", "val/recall_1"]
    with Journal(path) as journal:
        journal.metrics({name: float(at) for at, name in enumerate(names)}, 0)
        journal.metrics({f"best/{name}": float(at) for at, name in enumerate(sorted(names))}, 0)
    first, second = (row["values"] for row in rows(path))
    assert list(first.values()) == [0.0, 1.0, 2.0]
    assert next(iter(first)) == "val/recall_1"
    assert all(key == layout.key(key) for key in first)
    by_name = dict(zip(names, first, strict=True))
    assert list(second) == [f"best/{by_name[name]}" for name in sorted(names)]
