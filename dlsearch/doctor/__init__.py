"""What ``dlsearch doctor`` finds out about a machine before a study does.

Nothing here imports torch or MLflow, writes a file that stays, or creates a database.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from dlsearch.doctor.content import data_sets, packages
from dlsearch.doctor.machine import cpu, gpus, memory, store_folder
from dlsearch.doctor.problems import Problems, size
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
) -> dict[str, Any]:
    """Look at this machine and at everything that a study here would use.

    Args:
        store: The folder that runs write to; it need not exist.
        data: The folder of the data sets; it need not exist.
        storage_url: The studies' database, as SQLAlchemy writes it.
        tracking_uri: MLflow's database or server.

    Returns:
        A JSON-able record. ``problems`` lists what would hurt a study, each as ``what`` and
        ``hint``; sizes are bytes.
    """
    problems = Problems()
    record: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu(problems),
        "gpus": gpus(problems),
        "memory": memory(problems),
        "environment": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "store": store_folder(store, storage_url, problems),
        "storage": database("the studies' database", storage_url, problems),
        "tracking": tracking_server(tracking_uri, problems),
        "data": data_sets(data, problems),
        "packages": packages(problems),
    }
    if storage_url == tracking_uri:
        problems.say(
            "Optuna and MLflow share one database, and both own its alembic_version",
            "give each its own",
        )
    record["problems"] = list(problems)
    return record


def render(record: dict[str, Any]) -> list[str]:
    """The record of `examine` as lines for a terminal, problems last."""
    rows = [*_machine_rows(record), *_place_rows(record), *_package_rows(record)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    lines.append("")
    for each in record["problems"]:
        lines += [f"problem: {each['what']}", f"   hint: {each['hint']}"]
    if not record["problems"]:
        lines.append("no problems found")
    return lines


def _machine_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    cores = record["cpu"]
    ram = record["memory"]
    gpu_rows = [
        (f"gpu {gpu['index']}", f"{gpu['name']}, {gpu['memory_mib']} MiB, driver {gpu['driver']}")
        for gpu in record["gpus"]
    ]
    limit = f", limited to {size(ram['limit'])}" if ram["limit"] else ""
    return [
        ("python", f"{record['python']} on {record['platform']}"),
        ("cpu", f"{cores['usable']} usable of {cores['cores']} cores"),
        *(gpu_rows or [("gpu", "none")]),
        ("memory", f"{size(ram['available'])} available of {size(ram['total'])}{limit}"),
        *_environment_rows(record["environment"]),
    ]


def _environment_rows(environment: dict[str, str | None]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in environment.items() if value is not None]


def _place_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    store = record["store"]
    data = record["data"]
    state = "writable" if store["writable"] else "not writable"
    kind = store["filesystem"] or "unknown file system"
    found = ", ".join(data["found"]) or "none of the known sets"
    return [
        ("store", f"{store['path']}: {state}, {size(store['free'])} free, {kind}"),
        ("storage", _describe_base(record["storage"])),
        ("tracking", _describe_base(record["tracking"])),
        ("data", f"{data['path']}: {found}"),
    ]


def _describe_base(base: dict[str, Any]) -> str:
    """A database or a server, with the versions of its schemas."""
    state = f"{base['url']}: {base['state']}, {base['kind']} {base['version'] or ''}".rstrip()
    return state + "".join(f", {table} {version}" for table, version in base["schema"].items())


def _package_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, row["installed"] or "missing") for name, row in record["packages"].items()]
