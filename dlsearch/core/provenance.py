"""Where a run comes from: code, environment, machine.

And digests that say whether two runs are of the same.

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
import sys
import sysconfig
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import dlsearch
from dlsearch.core.files.inside import is_inside
from dlsearch.core.files.regular import open_regular, read_text
from dlsearch.core.git import Repository
from dlsearch.core.machine.nvml import DriverError, list_gpus
from dlsearch.core.masking import mask_code, mask_text
from dlsearch.core.permission import granted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dlsearch.core.types import JsonObject

_NAMED = (
    *(
        "torch",
        "torchvision",
        "pytorch-lightning",
        "torchmetrics",
        "optuna",
        "mlflow",
        "hydra-core",
        "omegaconf",
    ),
    *("sqlalchemy", "numpy", "scipy", "scikit-learn"),
)
_LOCKS = ("requirements.lock", "uv.lock", "poetry.lock", "pdm.lock", "pixi.lock", "conda-lock.yml")
_SOURCES = (".py", ".yaml", ".yml", ".toml")
_PYTHON = re.compile(r"diff --git .*\.py\"?\n")
_MAX_NEW_FILE = 1 << 20


def collect(
    *,
    config: Any,
    space: Any,
    data: Any,
    allow_targets: Sequence[str] = (),
    cwd: Path | None = None,
    threads: int | None = None,
) -> JsonObject:
    """Everything about the origin of a run.

    Args:
        config: The config; digested.
        space: The search space; digested.
        data: The description of the data, or of their digests; digested.
        allow_targets: The user's packages; their code is digested with ours.
        cwd: The user's working directory; the current one by default.
        threads: Threads a trial computes with, if known.

    Returns:
        ``provenance`` and ``sha`` as the study record has them, and ``diff``: the uncommitted
        change, masked.
    """
    folder = Path.cwd() if cwd is None else cwd
    state = git_state(folder)
    root = state["root"]
    own = git_state(package_folder("dlsearch") or folder)
    packages = _all_packages()
    machine = {
        "commit": state["commit"],
        "dirty": state["dirty"],
        "dlsearch": {
            "version": dlsearch.__version__,
            "commit": own["commit"],
            "dirty": own["dirty"],
        },
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_mb": _memory_mb(),
        "gpus": _describe_gpus(),
        "threads": threads,
        "packages": {name: packages[name] for name in _NAMED if name in packages},
        "installed": dict(packages),
        "code": code_files(allow_targets),
        "lock": _lock(folder, root),
        "hostname": socket.gethostname(),
    }
    shas = {
        "config": digest(config),
        "space": digest(space),
        "data": digest(data),
        **origin(tuple(allow_targets)),
    }
    return {
        "provenance": machine,
        "sha": shas,
        "diff": _diff(root) if root is not None and state["dirty"] else "",
    }


def digest(value: Any) -> str:
    """SHA-256 of `value` as canonical JSON: sorted keys, no spaces."""
    canonical = json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
        default=str,
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


@cache
def origin(allow_targets: tuple[str, ...] = ()) -> dict[str, str]:
    """The digests ``env`` and ``code``, as of this process's first call.

    ``env`` covers Python, the machine and every installed package.
    """
    packages = _all_packages()
    found = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": packages,
    }
    return {"env": digest(found), "code": code_digest(allow_targets)}


class Present(TypedDict):
    """What an origin is made of.

    ``installed`` maps names to versions, ``files`` maps paths to digests.
    """

    python: str
    installed: dict[str, str]
    files: dict[str, str]


def present(allow_targets: Iterable[str] = ()) -> Present:
    """What :func:`origin` is made of, here and now."""
    return {
        "python": platform.python_version(),
        "installed": dict(_all_packages()),
        "files": code_files(allow_targets),
    }


def code_digest(packages: Iterable[str] = ()) -> str:
    """SHA-256 over the Python files of dlsearch and of the top-level packages of `packages`."""
    state = hashlib.sha256()
    for relative, content in code_files(packages).items():
        state.update(f"{relative}\0{content}\n".encode())
    return state.hexdigest()


def code_files(packages: Iterable[str] = ()) -> dict[str, str]:
    """The files of :func:`code_digest`, each with 16 digits of its SHA-256.

    A path begins below the folder that the package lies in.

    Of packages that are not admitted here nothing is read.
    """
    found = {}
    admitted = {package.split(".")[0] for package in granted()}
    for name in sorted(
        {"dlsearch", *admitted.intersection(package.split(".")[0] for package in packages)}
    ):
        folder = package_folder(name)
        if folder is None:
            continue
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]
        for path in files:
            found[path.relative_to(folder.parent).as_posix()] = hashlib.sha256(
                path.read_bytes()
            ).hexdigest()[:16]
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


class GitState(TypedDict):
    """A work tree; ``commit`` and ``root`` are None outside a repository."""

    commit: str | None
    dirty: bool
    root: Path | None


def git_state(folder: Path) -> GitState:
    """The state of the work tree at `folder`."""
    found = Repository.around(folder if folder.is_dir() else folder.parent)
    if found is None:
        return GitState(
            commit=None,
            dirty=False,
            root=None,
        )
    commit = found.ask(
        "rev-parse",
        "--verify",
        "--quiet",
        "HEAD",
        plain=True,
    )
    changes = found.ask(
        "status",
        "--porcelain",
        "--untracked-files=normal",
        "--ignore-submodules=none",
    )
    return GitState(
        commit=commit.strip() if commit else None,
        dirty=bool(changes),
        root=found.root,
    )


def _diff(root: Path) -> str:
    """The uncommitted change, new source files included, as one patch."""
    asked = Repository(root)
    options = (
        "--no-color",
        "--no-ext-diff",
        "--no-textconv",
        "--submodule=short",
        "--ignore-submodules=none",
    )
    changed = asked.ask("diff", *options, "HEAD") or ""
    parts = re.split(r"(?m)^(?=diff --git )", changed)
    new = asked.ask("ls-files", "--others", "--exclude-standard", "-z") or ""
    for name in sorted(filter(None, new.split("\0"))):
        path = root / name
        # a link may lead anywhere
        if path.suffix not in _SOURCES or not is_inside(root, path) or not path.is_file():
            continue
        with suppress(OSError):
            text = read_text(path, _MAX_NEW_FILE, errors="replace")
            parts.append(_new_file(name, text.replace("\r\n", "\n").replace("\r", "\n")))
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
    # What a package brings inside itself and puts on the path when it is imported, as Ray does, is
    # no part of the environment: whether it is seen would depend on what was imported before.
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


class GpuDescription(TypedDict):
    """A GPU, as the study's record has it."""

    name: str
    uuid: str
    driver: str
    memory_mb: int | None


def _describe_gpus() -> list[GpuDescription]:
    if not Path("/dev/nvidia0").exists():
        return []
    try:
        found = list_gpus()
    except DriverError:
        return []
    described: list[GpuDescription] = []
    for gpu in found:
        each = GpuDescription(
            name=gpu.name,
            uuid=gpu.uuid,
            driver=gpu.driver,
            memory_mb=gpu.total_mib,
        )
        described.append(each)
    return described


def _lock(folder: Path, root: Path | None) -> str | None:
    for place in (folder, root, Path(sys.prefix).parent):
        for name in _LOCKS if place is not None else ():
            path = Path(place or "", name)
            if path.is_file():
                with suppress(OSError), open_regular(path.resolve()) as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
    return None
