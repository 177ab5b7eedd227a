"""The rows of a journal, as they are written: a class for each type.

What is read is plain JSON, :data:`dlsearch.tracking.journal.Row`: an earlier version, or anybody
who may write to the store, wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True)
class OpenRow:
    """The run begins, or is taken up again.

    Args:
        key: Finds the run again.
        kind: One of :data:`dlsearch.tracking.layout.KINDS`.
        name: The run's name.
        experiment: MLflow's experiment.
        parent: The parent's journal, relative to the store; None for a run at the top.
        tags: The run's first tags.
        started: When it began, milliseconds since 1970.
    """

    row: ClassVar = "open"
    key: str
    kind: str
    name: str
    experiment: str
    parent: str | None
    tags: dict[str, str]
    started: int


@dataclass(frozen=True)
class ParamsRow:
    """Parameters by name."""

    row: ClassVar = "params"
    values: dict[str, str]


@dataclass(frozen=True)
class MetricsRow:
    """Metrics at a step.

    Args:
        step: The trainer's global step.
        values: By name; what is not finite is a word, which JSON has no number for.
    """

    row: ClassVar = "metrics"
    step: int
    values: dict[str, float | str]


@dataclass(frozen=True)
class TagsRow:
    """Tags by name."""

    row: ClassVar = "tags"
    values: dict[str, str]


@dataclass(frozen=True)
class ArtifactRow:
    """A file or folder that is copied into the run.

    Args:
        file: Relative to the journal.
        to: The folder among the run's artifacts; empty for the topmost.
    """

    row: ClassVar = "artifact"
    file: str
    to: str


@dataclass(frozen=True)
class DatasetRow:
    """A data set that the run read.

    Args:
        name: Its name.
        digest: Of its content.
        context: ``train validation test``.
        source: Where it comes from.
    """

    row: ClassVar = "dataset"
    name: str
    digest: str
    context: str
    source: str


@dataclass(frozen=True)
class ModelRow:
    """The net beside the journal is logged as a model.

    Args:
        name: Of the model.
        metrics: What it scored, by name.
    """

    row: ClassVar = "model"
    name: str
    metrics: dict[str, float | str]


@dataclass(frozen=True)
class StatusRow:
    """The run ends, or goes on: one of MLflow's words."""

    row: ClassVar = "status"
    status: str


JournalRow: TypeAlias = (
    OpenRow | ParamsRow | MetricsRow | TagsRow | ArtifactRow | DatasetRow | ModelRow | StatusRow
)
