"""What the driver and the process of a rehearsal tell each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from dlsearch.config.progress import ProgressUnit
from dlsearch.planning.variations import Variation

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject


@dataclass(frozen=True)
class RehearsalPayload:
    """What the process of a rehearsal is given.

    Args:
        candidates: What is tried, the default first.
        objectives: The metrics that decide.
        directions: ``maximize`` or ``minimize``, for each.
        folder: Where it may write; it is removed afterwards.
        threads: How many it may use; None leaves them.
    """

    candidates: list[Variation]
    objectives: list[str]
    directions: list[str]
    folder: str
    threads: int | None = None

    @classmethod
    def from_json(cls, found: JsonObject) -> RehearsalPayload:
        """The payload that arrived."""
        candidates = [Variation(**each) for each in found["candidates"]]
        return cls(**{**found, "candidates": candidates})

    def to_json(self) -> JsonObject:
        """As it is sent."""
        return asdict(self)


class Stage(StrEnum):
    """Where in a training something is logged."""

    TRAIN = "train"
    VALIDATE = "validate"


@dataclass(frozen=True)
class LoggedName:
    """A call of ``self.log``.

    Args:
        name: Of the metric, without what Lightning appends.
        stage: Where.
        on_step: Whether each batch has a value.
        on_epoch: Whether each epoch has one.
    """

    name: str
    stage: str
    on_step: bool
    on_epoch: bool


@dataclass(frozen=True)
class Fault:
    """Why a configuration cannot be trained.

    Args:
        key: The config key that is wrong.
        expected: What is wrong with it, and where.
        hint: What to do.
        is_of_memory: Whether memory ran out, which a trial has its own ways with.
    """

    key: str
    expected: str
    hint: str = ""
    is_of_memory: bool = False


@dataclass
class Sight:
    """What one configuration showed.

    Args:
        kind: What it differs in from the default.
        said: What it is called.
        key: The searched key that has another value than by default; empty for the default.
        fault: Why it cannot be trained; None where it can.
        was_trained: Whether a batch was trained, or the configuration only built.
        epochs: How many were begun.
        most_epochs: How many a trial of it has; None where steps or time say how long.
        logged: The calls of ``self.log``.
        reported: The metrics that an epoch's end knows, under Lightning's names.
        in_logger: Names that were given to the logger alone.
        missing_calls: What was asked of the logger that it has not.
        is_validated: Whether anything was validated.
        not_validated: Why not, else.
        misfit: Why its checkpoint does not fit the module that saved it; empty where it does.
        named_in_code: Objectives whose names stand in the module's code.
        progress_unit: In what its progress is counted.
        n_params: Trainable parameters.
        n_lazy: How many got their shapes from the first batch.
        train_batches: Of an epoch; None where nobody knows.
        seconds: How long that took.
    """

    kind: str
    said: str
    key: str = ""
    fault: Fault | None = None
    was_trained: bool = False
    epochs: int = 0
    most_epochs: int | None = None
    logged: list[LoggedName] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)
    in_logger: list[str] = field(default_factory=list)
    missing_calls: list[str] = field(default_factory=list)
    is_validated: bool = False
    not_validated: str = ""
    misfit: str = ""
    named_in_code: list[str] = field(default_factory=list)
    progress_unit: str = ProgressUnit.EPOCH
    n_params: int = 0
    n_lazy: int = 0
    train_batches: int | None = None
    seconds: float = 0.0

    @classmethod
    def from_json(cls, found: JsonObject) -> Sight:
        """The sight that arrived."""
        fault = found["fault"]
        logged = [LoggedName(**each) for each in found["logged"]]
        return cls(
            **{**found, "fault": None if fault is None else Fault(**fault), "logged": logged}
        )

    def to_json(self) -> JsonObject:
        """As it is sent."""
        return asdict(self)
