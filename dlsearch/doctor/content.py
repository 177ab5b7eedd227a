"""What is installed, against the lock file, and which data sets are there."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.doctor.models import DataRecord, PackageRecord

if TYPE_CHECKING:
    from dlsearch.doctor.problems import Problems

PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "optuna",
    "mlflow",
    "hydra-core",
    "omegaconf",
    "sqlalchemy",
    "numpy",
    "scikit-learn",
)
#: A file of each set that torchvision reads, below the data root.
DATA_SETS = {
    "MNIST": "MNIST/raw/train-images-idx3-ubyte",
    "FashionMNIST": "FashionMNIST/raw/train-images-idx3-ubyte",
    "CIFAR10": "cifar-10-batches-py/data_batch_1",
}
MALICIOUS = frozenset({("pytorch-lightning", "2.6.2"), ("pytorch-lightning", "2.6.3")})


def data_sets(data: Path, problems: Problems) -> DataRecord:
    """Which of the known data sets are below `data`."""
    found = []
    missing = []
    for name, member in DATA_SETS.items():
        if (data / member).is_file():
            found.append(name)
            continue
        missing.append(name)
        folder = data / Path(member).parts[0]
        if folder.exists():
            problems.say(
                f"{name} in {data} is incomplete: {member} is not there",
                "delete it, and let a run load it",
            )
    return DataRecord(str(data), data.is_dir(), found, missing)


def locked(lock: Path) -> dict[str, list[str]]:
    """The versions that the lock file names for each package; none where there is no such file."""
    versions: dict[str, list[str]] = {}
    if not lock.is_file():
        return versions
    pinned = re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(), flags=re.MULTILINE)
    for name, version in pinned:
        versions.setdefault(name, []).append(version)
    return versions


def packages(problems: Problems) -> dict[str, PackageRecord]:
    """The installed version of each package that decides results, beside the locked ones."""
    lock = locked(Path(__file__).resolve().parents[2] / "requirements.lock")
    found = {}
    for name in PACKAGES:
        version = _installed_version(name)
        if version is None:
            problems.say(f"{name} is not installed", "make env, or pip install dlsearch")
        found[name] = PackageRecord(version, lock.get(name, []))
    judge({name: package.installed for name, package in found.items()}, problems)
    other = [name for name, package in found.items() if package.is_at_other_version]
    if other:
        problems.say(
            f"not at the locked version: {', '.join(other)}",
            "make env; results may differ from recorded ones",
        )
    return found


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def judge(versions: dict[str, str | None], problems: Problems) -> None:
    """Say which of the installed versions must not be used."""
    for name, version in versions.items():
        if version is not None and (name, version) in MALICIOUS:
            problems.say(
                f"{name} {version} is a malicious release",
                "remove it now, renew this machine's secrets, make env",
            )
    torch = versions.get("torch") or ""
    torchvision = versions.get("torchvision")
    if "+cpu" in torch and torchvision and "+cpu" not in torchvision:
        problems.say(
            "torch is a CPU-only build and torchvision is not: torchvision will not import",
            "install both from one registry: make env",
        )
