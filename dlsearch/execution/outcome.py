"""How an attempt ended, and what follows: its result counts, or the trial is tried again, and how.

====================  ==========================================================================
complete, pruned      counts
nan, inf, exception   counts as failed: the same would come of it again
                      (exception: also ``sys.exit`` in a user's code)
timeout               counts as failed, with what it had reached
oom                   again from the last checkpoint, each batch in twice as many parts;
                      up to ``max_halvings`` times
disk                  again, once there is space; up to ``max_attempts`` times
interrupted           again (Ctrl-C, SIGTERM, SIGHUP, or others crowded it out of a GPU's memory);
                      does not count
lost                  again (its process or its worker died);
                      up to ``max_attempts`` times, which the study counts
====================  ==========================================================================
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlsearch.study.models import Ending, Result
from dlsearch.study.states import AttemptState, FailureReason, KillCause

#: Exit codes of a trial's process: asked to stop (EX_TEMPFAIL), and not even its log could be
#: opened (EX_IOERR).
INTERRUPTED = 75
NO_LOG = 74
TIMEOUT = KillCause.TIMEOUT
FENCED = KillCause.FENCED
#: Why a worker kills an attempt of which it cannot record what it says.
UNRECORDED = KillCause.UNRECORDED


@dataclass(frozen=True)
class Limits:
    """How often a trial is tried again.

    Args:
        max_attempts: After deaths; after a full disk.
        max_halvings: After running out of memory.
    """

    max_attempts: int
    max_halvings: int


def failure(why: str) -> Ending:
    """The end of an attempt that failed for a reason that its own process did not say.

    ``why`` is one line.
    """
    return Ending(
        AttemptState.FAILED,
        FailureReason.EXCEPTION,
        why,
        Result(AttemptState.FAILED, FailureReason.EXCEPTION, why),
    )


@dataclass(frozen=True)
class Evidence:
    """What is known of the end of an attempt's process.

    Args:
        result: What it sent; None where it ended without a word.
        code: Its exit status; negative for a signal.
        before: How often earlier attempts at the trial ended for each reason.
        crowded: What to say where others on its GPU left it no memory.
        killed_for: Why the worker killed it: :data:`TIMEOUT` or :data:`FENCED`.
        stopping: Whether the worker was asked to stop.
        by_kernel: Whether the kernel's out-of-memory killer took it.
        reached: The failed result of a trial that was killed, as far as it is known.
    """

    result: Result | None
    code: int
    before: Counter[str] = field(default_factory=Counter)
    crowded: str | None = None
    killed_for: KillCause | None = None
    stopping: bool = False
    by_kernel: bool = False
    reached: Result = Result(AttemptState.FAILED)  # noqa: RUF009  # frozen

    def is_asked_end(self) -> bool:
        """Whether the process ended because it, or its worker, was asked to."""
        return self.stopping or self.code in (INTERRUPTED, -signal.SIGTERM, -signal.SIGHUP)


def judge(evidence: Evidence, limits: Limits) -> Ending:
    """Judge the end of an attempt.

    Args:
        evidence: All that is known of it.
        limits: How often its trial is tried.
    """
    if evidence.killed_for == FENCED:
        silent = "the lease ran out while its worker was not heard of"
        return Ending(AttemptState.LOST, FailureReason.LOST, silent)
    if evidence.crowded:
        return Ending(AttemptState.INTERRUPTED, FailureReason.INTERRUPTED, evidence.crowded)
    if evidence.result is not None:
        return _judge_result(evidence.result, evidence.before, limits)
    if evidence.killed_for == TIMEOUT:
        reached = evidence.reached
        return Ending(AttemptState.FAILED, FailureReason.TIMEOUT, reached.error, reached)
    if evidence.is_asked_end():
        return Ending(AttemptState.INTERRUPTED, FailureReason.INTERRUPTED)
    if evidence.code == NO_LOG and _may_wait_for_disk(evidence.before, limits):
        return Ending(AttemptState.INTERRUPTED, FailureReason.DISK, "no room for its log")
    if evidence.by_kernel:
        return _judge_kernel_kill(evidence, limits)
    return Ending(AttemptState.LOST, FailureReason.LOST, _death_in_words(evidence.code))


def _judge_result(result: Result, before: Counter[str], limits: Limits) -> Ending:
    """The end of an attempt whose process sent a result."""
    again = False
    if result.reason == FailureReason.OOM and result.halve:
        again = _may_halve(before, limits)
    elif result.reason == FailureReason.DISK:
        again = _may_wait_for_disk(before, limits)
    if again:
        return Ending(AttemptState.INTERRUPTED, result.reason, result.error)
    return Ending(result.state, result.reason, result.error, result)


def _judge_kernel_kill(evidence: Evidence, limits: Limits) -> Ending:
    """The end of an attempt whose process the kernel's out-of-memory killer took."""
    error = "killed by the kernel: the machine was out of memory"
    if _may_halve(evidence.before, limits):
        return Ending(AttemptState.INTERRUPTED, FailureReason.OOM, error)
    reached = replace(evidence.reached, reason=FailureReason.OOM, error=error)
    return Ending(AttemptState.FAILED, FailureReason.OOM, error, reached)


