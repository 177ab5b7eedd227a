"""The closed sets of words of a study.

States, reasons and kinds, as databases, JSON and messages have them.
"""

from __future__ import annotations

from enum import StrEnum


class AttemptState(StrEnum):
    """The state of an attempt, which is one execution of a trial."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    LOST = "lost"


#: Attempts that end so give their trial its final state; after the other ends it is tried again.
COUNTED_STATES = (AttemptState.COMPLETE, AttemptState.PRUNED, AttemptState.FAILED)


class RecordedTrialState(StrEnum):
    """The state of a trial in the words of the record, in the order in which they are shown."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"


class StudyState(StrEnum):
    """The state of a study: nobody works at a partial one, and the same command continues it."""

    RUNNING = "running"
    PARTIAL = "partial"
    COMPLETE = "complete"
    FAILED = "failed"


class FailureReason(StrEnum):
    """Why an attempt ended without a value."""

    NAN = "nan"
    INF = "inf"
    OOM = "oom"
    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    LOST = "lost"
    DISK = "disk"
    INTERRUPTED = "interrupted"


class AttemptKind(StrEnum):
    """What an attempt is at."""

    TRIAL = "trial"
    CONFIRM = "confirm"  # a finalist on a fresh seed
    REFIT = "refit"  # the winner on train + validation
    TEST = "test"  # the scoring of the winner


class OpeningKind(StrEnum):
    """Why a test set was opened: a row of the test ledger."""

    MANUAL = "manual"
    CONFIRM = "confirm"
    ENSEMBLE = "ensemble"


class KillCause(StrEnum):
    """Why a worker killed the process of an attempt."""

    TIMEOUT = "timeout"
    FENCED = "fenced"  # somebody else holds the trial
    UNRECORDED = "unrecorded"  # what it reports cannot be written


class Direction(StrEnum):
    """Which values of an objective are better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"
