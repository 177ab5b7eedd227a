"""Regression: how many examples the errors are a mean of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from torch import Tensor

from dlsearch.training.evaluation.base import Evaluation


class RegressionFacts(TypedDict, total=False):
    """What is said of a regression beside its metrics; empty where no batch was counted.

    Args:
        n: Examples.
    """

    n: int


class RegressionEvaluation(Evaluation):
    """The test of a task whose ``test_step`` returns ``{"outputs": (B, …), "targets": (B, …)}``.

    A task that returns anything else is reported by its metrics alone.
    """

    def __init__(self) -> None:
        self._n = 0

    def add_batch(self, outputs: Any) -> None:
        """Count a batch."""
        targets = outputs.get("targets") if isinstance(outputs, Mapping) else None
        if isinstance(targets, Tensor):
            self._n += len(targets)

    def facts(self, data: Any = None) -> RegressionFacts:
        """How many examples there were."""
        return {"n": self._n} if self._n else {}
