"""What ``dlsearch doctor`` finds out about a machine before a study does.

Nothing here imports torch or MLflow, writes a file that stays, or creates a database.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from dlsearch.doctor.content import data_sets, packages
from dlsearch.doctor.machine import cpu, gpus, memory, seal, store_folder
from dlsearch.doctor.models import DatabaseRecord, Examination, MemoryRecord, SealAbility
from dlsearch.doctor.problems import Problems, format_size
from dlsearch.doctor.services import database, tracking_server

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def examine(
    store: Path,
    data: Path,
    storage_url: str,
    tracking_uri: str,
) -> Examination:
    """Look at this machine and at everything that a study here would use.

    Args:
        store: The folder that runs write to; it need not exist.
        data: The folder of the data sets; it need not exist.
        storage_url: The studies' database, as SQLAlchemy writes it.
        tracking_uri: MLflow's database or server.
    """
    problems = Problems()
    found = Examination(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu(problems),
        gpus=gpus(problems),
        memory=memory(problems),
        seal=seal(),
        environment={name: os.environ.get(name) for name in THREAD_VARIABLES},
        store=store_folder(store, storage_url, problems),
        storage=database("the studies' database", storage_url, problems),
        tracking=tracking_server(tracking_uri, problems),
        data=data_sets(data, problems),
        packages=packages(problems),
        problems=problems,
    )
    if storage_url == tracking_uri:
        problems.say(
            "Optuna and MLflow share one database, and both own its alembic_version",
            "give each its own",
        )
    return found


@dataclass(frozen=True)
class _Row:
    """A line of what was found.

    Args:
        name: Of what.
        text: What was found.
    """

    name: str
    text: str


def render(found: Examination) -> list[str]:
    """What `examine` found as lines for a terminal, problems last."""
    rows = [
        *_machine_rows(found),
        *_place_rows(found),
        *_package_rows(found),
    ]
    width = max(len(row.name) for row in rows)
    lines = [f"{row.name:<{width}}  {row.text}" for row in rows]
    lines.append("")
    for problem in found.problems:
        lines.append(f"problem: {problem.what}")
        lines.append(f"   hint: {problem.hint}")
    if not found.problems:
        lines.append("no problems found")
    return lines


def _machine_rows(found: Examination) -> list[_Row]:
    return [
        _Row("python", f"{found.python} on {found.platform}"),
        _Row("cpu", f"{found.cpu.usable} usable of {found.cpu.cores} cores"),
        *_gpu_rows(found),
        _Row("memory", _describe_memory(found.memory)),
        _Row("seal", _describe_seal(found.seal)),
        *_environment_rows(found),
    ]


def _gpu_rows(found: Examination) -> list[_Row]:
    if not found.gpus:
        return [_Row("gpu", "none")]
    rows = []
    for gpu in found.gpus:
        text = f"{gpu.name}, {gpu.memory_mib} MiB, driver {gpu.driver}"
        rows.append(_Row(f"gpu {gpu.index}", text))
    return rows


def _describe_memory(memory: MemoryRecord) -> str:
    available = format_size(memory.available)
    total = format_size(memory.total)
    text = f"{available} available of {total}"
    if memory.limit:
        text += f", limited to {format_size(memory.limit)}"
    return text


def _describe_seal(seal: SealAbility) -> str:
    if seal.landlock:
        return f"held by the {seal.by} (Landlock ABI {seal.landlock})"
    return f"held by Python's {seal.by}, which C++ and new processes pass by: {seal.why}"


def _environment_rows(found: Examination) -> list[_Row]:
    """The variables that are set."""
    rows = []
    for name, value in found.environment.items():
        if value is not None:
            rows.append(_Row(name.lower(), value))
    return rows


def _place_rows(found: Examination) -> list[_Row]:
    store = found.store
    state = "writable" if store.writable else "not writable"
    free = format_size(store.free)
    kind = store.filesystem or "unknown file system"
    sets = ", ".join(found.data.found) or "none of the known sets"
    return [
        _Row("store", f"{store.path}: {state}, {free} free, {kind}"),
        _Row("storage", _describe_database(found.storage)),
        _Row("tracking", _describe_database(found.tracking)),
        _Row("data", f"{found.data.path}: {sets}"),
    ]


def _describe_database(found: DatabaseRecord) -> str:
    """A database or a server, with the versions of its schemas."""
    words = f"{found.url}: {found.state}, {found.kind}"
    if found.version:
        words += f" {found.version}"
    for table, version in found.schema.items():
        words += f", {table} {version}"
    return words


def _package_rows(found: Examination) -> list[_Row]:
    rows = []
    for name, package in found.packages.items():
        rows.append(_Row(name, package.installed or "missing"))
    return rows