def _may_halve(before: Counter[str], limits: Limits) -> bool:
    """Whether a trial that ran out of memory is tried again, in smaller parts."""
    return before[FailureReason.OOM] < limits.max_halvings


def _may_wait_for_disk(before: Counter[str], limits: Limits) -> bool:
    """Whether a trial that found no space is tried again, once there is some."""
    return before[FailureReason.DISK] + 1 < limits.max_attempts


def _death_in_words(code: int) -> str:
    return f"killed by {_signal_name(-code)}" if code < 0 else f"exit status {code}"


def reasons(attempts: Iterable[Any]) -> Counter[str]:
    """How often attempts ended for each reason."""
    return Counter(each.reason for each in attempts if each.reason)


def micro_batches(*histories: Iterable[Any]) -> int:
    """In how many parts a trial trains each batch.

    Twice as many after each time that it ran out of memory.

    Args:
        *histories: Its earlier attempts; for a replica also those of its trial.
    """
    halvings = [reasons(history)[FailureReason.OOM] for history in histories]
    return 2 ** max(halvings, default=0)


def timed_out(
    seconds: float,
    history: Sequence[Sequence[float]],
    epochs: int,
    objective: str,
    best: Any,
) -> Result:
    """The result of an attempt that was killed at its deadline.

    Args:
        seconds: The deadline.
        history: (epoch, objective) that it reported.
        epochs: How far it was.
        objective: The name of the first.
        best: ``max`` or ``min``, the functions.
    """
    error = f"deadline of {seconds:g} s after {epochs} epochs"
    if history:
        error += f", {objective} {best(value for _, value in history):.4g} at best"
    return Result(
        AttemptState.FAILED,
        FailureReason.TIMEOUT,
        error,
        epochs=epochs,
        seconds=seconds,
        history=[list(each) for each in history],
    )


class KernelKills:
    """What the kernel's out-of-memory killer took of this process's control group.

    As far as the kernel tells.

    Args:
        files: The files that count its kills; this process's own by default.
    """

    def __init__(self, files: Sequence[Path] | None = None) -> None:
        """What was killed before does not count."""
        self._files = counters() if files is None else files
        self._seen = self._count()

    def claim(self) -> bool:
        """Whether there was a kill that no process has been found for yet.

        It is one's own from now on.
        """
        if self._count() <= self._seen:
            return False
        self._seen += 1
        return True

    def _count(self) -> int:
        return sum(_kills(path) for path in self._files)


def counters(
    proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[Path]:
    """The files of this process's control group that count what the out-of-memory killer took.

    The first that exists.

    Version 2 counts in ``memory.events``, version 1 in ``memory.oom_control``. In a container the
    path that the kernel names may be of the outside, where the group's files lie at the top.
    """
    try:
        rows = [line.split(":", 2) for line in proc.read_text().splitlines()]
    except OSError:
        return []
    for _, controllers, path in rows:
        if controllers == "":
            places = [(root, "memory.events"), (root / "unified", "memory.events")]
        elif "memory" in controllers.split(","):
            places = [(root / "memory", "memory.oom_control")]
        else:
            continue
        for folder, name in places:
            for file in (folder / path.lstrip("/") / name, folder / name):
                if file.is_file():
                    return [file]
    return []


def _kills(path: Path) -> int:
    try:
        rows = dict(line.split() for line in path.read_text().splitlines())
        return int(rows.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def reached_of(progress: Mapping[str, Any]) -> Result:
    """The failed result of a trial whose process ended without a word, from its progress."""
    return Result(AttemptState.FAILED, epochs=int(progress.get("epoch") or 0))


__all__ = [
    "FENCED",
    "INTERRUPTED",
    "NO_LOG",
    "TIMEOUT",
    "UNRECORDED",
    "Ending",
    "Evidence",
    "KernelKills",
    "Limits",
    "counters",
    "failure",
    "judge",
    "micro_batches",
    "reached_of",
    "reasons",
    "timed_out",
]
