"""The seam between the trunk and a kind of task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

if TYPE_CHECKING:
    from collections.abc import Mapping


class Evaluation(ABC):
    """What is learnt from scoring one task once on its test set.

    It stands beside the metrics that the task logs.
    """

    @abstractmethod
    def add_batch(self, outputs: Any) -> None:
        """Take in a test batch.

        Args:
            outputs: What the task's ``test_step`` returned for it.
        """

    @abstractmethod
    def facts(self, data: Any = None) -> Mapping[str, object]:
        """What the report is given beside the metrics, as plain JSON.

        Args:
            data: The data module, unsealed, whose examples are shown where the kind can; None
                leaves them out.
        """


class LoggedMetrics(Evaluation):
    """The evaluation of a task of which nothing is known but what it logs."""

    def add_batch(self, outputs: Any) -> None:
        """Nothing is kept."""

    def facts(self, data: Any = None) -> Mapping[str, object]:
        """None."""
        return {}


class TestObserver(pl.Callback):
    """Hands every test batch of a trainer to an evaluation.

    Args:
        evaluation: Of the task that is tested.
    """

    __test__ = False  # pytest: no test

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Pass the outputs on."""
        self._evaluation.add_batch(outputs)
