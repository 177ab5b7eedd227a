"""What every benchmark says about itself: the machine, the versions, n; and how its table is written."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

#: Options whose value is a folder of the machine that ran it.
PLACES = ("--data", "--keep", "--peers")


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu() -> str | None:
    """Name and driver of the first visible GPU, asked without torch; None without one."""
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = [
        "nvidia-smi",
        f"--id={index}",
        "--query-gpu=name,driver_version",
        "--format=csv,noheader",
    ]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, driver = said.rpartition(", ")
    return f"{name}, driver {driver}"


def caption(n: str, packages: Sequence[str]) -> str:
    """One line below a table: command, n, machine and versions. No date: git knows it."""
    versions = []
    for name in packages:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_public(sys.argv[1:])])
    where = f"{cpu()}, {cores()} cores, {platform.system()}, Python {platform.python_version()}"
    return f"`{command}` · {n} · {where} · {', '.join(versions)}"


def _public(words: Sequence[str]) -> list[str]:
    """Arguments without the place that the table goes to; other places are of no interest either."""
    kept: list[str] = []
    before = ""
    for word in words:
        option, equals, _ = word.partition("=")
        if before in PLACES:
            kept.append("DIR")
        elif equals and option in PLACES:
            kept.append(f"{option}=DIR")
        elif "--out" not in (before, option):
            kept.append(word)
        before = word
    return kept


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``median (least–most)``; the median alone where there is one value."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def publish(text: str, out: Path | None) -> None:
    """Print, and append to `out`."""
    print(text, flush=True)
    if out is not None:
        with out.open("a") as file:
            file.write(f"{text}\n\n")
