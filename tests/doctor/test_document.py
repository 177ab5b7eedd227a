"""The keys of ``doctor --json``, and their order."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from dlsearch.doctor import THREAD_VARIABLES, examine
from dlsearch.doctor.content import PACKAGES
from dlsearch.doctor.models import GpuRecord

KEYS = {
    "cpu": ["cores", "usable", "quota"],
    "memory": ["total", "available", "limit"],
    "environment": [*THREAD_VARIABLES],
    "store": ["path", "exists", "writable", "free", "filesystem", "network"],
    "storage": ["url", "kind", "state", "version", "schema", "journal"],
    "tracking": ["url", "kind", "state", "version", "schema"],
    "data": ["path", "exists", "found", "missing"],
    "packages": [*PACKAGES],
}


def test_the_keys_of_the_document(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.commit()
    found = examine(tmp_path, tmp_path, f"sqlite:///{path}", "sqlite:///absent.db").to_json()
    assert list(found) == [
        "python",
        "platform",
        "cpu",
        "gpus",
        "memory",
        "seal",
        "environment",
        "store",
        "storage",
        "tracking",
        "data",
        "packages",
        "problems",
    ]
    assert {key: list(found[key]) for key in KEYS} == KEYS
    assert list(found["packages"]["torch"]) == ["installed", "locked"]
    gpu = GpuRecord(0, "NVIDIA X", "GPU-1", 81559, "580.1")
    assert list(gpu.to_json()) == ["index", "name", "uuid", "memory_mib", "driver"]
