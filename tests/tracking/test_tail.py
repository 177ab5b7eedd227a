from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dlsearch.core.retry import Backoff
from dlsearch.tracking.journal import Journal, read
from dlsearch.tracking.mlflow import pump as pump_module
from dlsearch.tracking.mlflow.pump import Pump
from dlsearch.tracking.tail import Discovery, StoreLock, Tail, backlog, discover, server_id


def make(store: Path, name: str, *, rows: int = 3, status: str | None = "FINISHED") -> Path:
    path = store / name
    with Journal(path) as journal:
        journal.open("trial", name, "e")
        for step in range(rows):
            journal.metrics({"a": step}, step)
        if status:
            journal.status(status)
    return path


PLACES = [
    "studies/s/journal.jsonl",
    "studies/s/t00001/journal.a1.jsonl",
    "studies/s/confirm/journal.jsonl",
    "studies/s/confirm/t00001/journal.a2.jsonl",
    "runs/r/journal.jsonl",
]


def test_journals_are_found_where_they_stand(tmp_path: Path) -> None:
    made = {make(tmp_path, place) for place in PLACES}
    make(tmp_path, "elsewhere/journal.jsonl")
    assert set(discover(tmp_path)) == made
    discovery = Discovery(tmp_path)
    assert set(discovery.scan()[0]) == made
    assert discovery.scan()[0] == []
    late = make(tmp_path, "studies/s/t00002/journal.a1.jsonl")
    assert discovery.scan()[0] == [late]


def test_notes_are_kept_and_void_for_another_server(tmp_path: Path) -> None:
    path = make(tmp_path, PLACES[0])
    tail = Tail.load(path, "one")
    tail.run_id = "r"
    tail.commit(20)
    assert (Tail.load(path, "one").run_id, Tail.load(path, "one").offset) == ("r", 20)
    assert Tail.load(path, "two").run_id is None
    path.write_bytes(b"")  # shorter than what was sent: another file
    assert Tail.load(path, "one").offset == 0


def test_backlog_counts_whole_lines_of_journals_that_open_a_run(tmp_path: Path) -> None:
    path = make(tmp_path, PLACES[0])
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"torn')
    headless = tmp_path / PLACES[1]
    with Journal(headless) as journal:
        journal.metrics({"a": 1}, 1)
    assert backlog(tmp_path, "x") == {path: whole}
    Tail.load(path, "x").commit(whole)
    assert backlog(tmp_path, "x") == {}


def test_the_lock_is_of_one_and_dies_with_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dlsearch.tracking.tail import StoreLock; "
        "lock = StoreLock(Path(sys.argv[1])); print(lock.acquire(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        lock = StoreLock(tmp_path)
        assert not lock.acquire()
        other.kill()
        other.wait()
    assert lock.acquire()
    assert lock.acquire()
    lock.release()


class Recorder:
    """Takes rows as a server does; can be out of order, as a whole or for one journal."""

    server = server_id("here")

    def __init__(self) -> None:
        self.got: dict[Path, int] = {}
        self.asked: list[Path] = []
        self.down = False
        self.poison: set[Path] = set()

    def advance(self, tail: Tail) -> int:
        self.asked.append(tail.path)
        if self.down or tail.path in self.poison:
            raise ConnectionError("refused")
        found, end = read(tail.path, tail.offset)
        tail.seen = tail.path.stat().st_size
        tail.ended = any(row["row"] == "status" for row, _ in found) or tail.ended
        tail.commit(end)
        self.got[tail.path] = self.got.get(tail.path, 0) + len(found)
        return len(found)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_BETWEEN_ROUNDS", "_BETWEEN_ATTEMPTS"):
        monkeypatch.setattr(pump_module, name, Backoff(0.0, 0.0))


def test_a_pump_sends_everything_once_and_leaves_the_finished_alone(tmp_path: Path) -> None:
    made = {make(tmp_path, place) for place in PLACES}
    recorder = Recorder()
    pump = Pump(tmp_path, recorder)
    assert pump.round() == 5 * 5
    assert pump.idle
    recorder.asked.clear()
    for _ in range(3):
        assert pump.round(full=True) == 0
    assert recorder.asked == []
    assert set(pump.touched) == {path.resolve() for path in made}


def test_a_finished_journal_that_goes_on_is_seen(tmp_path: Path) -> None:
    path = make(tmp_path, PLACES[0])
    recorder = Recorder()
    pump = Pump(tmp_path, recorder)
    pump.round()
    with Journal(path) as journal:
        journal.open("study", "x", "e")
    assert pump.round(full=True) == 1


def test_a_server_that_is_down_is_waited_for(tmp_path: Path) -> None:
    for number in range(6):
        make(tmp_path, f"studies/s/t{number:05d}/journal.a1.jsonl")
    recorder = Recorder()
    recorder.down = True
    pump = Pump(tmp_path, recorder)
    assert pump.round(full=True) == 0
    assert pump.failing
    assert len(recorder.asked) == 2  # two refusals say that it is the server, not a journal
    assert not pump.idle
    recorder.down = False
    assert pump.round(full=True) == 6 * 5
    assert pump.idle
    assert not pump.failing
    assert pump.delay == 0.0


def test_one_bad_journal_stops_no_other(tmp_path: Path) -> None:
    made = [make(tmp_path, f"studies/s/t{number:05d}/journal.a1.jsonl") for number in range(4)]
    recorder = Recorder()
    recorder.poison = {made[1].resolve()}
    pump = Pump(tmp_path, recorder)
    pump.round(full=True)
    assert set(recorder.got) == {path.resolve() for path in made if path != made[1]}
    assert not pump.idle
    recorder.poison = set()
    pump.round(full=True)
    assert pump.idle


def test_a_removed_journal_is_forgotten(tmp_path: Path) -> None:
    path = make(tmp_path, PLACES[0], status=None)
    recorder = Recorder()
    pump = Pump(tmp_path, recorder)
    pump.round()
    path.unlink()
    assert pump.round(full=True) == 0
    assert pump.idle
