"""The unit that the progress of a training is counted in, and the length of one.

Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dlsearch.core.errors import ConfigError


class ProgressUnit(StrEnum):
    """What a task counts when it says how far its training is."""

    EPOCH = "epoch"
    STEP = "step"
    EPISODE = "episode"


@dataclass(frozen=True)
class TrainingLength:
    """The longest that a training lasts.

    Args:
        amount: So many units.
        unit: An epoch, or a step of an optimizer.
    """

    amount: int
    unit: ProgressUnit

    @property
    def key(self) -> str:
        """The config key that says it."""
        return f"trainer.max_{self.unit}s"


def training_length(trainer: Mapping[str, Any]) -> TrainingLength:
    """The length that the ``trainer`` section of a config gives.

    It is in steps where ``max_steps`` is given; ``max_epochs`` may end such a training sooner.

    Raises:
        ConfigError: It gives none, or one below 1.
    """
    if trainer.get("fast_dev_run"):
        return TrainingLength(1, ProgressUnit.EPOCH)
    epochs = epochs_of(trainer)
    steps = _limit_of(trainer, "max_steps")
    if steps is not None and (epochs is None or not _is_of_earlier_version(trainer)):
        length = TrainingLength(steps, ProgressUnit.STEP)
    elif epochs is not None:
        length = TrainingLength(epochs, ProgressUnit.EPOCH)
    else:
        hint = "or trainer.max_steps=1000"
        if trainer.get("max_time") is not None:
            hint = "trainer.max_epochs=1000 beside trainer.max_time: whatever is reached first"
        raise ConfigError("trainer.max_epochs", "expected a number", hint)
    if length.amount < 1:
        raise ConfigError(length.key, f"expected at least 1, got {length.amount}")
    return length


def epochs_of(trainer: Mapping[str, Any]) -> int | None:
    """The epochs after which a training ends; None where these do not end it."""
    return _limit_of(trainer, "max_epochs")


def _limit_of(trainer: Mapping[str, Any], key: str) -> int | None:
    """A limit as Lightning takes it, of which null and -1 mean that there is none."""
    value = trainer.get(key)
    return None if value is None or int(value) == -1 else int(value)


def _is_of_earlier_version(trainer: Mapping[str, Any]) -> bool:
    """Whether the section is of a version whose trainings with both limits counted in epochs.

    Their reports lie in the study's database, and go on in the same unit.
    """
    return "max_time" not in trainer
