"""What the doctor finds, as values with fields: the document of ``doctor --json``.

Sizes are bytes. None is what the system does not say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dlsearch.core.json_model import LEFT_OUT_IF_NONE, JsonModel


@dataclass(frozen=True)
class Problem(JsonModel):
    """Something that would hurt a study.

    Args:
        what: What is wrong.
        hint: What to do about it.
    """

    what: str
    hint: str


@dataclass(frozen=True)
class CpuRecord(JsonModel):
    """The cores.

    Args:
        cores: Of the machine.
        usable: Those that this process may use.
        quota: How many the container may use at a time; None without a limit.
    """

    cores: int | None
    usable: int
    quota: float | None


@dataclass(frozen=True)
class GpuRecord(JsonModel):
    """A GPU that the driver knows.

    Args:
        index: The driver's number for it.
        name: What it is.
        uuid: Which no other GPU has.
        memory_mib: All its memory, MiB.
        driver: The driver's version.
    """

    index: int
    name: str
    uuid: str
    memory_mib: int | None
    driver: str


@dataclass(frozen=True)
class MemoryRecord(JsonModel):
    """The memory.

    Args:
        total: Of the machine.
        available: What is left of it.
        limit: What the container may take; None without a limit.
    """

    total: int | None
    available: int | None
    limit: int | None


@dataclass(frozen=True)
class SealAbility(JsonModel):
    """What can hold the seal on the test set during a search here.

    Args:
        by: ``kernel`` or ``audit hook``.
        landlock: The version of the kernel's Landlock; 0 where there is none.
        why: Why it is not the kernel.
    """

    by: str
    landlock: int
    why: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclass(frozen=True)
class StoreRecord(JsonModel):
    """The folder that runs write to.

    Args:
        path: It.
        exists: Whether it is there.
        writable: Whether it, or the folder that it would be made in, can be written.
        free: What is left of its disk.
        filesystem: The type of the file system.
        network: Whether that is one of several machines.
    """

    path: str
    exists: bool
    writable: bool
    free: int
    filesystem: str | None
    network: bool


@dataclass(frozen=True)
class DatabaseRecord(JsonModel):
    """A database, or MLflow's server.

    Args:
        url: Where it is, without its password.
        kind: The database's kind, or ``server``.
        state: ``ok``, ``absent``, ``unreachable``, or ``unknown`` where it cannot be asked.
        version: Of what answers.
        schema: The version of each schema that it holds, by table.
        journal: SQLite's journal mode.
    """

    url: str
    kind: str
    state: str = "unknown"
    version: str | None = None
    schema: dict[str, str] = field(default_factory=dict)
    journal: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclass(frozen=True)
class DataRecord(JsonModel):
    """The folder of the data sets.

    Args:
        path: It.
        exists: Whether it is there.
        found: The known sets that are there.
        missing: Those that are not.
    """

    path: str
    exists: bool
    found: list[str]
    missing: list[str]


@dataclass(frozen=True)
class PackageRecord(JsonModel):
    """A package that decides results.

    Args:
        installed: The version that is installed; None where none is.
        locked: The versions that the lock file names.
    """

    installed: str | None
    locked: list[str]

    @property
    def is_at_other_version(self) -> bool:
        """Whether a version is installed that the lock file does not name."""
        return bool(self.installed and self.locked and self.installed not in self.locked)


@dataclass(frozen=True)
class Examination(JsonModel):
    """All that the doctor finds.

    Args:
        python: The version of Python.
        platform: System, its release and the machine.
        cpu: The cores.
        gpus: The GPUs.
        memory: The memory.
        seal: What can hold the seal on the test set.
        environment: Variables that decide about threads and devices; None where one is not set.
        store: The folder that runs write to.
        storage: The studies' database.
        tracking: MLflow's database or server.
        data: The folder of the data sets.
        packages: The packages that decide results, by name.
        problems: What would hurt a study.
    """

    python: str
    platform: str
    cpu: CpuRecord
    gpus: list[GpuRecord]
    memory: MemoryRecord
    seal: SealAbility
    environment: dict[str, str | None]
    store: StoreRecord
    storage: DatabaseRecord
    tracking: DatabaseRecord
    data: DataRecord
    packages: dict[str, PackageRecord]
    problems: list[Problem]
