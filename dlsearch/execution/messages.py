"""What a worker and the process of an attempt tell each other, as JSON over a socket.

The process is given a payload. It sends messages, of which some are answered, and last a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.core.types import ConfigTree, JsonObject, Params
    from dlsearch.training.run import ResumptionNote


# -- payloads --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TrialPayload:
    """What the process of a training is given.

    Args:
        folder: Where its files go; it exists.
        objectives: The metrics that decide.
        directions: ``maximize`` or ``minimize``, for each.
        params: Searched values, decoded.
        origin: The digests of the environment and of the code.
        cfg: What is trained.
        epochs: Length of a training on train + validation; None for others.
        micro_batches: Parts in which each batch is trained.
        threads: How many it may use.
        journal: The journal of its run.
        prunes_at_end: See :class:`dlsearch.training.run.Run`; where a recorded study is repeated.
        resume_key: This user's, by which its own checkpoints are known.
    """

    folder: str
    objectives: list[str]
    directions: list[str]
    params: Params
    origin: dict[str, str]
    cfg: ConfigTree
    epochs: int | None
    micro_batches: int = 1
    threads: int = 1
    journal: str = ""
    prunes_at_end: bool = False
    resume_key: str = ""

    @classmethod
    def from_json(cls, found: JsonObject) -> TrialPayload:
        """The payload that arrived."""
        return cls(**found)

    def to_json(self) -> JsonObject:
        """As it is sent."""
        return dict(vars(self))


@dataclass(frozen=True)
class TrainedPayload:
    """A finished training that is scored, and what its result said.

    Args:
        cfg: What was trained.
        folder: Where.
        epochs: Length of a training on train + validation; None for others.
        values: The objectives that it came to.
        best_epoch: Of the weights that are scored, counted from 0.
        state_sha256: The digest of these weights.
        inputs: What the training depended on.
        micro_batches: Parts in which each batch was trained.
    """

    cfg: ConfigTree
    folder: str
    epochs: int | None
    values: list[float] | None
    best_epoch: int | None
    state_sha256: str | None
    inputs: JsonObject | None
    micro_batches: int | None


@dataclass(frozen=True)
class ScoringPayload:
    """What the process of a scoring is given.

    Args:
        folder: Where its files go; it exists.
        objectives: The metrics that decide.
        directions: ``maximize`` or ``minimize``, for each.
        trained: The trainings of the configuration that has won.
        kept: Which of them stays.
        threads: How many it may use.
        resume_key: This user's, by which its own checkpoints are known.
    """

    folder: str
    objectives: list[str]
    directions: list[str]
    trained: list[TrainedPayload]
    kept: int
    threads: int = 1
    resume_key: str = ""

    @classmethod
    def from_json(cls, found: JsonObject) -> ScoringPayload:
        """The payload that arrived."""
        trained = [TrainedPayload(**each) for each in found["trained"]]
        return cls(**{**found, "trained": trained})

    def to_json(self) -> JsonObject:
        """As it is sent."""
        trained = [dict(vars(each)) for each in self.trained]
        return {**vars(self), "trained": trained}


@dataclass(frozen=True)
class PreflightPayload:
    """What the check before a study is given.

    Args:
        configs: What is to be built, the base first.
        weights: Where those lie that they begin with, by source.
        objectives: The metrics that decide.
        directions: ``maximize`` or ``minimize``, for each.
        rehearsal: What is tried afterwards, as a
            :class:`dlsearch.execution.rehearsal.messages.RehearsalPayload`; None for nothing.
    """

    configs: list[ConfigTree]
    weights: dict[str, JsonObject]
    objectives: list[str]
    directions: list[str]
    rehearsal: JsonObject | None = None

    @classmethod
    def from_json(cls, found: JsonObject) -> PreflightPayload:
        """The payload that arrived."""
        return cls(**found)


# -- messages of the process -----------------------------------------------------------------------
class MessageType(StrEnum):
    """The kinds of messages."""

    REPORT = "report"
    BEGAN = "began"
    UNSEAL = "unseal"
    DONE = "done"


@dataclass(frozen=True)
class Report:
    """An epoch has ended; the answer is a :class:`Verdict`.

    Args:
        epoch: Which, counted from 0.
        step: The global step at its end.
        metrics: By name.
    """

    epoch: int
    step: int
    metrics: Mapping[str, float]

    def to_json(self) -> JsonObject:
        """As it is sent."""
        metrics = dict(self.metrics)
        return {
            "type": MessageType.REPORT,
            "epoch": self.epoch,
            "step": self.step,
            "metrics": metrics,
        }


@dataclass(frozen=True)
class Began:
    """The training begins, and something about it is unusual. There is no answer.

    Args:
        micro_batches: Parts in which each batch is trained.
        resumption: From which checkpoint it goes on, in words; None from the beginning.
    """

    micro_batches: int
    resumption: ResumptionNote | None

    def to_json(self) -> JsonObject:
        """As it is sent."""
        return {"type": MessageType.BEGAN, **vars(self)}


@dataclass(frozen=True)
class Unseal:
    """The test set is about to be opened; the answer comes when the ledger says so."""

    def to_json(self) -> JsonObject:
        """As it is sent."""
        return {"type": MessageType.UNSEAL}


@dataclass(frozen=True)
class Done:
    """The result, which is the last message.

    Args:
        result: As plain JSON: what a user's code makes of it is checked where it arrives.
    """

    result: JsonObject

    def to_json(self) -> JsonObject:
        """As it is sent."""
        return {"type": MessageType.DONE, "result": self.result}


Message: TypeAlias = Report | Began | Unseal | Done


def message_of(found: JsonObject) -> Message | None:
    """The message that arrived; None for one of another kind, which is passed over.

    Raises:
        KeyError: Something is missing in it.
    """
    match found["type"]:
        case MessageType.REPORT:
            return Report(
                found["epoch"],
                found.get("step", 0),
                found["metrics"],
            )
        case MessageType.BEGAN:
            return Began(found["micro_batches"], found["resumption"])
        case MessageType.UNSEAL:
            return Unseal()
        case MessageType.DONE:
            return Done(found["result"])
    return None


# -- the worker's answers --------------------------------------------------------------------------
@dataclass(frozen=True)
class Verdict:
    """The answer to a report.

    Args:
        prune: Whether the pruner says to stop.
    """

    prune: bool

    def to_json(self) -> JsonObject:
        """As it is sent."""
        return {"prune": self.prune}
