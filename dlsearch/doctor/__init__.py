"""What ``dlsearch doctor`` finds out about a machine before a study does.

Nothing here imports torch or MLflow, writes a file that stays, or creates a database.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from dlsearch.doctor.content import data_sets, packages
from dlsearch.doctor.machine import cpu, gpus, memory, store_folder
from dlsearch.doctor.models import DatabaseRecord, Examination
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


def render(found: Examination) -> list[str]:
    """What `examine` found as lines for a terminal, problems last."""
    rows = [*_machine_rows(found), *_place_rows(found), *_package_rows(found)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    lines.append("")
    for problem in found.problems:
        lines.append(f"problem: {problem.what}")
        lines.append(f"   hint: {problem.hint}")
    if not found.problems:
        lines.append("no problems found")
    return lines


def _machine_rows(found: Examination) -> list[tuple[str, str]]:
    memory = found.memory
    limit = f", limited to {format_size(memory.limit)}" if memory.limit else ""
    available = format_size(memory.available)
    return [
        ("python", f"{found.python} on {found.platform}"),
        ("cpu", f"{found.cpu.usable} usable of {found.cpu.cores} cores"),
        *_gpu_rows(found),
        ("memory", f"{available} available of {format_size(memory.total)}{limit}"),
        *_environment_rows(found.environment),
    ]


def _gpu_rows(found: Examination) -> list[tuple[str, str]]:
    if not found.gpus:
        return [("gpu", "none")]
    rows = []
    for gpu in found.gpus:
        text = f"{gpu.name}, {gpu.memory_mib} MiB, driver {gpu.driver}"
        rows.append((f"gpu {gpu.index}", text))
    return rows


def _environment_rows(environment: dict[str, str | None]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in environment.items() if value is not None]


def _place_rows(found: Examination) -> list[tuple[str, str]]:
    store = found.store
    state = "writable" if store.writable else "not writable"
    kind = store.filesystem or "unknown file system"
    sets = ", ".join(found.data.found) or "none of the known sets"
    return [
        ("store", f"{store.path}: {state}, {format_size(store.free)} free, {kind}"),
        ("storage", _describe_database(found.storage)),
        ("tracking", _describe_database(found.tracking)),
        ("data", f"{found.data.path}: {sets}"),
    ]


def _describe_database(found: DatabaseRecord) -> str:
    """A database or a server, with the versions of its schemas."""
    state = f"{found.url}: {found.state}, {found.kind} {found.version or ''}".rstrip()
    schemas = [f", {table} {version}" for table, version in found.schema.items()]
    return state + "".join(schemas)


def _package_rows(found: Examination) -> list[tuple[str, str]]:
    return [(name, package.installed or "missing") for name, package in found.packages.items()]
