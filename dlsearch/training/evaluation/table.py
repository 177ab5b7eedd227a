"""Which evaluation belongs to which kind of task.

A kind that is added gets a file beside this one, and a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.training.evaluation.base import Evaluation, LoggedMetrics
from dlsearch.training.evaluation.classification import ClassificationEvaluation
from dlsearch.training.evaluation.kinds import Kind, kind_of
from dlsearch.training.evaluation.regression import RegressionEvaluation

if TYPE_CHECKING:
    from collections.abc import Mapping

#: By kind. Of those that have none of their own, the logged metrics are reported as they are.
EVALUATIONS: Mapping[Kind, type[Evaluation]] = {
    Kind.CLASSIFICATION: ClassificationEvaluation,
    Kind.REGRESSION: RegressionEvaluation,
}


def evaluation_of(task: Any) -> Evaluation:
    """A fresh evaluation of the task's kind.

    Raises:
        ConfigError: The task names a kind that there is not.
    """
    return EVALUATIONS.get(kind_of(task), LoggedMetrics)()
