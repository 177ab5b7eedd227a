"""The interface of one training: where it writes, what it calls, and the result.

Imports nothing heavy.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, TypedDict

from dlsearch.config.progress import ProgressUnit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dlsearch.core.failure_cause import FailureCause
    from dlsearch.core.types import JsonObject
    from dlsearch.tracking.journal import Journal
    from dlsearch.training.inputs import TrainingInputs

#: The checkpoint that a training resumed from, or "the start", and the names of damaged ones.
ResumptionNote = TypedDict("ResumptionNote", {"from": str, "damaged": list[str]})


class StartNote(TypedDict):
    """What is unusual about the start of an attempt.

    Args:
        micro_batches: Parts in which it is asked to train each batch.
        resumption: The checkpoint that it resumes from; None where it starts from the beginning.
    """

    micro_batches: int
    resumption: ResumptionNote | None


class Breach(TypedDict):
    """One thing that reached for the sealed test set.

    Args:
        how: The way: ``file``, ``data module`` or ``trainer``.
        what: The file, or the method that was called.
        stopped: Whether it was refused.
    """

    how: str
    what: str
    stopped: bool


class Interrupted(BaseException):  # like KeyboardInterrupt: no `except Exception` may swallow it
    """The run was asked to stop; the checkpoint of its last report is on disk."""


@dataclass
class Run:
    """Where a training writes, and the hooks through which it talks to its caller.

    Args:
        folder: Where checkpoints go (``folder/ckpt``).
        journal: Where rows go.
        objectives: The metrics that decide, the first of them the one monitored for the best epoch.
        directions: ``maximize`` or ``minimize`` for each.
        report: Given (position, step, metrics) at every report, after a validated epoch or by steps
            (see :class:`~dlsearch.training.callbacks.RunCallback`); True means prune.
        stop: Asked after every batch; True means raise :class:`Interrupted`.
        unseal: Called once before the test set is opened.
        test: Score the best checkpoint on the test set at the end.
        refit_epochs: Train on train + validation, for so many units of progress and without
            validation; None trains as usual.
        progress_bar: Show Lightning's progress bar.
        system_metrics_s: Interval of the process's own metrics; None for none.
        micro_batches: Parts in which each batch is trained (see
            :mod:`dlsearch.training.micro_batches`).
        began: Called before the first step.
        prunes_at_end: Whether a training may be pruned with the report of its last unit, as by an
            earlier version; else it is complete then.
        resume_key: This user's (see :mod:`dlsearch.core.resume_key`); empty where none is known:
            checkpoints that hold more than plain values are not gone on from then.
    """

    folder: Path
    journal: Journal
    objectives: list[str]
    directions: list[str]
    report: Callable[[int, int, Mapping[str, float]], bool] = lambda *_: False
    stop: Callable[[], bool] = lambda: False
    unseal: Callable[[], None] = lambda: None
    test: bool = False
    refit_epochs: int | None = None
    progress_bar: bool = False
    system_metrics_s: float | None = None
    micro_batches: int = 1
    began: Callable[[StartNote], None] = lambda _: None
    prunes_at_end: bool = False
    resume_key: str = ""

    @property
    def monitor(self) -> str:
        """The first objective."""
        return self.objectives[0]

    @property
    def mode(self) -> str:
        """Lightning's word for the first direction."""
        return self.directions[0][:3]


@dataclass
class FitResult:
    """The result of a training.

    Args:
        state: ``complete``, ``pruned`` or ``failed``.
        reason: Why it failed: nan, inf, oom, exception, timeout, disk.
        error: One line of it.
        values: The objectives, at the best epoch of the first; None unless complete.
        best_epoch: Where the training was best: the last unit of its progress by then, from 0.
        best_step: Global step at that place.
        epochs: Units of progress completed, those before a resumption included.
        n_params: Trainable parameters.
        summary: The final and best metrics.
        seconds: Of this attempt.
        resumed_epoch: First epoch of this attempt where it went on from a checkpoint.
        test: The test report, where the test set was opened: ``metrics``, and the facts that the
            task's kind adds.
        peak_memory_mib: What torch's allocator held on the GPU at the peak, without the CUDA
            context; None on the CPU.
        history: (position, first objective) of every report, those before a resumption included.
        state_sha256: Digest of the weights: of the best epoch where complete, of the last
            otherwise.
        metrics_sha256: Digest of the metrics of all validated epochs.
        split_sha256: Digests of the splits, where the data module knows them.
        inputs: What the training depends on, as found (see :mod:`dlsearch.training.inputs`).
        nondeterministic: Operations without a deterministic implementation that were called
            (``trainer.deterministic=warn``).
        breaches: What reached for the sealed test set.
        seal: Who held the seal: the kernel or the audit hook (see
            :class:`dlsearch.execution.processes.confinement.SealRecord`); None where nobody said.
        micro_batches: Parts in which each batch was trained.
        halve: Whether it ran out of memory, and might not in twice as many parts.
        resumption: The checkpoint that it resumed from, and those that were damaged; None without
            any.
        progress_unit: In what its progress is counted: epoch, step or episode.
        cause: Why it failed, in parts.
        not_finite: Of the final and best metrics those that are no finite numbers, in words:
            ``nan inf -inf``.
        notes: What a reader should know of its metrics, a line each.
    """

    state: str
    reason: str | None = None
    error: str | None = None
    values: list[float] | None = None
    best_epoch: int | None = None
    best_step: int | None = None
    epochs: int = 0
    n_params: int | None = None
    summary: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    resumed_epoch: int | None = None
    test: JsonObject | None = None
    peak_memory_mib: float | None = None
    history: list[list[float]] = field(default_factory=list)
    state_sha256: str | None = None
    metrics_sha256: str | None = None
    split_sha256: dict[str, str] | None = None
    inputs: TrainingInputs | None = None
    nondeterministic: list[str] = field(default_factory=list)
    breaches: list[Breach] = field(default_factory=list)
    seal: JsonObject | None = None
    micro_batches: int = 1
    halve: bool = False
    resumption: ResumptionNote | None = None
    progress_unit: str = ProgressUnit.EPOCH
    cause: FailureCause | None = None
    not_finite: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_summary(self, prefix: str, metrics: Mapping[str, float]) -> None:
        """Take metrics over; those that JSON has no number for as words."""
        for name, value in sorted(metrics.items()):
            if math.isfinite(value):
                self.summary[f"{prefix}{name}"] = value
            else:
                self.not_finite[f"{prefix}{name}"] = str(value)

    def to_json(self) -> JsonObject:
        """As plain JSON; without causes and notes where there are none."""
        found = asdict(self)
        for name in ("cause", "not_finite", "notes"):
            if not found[name]:
                del found[name]
        return found
