"""The kinds of tasks, and how a task says which one it is. Imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from dlsearch.core.errors import ConfigError


class Kind(StrEnum):
    """What a task does, and so what can be said of it beyond its metrics."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    SEQUENCE = "sequence"
    RECONSTRUCTION = "reconstruction"
    GENERATION = "generation"
    DETECTION = "detection"
    CAPTIONING = "captioning"
    CONTROL = "control"
    CUSTOM = "custom"


def kind_of(task: Any) -> Kind:
    """The kind that a task names in its attribute ``kind``; custom where it names none.

    Raises:
        ConfigError: The attribute holds a word that is no kind.
    """
    named = getattr(task, "kind", None)
    if named is None:
        return Kind.CUSTOM
    try:
        return Kind(named)
    except ValueError as error:
        raise ConfigError(
            "task",
            f"{type(task).__name__}.kind: expected one of {', '.join(Kind)}, got {named!r}",
            "leave it out: the logged metrics are reported as they are",
        ) from error
