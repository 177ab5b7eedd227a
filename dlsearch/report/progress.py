"""The unit that a study counts the progress of its trainings in: on axes, in tables, in words.

A record holds it in the description of the model that was made before the search, from the task's
own ``progress_unit``. Records that say nothing are of trainings that count in epochs, unless their
length is in steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.config.progress import ProgressUnit, training_length
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


def progress_unit(study: Mapping[str, Any]) -> ProgressUnit:
    """The unit of a study, by its document."""
    model = study.get("model") or {}
    named = model.get("progress_unit")
    for unit in ProgressUnit:
        if named == unit:
            return unit
    try:
        return training_length(_trainer_of(study)).unit
    except ConfigError:
        return ProgressUnit.EPOCH


def training_limit(study: Mapping[str, Any]) -> Any:
    """The most units that a training of the study may last.

    None where its config says none, or says it in another unit than progress is counted in, as of
    episodes.
    """
    trainer = _trainer_of(study)
    unit = progress_unit(study)
    try:
        length = training_length(trainer)
    except ConfigError:
        return None
    return length.amount if length.unit is unit else None


def _trainer_of(study: Mapping[str, Any]) -> Mapping[str, Any]:
    config = study.get("config") or {}
    return config.get("trainer") or {}
