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

    It is in steps where ``max_epochs`` is null.

    Raises:
        ConfigError: It gives none, or one below 1.
    """
    epochs = trainer.get("max_epochs")
    steps = trainer.get("max_steps")
    if epochs is None and steps is not None:
        length = TrainingLength(int(steps), ProgressUnit.STEP)
    elif epochs is not None:
        length = TrainingLength(int(epochs), ProgressUnit.EPOCH)
    else:
        raise ConfigError(
            "trainer.max_epochs",
            "expected a number",
            "or trainer.max_steps=1000",
        )
    if length.amount < 1:
        raise ConfigError(length.key, f"expected at least 1, got {length.amount}")
    return length
