"""The doctor: what it finds, and that it says what is wrong."""

from __future__ import annotations

import http.server
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dlsearch.core.machine.nvml import DriverError, Gpu
from dlsearch.doctor import content, examine, machine, render, services
from dlsearch.doctor.models import Examination
from dlsearch.doctor.problems import Problems


@pytest.fixture
def uris(tmp_path: Path) -> tuple[str, str]:
    return f"sqlite:///{tmp_path / 'dlsearch.db'}", f"sqlite:///{tmp_path / 'mlflow.db'}"


def said(found: Examination) -> str:
    return json.dumps(found.to_json()["problems"])


def test_a_fresh_machine_is_examined_without_a_trace(tmp_path: Path, uris: tuple[str, str]) -> None:
    record = examine(tmp_path / "store", tmp_path / "data", *uris).to_json()
    assert json.loads(json.dumps(record)) == record
    assert record["cpu"]["usable"] >= 1
    assert record["store"] == record["store"] | {"exists": False, "writable": True}
    assert record["storage"]["state"] == record["tracking"]["state"] == "absent"
    assert record["data"] == {
        "path": str(tmp_path / "data"),
        "exists": False,
        "found": [],
        "missing": ["MNIST", "FashionMNIST", "CIFAR10"],
    }
    assert record["packages"]["torch"]["installed"]
    assert list(tmp_path.iterdir()) == []


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, dlsearch.doctor; print([n for n in ('torch', 'mlflow', 'optuna', 'numpy') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_render_shows_every_problem_with_its_hint(tmp_path: Path, uris: tuple[str, str]) -> None:
    record = examine(tmp_path, tmp_path, uris[0], uris[0])
    text = "\n".join(render(record))
    assert "Optuna and MLflow share one database" in text
    assert all(each.what in text and each.hint in text for each in record.problems)
    assert render(replace(record, problems=[]))[-1] == "no problems found"


def test_a_store_that_cannot_be_written(
    tmp_path: Path, uris: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    record = examine(tmp_path, tmp_path, *uris)
    assert record.store.writable is False
    assert "cannot be written" in said(record)


@pytest.mark.parametrize(("kind", "url", "bad"), [
    ("nfs4", "sqlite:///x.db", True),
    ("fuse.sshfs", "sqlite:///x.db", True),
    ("ext4", "sqlite:///x.db", False),
    ("nfs4", "postgresql+psycopg://h/db", False),
])  # fmt: skip
def test_sqlite_on_a_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, url: str, bad: bool
) -> None:
    problems = Problems()
    monkeypatch.setattr(machine, "filesystem", lambda _: kind)
    machine.store_folder(tmp_path, url, problems)
    assert any("network file system" in each.what for each in problems) is bad


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says")
def test_the_file_system_of_a_folder() -> None:
    assert machine.filesystem(Path("/proc/self")) == "proc"


def test_the_tightest_quota_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine, "_cgroup", lambda _: ["max 100000", "150000 100000", "400000 100000"]
    )
    monkeypatch.setattr(machine, "cores", lambda: 8)
    problems = Problems()
    assert machine.cpu(problems).quota == 1.5
    assert problems[0].hint == "worker.slots=1"


def test_little_memory_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cgroup", lambda _: ["max", str(1 << 30)])
    problems = Problems()
    assert machine.memory(problems).limit == 1 << 30
    assert "only 1.0 GiB of memory" in problems[0].what


def test_gpus_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Gpu(0, "GPU-1", "NVIDIA X", "580.1", total_mib=81559, free_mib=80000)
    second = Gpu(1, "GPU-2", "NVIDIA Y", "580.1", total_mib=None, free_mib=None)
    monkeypatch.setattr(machine, "list_gpus", lambda: [first, second])
    problems = Problems()
    found = machine.gpus(problems)
    assert found[0].to_json() == {
        "index": 0,
        "name": "NVIDIA X",
        "uuid": "GPU-1",
        "memory_mib": 81559,
        "driver": "580.1",
    }
    assert found[1].memory_mib is None
    assert list(problems) == []


def test_a_driver_that_fails_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Gpu]:
        raise DriverError("Driver Not Loaded")

    monkeypatch.setattr(machine, "list_gpus", fail)
    problems = Problems()
    assert machine.gpus(problems) == []
    assert "the NVIDIA driver fails: Driver Not Loaded" in problems[0].what


def test_a_database_shows_its_schema_and_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.execute("INSERT INTO alembic_version VALUES ('v5.0.0')")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    problems = Problems()
    record = services.database("it", f"sqlite:///{path}", problems).to_json()
    assert record == record | {
        "state": "ok",
        "journal": "wal",
        "schema": {"alembic_version": "v5.0.0"},
    }
    assert path.read_bytes() == before
    assert not problems


def test_a_broken_database_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database" * 100)
    problems = Problems()
    record = services.database("the studies' database", f"sqlite:///{tmp_path / 'a.db'}", problems)
    assert record.state == "unreachable"
    assert "file is not a database" in problems[0].what


def test_a_server_that_is_gone_and_no_password_is_shown() -> None:
    problems = Problems()
    for url in (
        "http://me:geheim@127.0.0.1:9",
        "postgresql+psycopg://me:geheim@127.0.0.1:9/db?password=geheim",
    ):
        record = services.tracking_server(url, problems)
        assert record.state == "unreachable"
        assert "geheim" not in str([record, problems])
    assert len(problems) == 2


class _Version(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"3.17.2")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Version) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running.server_address[1]
        running.shutdown()
        thread.join()


def test_a_server_says_its_version(server: int) -> None:
    problems = Problems()
    record = services.tracking_server(f"http://me:p%40ss@127.0.0.1:{server}/", problems).to_json()
    assert record == record | {"state": "ok", "version": "3.17.2"}
    assert _Version.asked == [("/version", "Basic bWU6cEBzcw==")]
    assert not problems


def test_data_sets_whole_and_in_part(tmp_path: Path) -> None:
    whole = tmp_path / "MNIST" / "raw"
    whole.mkdir(parents=True)
    (whole / "train-images-idx3-ubyte").touch()
    (tmp_path / "cifar-10-batches-py").mkdir()
    problems = Problems()
    record = content.data_sets(tmp_path, problems)
    assert (record.found, record.missing) == (["MNIST"], ["FashionMNIST", "CIFAR10"])
    assert [each.what.split()[0] for each in problems] == ["CIFAR10"]


def test_versions_that_must_not_be_used() -> None:
    problems = Problems()
    content.judge(
        {"pytorch-lightning": "2.6.3", "torch": "2.15.0+cpu", "torchvision": "0.29.2"}, problems
    )
    assert [each.what.split(" is ")[0] for each in problems] == [
        "pytorch-lightning 2.6.3",
        "torch",
    ]
    fine = Problems()
    content.judge(
        {"pytorch-lightning": "2.6.6", "torch": "2.15.0+cpu", "torchvision": "0.29.2+cpu"}, fine
    )
    assert not fine


def test_a_version_besides_the_lock_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "torch==0.1 ; sys_platform == 'linux' \\\n    --hash=sha256:00\ntorch==0.2\nmlflow==1.0\n"
    )
    assert content.locked(lock) == {"torch": ["0.1", "0.2"], "mlflow": ["1.0"]}
    monkeypatch.setattr(content, "locked", lambda _: content_locked)
    content_locked = {"torch": ["0.1"]}
    problems = Problems()
    content.packages(problems)
    assert "not at the locked version: torch" in [each.what for each in problems]
