"""What an engine gave this process of its machine.

Ray says it when asked, Slurm in the environment.

The operating system knows of it only in part: Ray fences nothing in, and Slurm only where it was
set up to. A card that was given is named in ``CUDA_VISIBLE_DEVICES`` by both, so that what is told
here is how many, and how much of one.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Allotment:
    """A share of a machine.

    Args:
        engine: Who gave it; None for a process that has its machine to itself, as far as is known.
        cpus: Cores; None without a limit.
        gpus: Cards, or a fraction of one; None without a limit.
    """

    engine: str | None = None
    cpus: float | None = None
    gpus: float | None = None

    def cores(self, there: int) -> int:
        """Of `there` cores, those that are ours; at least one."""
        if self.cpus is None:
            return there
        return max(1, min(there, int(self.cpus)))

    def cards(self, there: list[str]) -> list[str]:
        """Of the cards that are visible, those that are ours."""
        if self.gpus is None:
            return there
        if self.gpus <= 0:
            return []
        count = max(1, int(self.gpus))
        return there[:count]

    @property
    def shares_a_card(self) -> bool:
        """Whether the engine gave a fraction of a card, and the rest of it to others."""
        return self.gpus is not None and 0 < self.gpus < 1


def allotment(environment: Mapping[str, str] | None = None) -> Allotment:
    """What this process was given.

    Args:
        environment: By default this process's.
    """
    given = _by_ray()
    if given is not None:
        return given
    return _by_slurm(os.environ if environment is None else environment)


def _by_ray() -> Allotment | None:
    """Within a task of Ray's, its resources. Imports no Ray: within one it is imported already."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not hasattr(ray, "is_initialized") or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:  # the driver
        return None
    resources = context.get_assigned_resources()
    # A task that asked for no core is given none, and runs nevertheless.
    cpus = float(resources.get("CPU", 1.0))
    gpus = float(resources.get("GPU", 0.0))
    return Allotment("Ray", cpus, gpus)


def _by_slurm(environment: Mapping[str, str]) -> Allotment:
    """Within a job of Slurm's, what it has of this node."""
    if "SLURM_JOB_ID" not in environment:
        return Allotment()
    cpus = environment.get("SLURM_CPUS_PER_TASK") or environment.get("SLURM_CPUS_ON_NODE")
    gpus = environment.get("SLURM_GPUS_ON_NODE")
    return Allotment("Slurm", _number(cpus), _number(gpus))


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\d+(\.\d+)?", text):
        return None
    return float(text)
