"""Classification: the confusion matrix, and the mistakes of which the net was surest."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from dlsearch.training.evaluation.base import Evaluation

#: Mistakes that are reported.
MAX_ERRORS = 16


class ClassificationEvaluation(Evaluation):
    """The test of a task whose ``test_step`` returns ``{"scores": (B, K), "labels": (B,)}``.

    A task that returns anything else is reported by its metrics alone.
    """

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add_batch(self, outputs: Any) -> None:
        """Keep a batch's scores and labels."""
        if not isinstance(outputs, Mapping):
            return
        scores = outputs.get("scores")
        labels = outputs.get("labels")
        if not isinstance(scores, Tensor) or not isinstance(labels, Tensor):
            return
        if are_scores_of_classes(scores, labels):
            self._scores.append(scores.detach())
            self._labels.append(labels.detach())

    def facts(self) -> dict[str, Any]:
        """``n`` examples, their ``confusion`` matrix (labels by predictions), and the worst ``errors``."""
        if not self._scores:
            return {}
        return {
            "n": sum(len(labels) for labels in self._labels),
            "confusion": self._count_confusion(),
            "errors": self._worst_errors(),
        }

    def illustrate(self, facts: dict[str, Any], data: Any) -> None:
        """Add the picture of each error where the data module can show one."""
        if not hasattr(data, "test_example"):
            return
        for error in facts.get("errors", []):
            pixels = data.test_example(error["index"])
            error["image"] = {
                "shape": list(pixels.shape),
                "data": b64encode(pixels.tobytes()).decode(),
            }

    def _count_confusion(self) -> list[list[int]]:
        num_classes = self._scores[0].shape[1]
        total = torch.zeros(num_classes, num_classes, dtype=torch.long)
        for scores, labels in zip(self._scores, self._labels, strict=True):
            counts = multiclass_confusion_matrix(scores, labels, num_classes, validate_args=False)
            total += counts.cpu()
        found: list[list[int]] = total.tolist()
        return found

    def _worst_errors(self) -> list[dict[str, Any]]:
        best = [scores.softmax(1).max(1) for scores in self._scores]
        confidence = torch.cat([each.values for each in best]).cpu()
        prediction = torch.cat([each.indices for each in best]).cpu()
        label = torch.cat(self._labels).cpu()
        wrong = (label != prediction).nonzero().flatten()
        order = confidence[wrong].argsort(descending=True, stable=True)
        return [
            {
                "index": index,
                "label": int(label[index]),
                "prediction": int(prediction[index]),
                "confidence": float(confidence[index]),
            }
            for index in wrong[order[:MAX_ERRORS]].tolist()
        ]


def are_scores_of_classes(scores: Tensor, labels: Tensor) -> bool:
    """Whether these are (N, K) scores and (N,) classes."""
    return scores.ndim == 2 and labels.ndim == 1 and not labels.is_floating_point()


def join_predictions(parts: Sequence[Any]) -> tuple[Tensor, Tensor] | None:
    """Scores (N, K) and classes (N,) of the batches that a ``predict_step`` returned, on the CPU.

    Args:
        parts: (scores, labels) of each batch.

    Returns:
        None where they are no scores of classes.
    """
    scores = torch.cat([part[0] for part in parts]).cpu()
    labels = torch.cat([part[1] for part in parts]).cpu()
    return (scores, labels) if are_scores_of_classes(scores, labels) else None
