"""How many trials a machine holds at a time, and how many a GPU.

Decisions from cores, threads and memory alone.

A GPU's number is found while the study runs. One trial runs on a card until one has ended and said
what it took; then as many run as fit by the heaviest measured so far, with a margin. A trial that
runs out of memory beside others is given back, not failed, and fewer share the card from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.study.states import FailureReason

if TYPE_CHECKING:
    from dlsearch.study.models import Result

#: Trials that share a GPU at most: beyond, they wait for one another's kernels.
MAX_PER_GPU = 8
#: What a process holds on a GPU before it has a tensor there (the CUDA context), MiB.
CONTEXT_MIB = 500
#: Share of a GPU that stays free.
MARGIN = 0.1
#: What a trial on the CPU is expected to take beside what it shares, and what all share (the
#: imports, the driver), MiB.
TRIAL_MIB = 512
SHARED_MIB = 1024


@dataclass(frozen=True)
class Machine:
    """What a machine has for trials.

    Args:
        cores: CPU cores that may be used.
        quota: Cores' worth of time that its container may use; None without a limit.
        memory_mib: Memory that is available; None where the system does not say.
        gpus: GPUs that may be used.
    """

    cores: int
    quota: float | None = None
    memory_mib: int | None = None
    gpus: int = 0

    @property
    def usable(self) -> int:
        """Whole cores, with regard to the quota."""
        return max(1, min(self.cores, int(self.quota or self.cores)))


def choose_workers(
    machine: Machine,
    *,
    threads: int | None,
    per_gpu: int | str | None,
) -> tuple[int, str]:
    """How many trials at a time, and why, in one line.

    On GPUs as many as `per_gpu` says, by default one each. On the CPU threads × workers = cores, by
    default with one thread each (two workers of one thread do more than one of two), and no more
    than the memory holds.

    Args:
        machine: What there is.
        threads: Threads of each; None shares the cores out.
        per_gpu: Trials a GPU: a number, ``auto`` (up to :data:`MAX_PER_GPU`), None for one.
    """
    if machine.gpus:
        return _choose_by_gpus(machine.gpus, per_gpu)
    count = max(1, machine.usable // (threads or 1))
    reason = _count(machine.cores, "core")
    if machine.usable < machine.cores:
        reason = f"a quota of {machine.quota:g} of {reason}"
    if machine.memory_mib is not None:
        held = max(1, (machine.memory_mib - SHARED_MIB) // TRIAL_MIB)
        if held < count:
            count = held
            available = f"{machine.memory_mib / 1024:.1f} GiB available"
            reason = f"memory for {held} ({available}), {reason}"
    share = threads or max(1, machine.usable // count)
    return count, f"{_count(count, 'worker')}: {reason}, {_number(share, 'thread')} each"


def _choose_by_gpus(gpus: int, per_gpu: int | str | None) -> tuple[int, str]:
    cards = _count(gpus, "GPU")
    if per_gpu == "auto":
        count = gpus * MAX_PER_GPU
        workers = _count(count, "worker")
        return count, f"up to {workers}: {cards}, one trial each until its memory is known"
    each = int(per_gpu or 1)
    count = gpus * each
    return count, f"{_count(count, 'worker')}: {cards}, {_number(each, 'trial')} each"


def trials_that_fit(
    total_mib: float,
    free_mib: float,
    peaks_mib: Iterable[float],
    *,
    at_most: int = MAX_PER_GPU,
) -> int:
    """How many trials may share a GPU, by what those that ran on it took.

    Args:
        total_mib: Memory of the card.
        free_mib: What others left of it before the first of ours.
        peaks_mib: What each trial's allocator held at its peak, without the process's CUDA context.
        at_most: The cap.

    Returns:
        1 while nothing has been measured, and where one trial takes more than half of the card;
        else the number of trials as heavy as the heaviest that leave :data:`MARGIN` of the card
        free.
    """
    heaviest = max(peaks_mib, default=None)
    if heaviest is None:
        return 1
    each = heaviest + CONTEXT_MIB
    if 2 * each > total_mib:
        return 1
    usable_mib = free_mib - MARGIN * total_mib
    fitting = int(usable_mib // each)
    return max(1, min(at_most, fitting))


class Cards:
    """The GPUs of one worker, and how many trials may run on each.

    One, until measurements say more.

    Args:
        memory_mib: For each card (total, free before the first trial). Cards that are missing here
            run one trial.
        at_most: Trials that share a card at most.
    """

    def __init__(self, memory_mib: dict[str, tuple[int, int]], at_most: int = MAX_PER_GPU) -> None:
        """Nothing has been measured."""
        self._memory = dict(memory_mib)
        self._peaks = dict.fromkeys(memory_mib, 0.0)
        self._at_most = dict.fromkeys(memory_mib, at_most)

    def measured(self, device: str, peak_mib: float | None) -> None:
        """A trial on `device` has ended, and held `peak_mib` at its peak.

        None when it never said.
        """
        if device in self._peaks and peak_mib is not None:
            self._peaks[device] = max(self._peaks[device], peak_mib)

    def ended(
        self,
        device: str,
        result: Result,
        sharing: int,
    ) -> bool:
        """A trial has ended.

        True when others crowded it out of memory, so that it deserves another attempt.

        Args:
            device: Where it ran.
            result: With ``reason`` and ``peak_memory_mib``.
            sharing: Trials on the card at its busiest, itself included. Only half as many share it
                after such an end.
        """
        crowded = sharing > 1 and result.reason is FailureReason.OOM
        if not crowded:
            self.measured(device, result.peak_memory_mib)
        elif device in self._at_most:
            self._at_most[device] = max(1, min(self._at_most[device], sharing // 2))
        return crowded

    def limit(self, device: str) -> int:
        """Trials that may run on `device` now."""
        if device not in self._memory:
            return 1
        total_mib, free_mib = self._memory[device]
        peak = self._peaks[device]
        known = [peak] if peak else []
        return trials_that_fit(
            total_mib,
            free_mib,
            known,
            at_most=self._at_most[device],
        )


def check_per_gpu(value: Any) -> int | str | None:
    """``worker.slots_per_gpu`` as a number, ``auto`` or None.

    Raises:
        ConfigError: It is none of these.
    """
    whole = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 64
    if value is None or value == "auto" or whole:
        return value
    key = "worker.slots_per_gpu"
    raise ConfigError(
        key,
        f"expected auto, or a number from 1 to 64, got {value!r}",
        f"{key}=auto",
    )


# -- what the system says ------------------------------------------------------------------------
def cgroup(name: str) -> list[str]:
    """What the cgroup file `name` says in this process's group and in each one above it."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = ""
    for line in lines:
        if line.startswith("0::"):
            own = line.partition("::")[2].lstrip("/")
            break
    group = root / own
    found: list[str] = []
    for folder in (group, *group.parents):
        path = folder / name
        if folder.is_relative_to(root) and path.is_file():
            found.append(path.read_text().strip())
    return found


def tightest_quota(lines: Iterable[str]) -> float | None:
    """The least of the quotas that ``cpu.max`` files name, in cores; None without any."""
    quotas: list[float] = []
    for line in lines:
        used_us, period_us = line.split()
        if used_us != "max":
            quotas.append(int(used_us) / int(period_us))
    return min(quotas, default=None)


def available_mib() -> int | None:
    """Memory that processes can still take, within the container's limit.

    None where the system does not say.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    rows = dict(line.split(":", 1) for line in lines)
    available_kib = int(rows["MemAvailable"].split()[0])
    limits = [int(text) // 2**20 for text in cgroup("memory.max") if text.isdigit()]
    return min(available_kib // 1024, *limits, 2**40)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _number(n: int, what: str) -> str:
    return f"one {what}" if n == 1 else _count(n, what)
