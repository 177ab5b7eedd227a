"""Where a run comes from: code, environment, machine; and digests that say whether two runs are of the same.

Imports no torch: it runs in the command before anything heavy is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import socket
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlsearch
from dlsearch.tracking.masking import mask_code, mask_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_NAMED = (
    *("torch", "torchvision", "pytorch-lightning", "torchmetrics", "optuna", "mlflow", "hydra-core", "omegaconf"),
    *("sqlalchemy", "numpy", "scipy", "scikit-learn"),
)
_LOCKS = ("requirements.lock", "uv.lock", "poetry.lock", "pdm.lock", "pixi.lock", "conda-lock.yml")
_SOURCES = (".py", ".yaml", ".yml", ".toml")
_PYTHON = re.compile(r"diff --git .*\.py\"?\n")
_MAX_NEW_FILE = 1 << 20
_GIT_TIMEOUT_S = 10.0


def collect(
    *,
    config: Any,
    space: Any,
    data: Any,
    allow_targets: Sequence[str] = (),
    cwd: Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Everything about the origin of a run.

    Args:
        config: The config; digested.
        space: The search space; digested.
        data: The description of the data, or of their digests; digested.
        allow_targets: The user's packages; their code is digested with ours.
        cwd: The user's working directory; the current one by default.
        threads: Threads a trial computes with, if known.

    Returns:
        ``provenance`` and ``sha`` as the study record has them, and ``diff``: the uncommitted change, masked.
    """
    folder = Path.cwd() if cwd is None else cwd
    state, own = git_state(folder), git_state(package_folder("dlsearch") or folder)
    packages = _all_packages()
    machine = {
        "commit": state["commit"],
        "dirty": state["dirty"],
        "dlsearch": {"version": dlsearch.__version__, "commit": own["commit"], "dirty": own["dirty"]},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mb": _memory_mb(),
        "gpus": _gpus(),
        "threads": threads,
        "packages": {name: packages[name] for name in _NAMED if name in packages},
        "installed": dict(packages),
        "code": code_files(allow_targets),
        "lock": _lock(folder, state["root"]),
        "hostname": socket.gethostname(),
    }
    shas = {
        "config": digest(config),
        "space": digest(space),
        "data": digest(data),
        **origin(tuple(allow_targets)),
    }
    return {"provenance": machine, "sha": shas, "diff": _diff(state["root"]) if state["dirty"] else ""}


def digest(value: Any) -> str:
    """SHA-256 of `value` as canonical JSON: sorted keys, no spaces."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


@cache
def origin(allow_targets: tuple[str, ...] = ()) -> dict[str, str]:
    """The digests ``env`` (Python, machine, every installed package) and ``code``, as of this process's first call."""
    packages = _all_packages()
    found = {"python": platform.python_version(), "machine": platform.machine(), "packages": packages}
    return {"env": digest(found), "code": code_digest(allow_targets)}


def present(allow_targets: Iterable[str] = ()) -> dict[str, Any]:
    """What stands behind :func:`origin`: ``python``, ``installed`` (name → version), ``files`` (path → digest)."""
    return {"python": platform.python_version(), "installed": dict(_all_packages()), "files": code_files(allow_targets)}


def code_digest(packages: Iterable[str] = ()) -> str:
    """SHA-256 over the Python files of dlsearch and of `packages` (the top-level package of each entry)."""
    state = hashlib.sha256()
    for relative, content in code_files(packages).items():
        state.update(f"{relative}\0{content}\n".encode())
    return state.hexdigest()


def code_files(packages: Iterable[str] = ()) -> dict[str, str]:
    """The files of :func:`code_digest`: path below the folder that the package lies in → SHA-256 (16 digits of it)."""
    found = {}
    for name in sorted({"dlsearch", *(package.split(".")[0] for package in packages)}):
        folder = package_folder(name)
        if folder is None:
            continue
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]
        for path in files:
            found[path.relative_to(folder.parent).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def package_folder(name: str) -> Path | None:
    """Where a top-level package (its folder) or module (its file) lies; nothing is imported."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def git_state(folder: Path) -> dict[str, Any]:
    """``commit`` (or None), ``dirty`` and ``root`` (None outside a repository) of the work tree at `folder`."""
    at = folder if folder.is_dir() else folder.parent
    root = _git(at, "rev-parse", "--show-toplevel")
    if root is None:
        return {"commit": None, "dirty": False, "root": None}
    commit = _git(at, "rev-parse", "--verify", "--quiet", "HEAD")
    changes = _git(Path(root.strip()), "status", "--porcelain", "--untracked-files=normal")
    return {"commit": commit.strip() if commit else None, "dirty": bool(changes), "root": Path(root.strip())}


def _git(folder: Path, *words: str) -> str | None:
    # quotepath off: names as they are; no optional locks: another git of the user's must not trip over ours
    command = ["git", "--no-optional-locks", "-c", "core.quotepath=off", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_GIT_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _diff(root: Path) -> str:
    """The uncommitted change, new source files included, as one patch."""
    changed = _git(root, "diff", "--no-color", "--no-ext-diff", "HEAD") or ""
    parts = re.split(r"(?m)^(?=diff --git )", changed)
    new = _git(root, "ls-files", "--others", "--exclude-standard", "-z") or ""
    for name in sorted(filter(None, new.split("\0"))):
        path = root / name
        if path.suffix in _SOURCES and path.is_file() and path.stat().st_size <= _MAX_NEW_FILE:
            parts.append(_new_file(name, path.read_text(errors="replace")))
    return "".join(mask_code(part) if _PYTHON.match(part) else mask_text(part) for part in parts)


def _new_file(name: str, content: str) -> str:
    lines = content.splitlines(keepends=True)
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n"
    if not lines:
        return head
    body = "".join(f"+{line}" for line in lines)
    end = "" if body.endswith("\n") else "\n\\ No newline at end of file\n"
    return f"{head}--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n{body}{end}"


@cache
def _all_packages() -> Mapping[str, str]:
    found = {}
    # What a package brings inside itself and puts on the path when it is imported, as Ray does, is no part of the
    # environment: whether it is seen would depend on what was imported before.
    sites = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    places = [place for place in sys.path if not sites.intersection(Path(place).parents)]
    for distribution in importlib.metadata.distributions(path=places):
        name = distribution.metadata["Name"]
        if name:
            found[name.lower().replace("_", "-")] = distribution.version
    return dict(sorted(found.items()))


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(("model name", "Hardware")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (OSError, ValueError):
        return None


def _gpus() -> list[dict[str, Any]]:
    if not Path("/dev/nvidia0").exists():
        return []
    query = ["nvidia-smi", "--query-gpu=name,uuid,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 3]
    return [
        {"name": name, "uuid": uuid, "driver": driver, "memory_mb": int(memory) if memory.isdigit() else None}
        for name, uuid, driver, memory in rows
    ]


def _lock(folder: Path, root: Path | None) -> str | None:
    for place in (folder, root, Path(sys.prefix).parent):
        for name in _LOCKS if place is not None else ():
            path = Path(place or "", name)
            if path.is_file():
                return hashlib.sha256(path.read_bytes()).hexdigest()
    return None
