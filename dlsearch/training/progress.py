"""How far a training is, in the unit in which its task counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.config.progress import ProgressUnit, training_length
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytorch_lightning as pl
    from omegaconf import DictConfig


def unit_of(task: Any, trainer: Mapping[str, Any] | None = None) -> ProgressUnit:
    """The unit that the progress of a training is counted in.

    A task that counts in steps or episodes says so in its attribute ``progress_unit``. Every other
    is counted as its length is: in steps where ``trainer.max_steps`` gives it, or else in epochs.

    Args:
        task: It may name a unit.
        trainer: The section of the config; None where its length is in epochs.

    Raises:
        ConfigError: The attribute holds a word that is no unit.
    """
    named = getattr(task, "progress_unit", ProgressUnit.EPOCH)
    try:
        unit = ProgressUnit(named)
    except ValueError as error:
        raise ConfigError(
            "task",
            f"{type(task).__name__}.progress_unit: expected one of {', '.join(ProgressUnit)},"
            f" got {named!r}",
        ) from error
    if unit is ProgressUnit.EPOCH and trainer is not None:
        return training_length(trainer).unit
    return unit


def check_length(cfg: DictConfig, task: Any) -> None:
    """Check that a task can count its progress, and that in steps it has a length in steps.

    Pruners compare a trial's progress with that length, so that both must have one unit.

    Raises:
        ConfigError: The length is in epochs where the task counts in steps, or the task counts in
            episodes and does not say how many there were.
    """
    unit = unit_of(task)
    if unit is ProgressUnit.EPISODE and not hasattr(task, "episodes"):
        raise ConfigError(
            "task", f"{type(task).__name__} counts in episodes and has no attribute episodes"
        )
    if unit is not ProgressUnit.STEP:
        return
    if training_length(cfg.trainer).unit is not ProgressUnit.STEP:
        raise ConfigError(
            "trainer.max_steps",
            f"expected a length in steps: {type(task).__name__} counts its progress in these",
            "trainer.max_steps=1000 trainer.max_epochs=null",
        )


def completed_units(trainer: pl.Trainer, task: Any, unit: ProgressUnit | None = None) -> int:
    """How many epochs, steps of optimizers, or episodes a training has completed.

    A task that counts in episodes says how many in its attribute ``episodes``.

    Args:
        trainer: Of the training.
        task: Of the training.
        unit: What is counted; None where the task alone says it.
    """
    unit = unit or unit_of(task)
    if unit is ProgressUnit.EPOCH:
        return int(trainer.current_epoch)
    if unit is ProgressUnit.STEP:
        return int(trainer.global_step)
    return int(task.episodes)
