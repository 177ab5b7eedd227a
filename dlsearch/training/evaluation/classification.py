"""Classification: the confusion matrix, and the mistakes of which the net was surest."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from dlsearch.training.evaluation.base import Evaluation

#: Mistakes that are reported.
MAX_ERRORS = 16


class Picture(TypedDict):
    """An image as the report gets it.

    Args:
        shape: [height, width, channels].
        data: Its bytes in base64.
    """

    shape: list[int]
    data: str


class Mistake(TypedDict):
    """An example whose class the net got wrong.

    Args:
        index: Of the example in the test set.
        label: Its class.
        prediction: The class that the net takes it for.
        confidence: The probability of that class, by a softmax of the scores.
        margin: Instead, where the scores are no logits: how far the score of that class is above
            the label's.
        image: The example, where the data module can show one.
    """

    index: int
    label: int
    prediction: int
    confidence: NotRequired[float]
    margin: NotRequired[float]
    image: NotRequired[Picture]


class ClassificationFacts(TypedDict, total=False):
    """What is said of a classification beside its metrics; empty where there are no scores.

    Args:
        n: Examples.
        confusion: How often each label (row) was taken for each class (column).
        errors: The mistakes of which the net was surest.
    """

    n: int
    confusion: list[list[int]]
    errors: list[Mistake]


class ClassificationEvaluation(Evaluation):
    """The test of a task whose ``test_step`` returns ``{"scores": (B, K), "labels": (B,)}``.

    ``"are_logits": False`` beside them says that a softmax makes no probabilities of the scores.
    A task that returns anything else is reported by its metrics alone.
    """

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._are_logits = True

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
            self._are_logits = bool(outputs.get("are_logits", True))

    def facts(self, data: Any = None) -> ClassificationFacts:
        """The confusion matrix, and the worst mistakes."""
        if not self._scores:
            return {}
        mistakes = self._worst_mistakes()
        if hasattr(data, "test_example"):
            for mistake in mistakes:
                mistake["image"] = _picture_of(data, mistake["index"])
        return {
            "n": sum(len(labels) for labels in self._labels),
            "confusion": self._count_confusion(),
            "errors": mistakes,
        }

    def _count_confusion(self) -> list[list[int]]:
        num_classes = self._scores[0].shape[1]
        total = torch.zeros(num_classes, num_classes, dtype=torch.long)
        for scores, labels in zip(self._scores, self._labels, strict=True):
            counts = multiclass_confusion_matrix(
                scores,
                labels,
                num_classes,
                validate_args=False,
            )
            total += counts.cpu()
        found: list[list[int]] = total.tolist()
        return found

    def _worst_mistakes(self) -> list[Mistake]:
        scores = torch.cat(self._scores).cpu()
        labels = torch.cat(self._labels).cpu()
        name: Literal["confidence", "margin"] = "margin"
        if self._are_logits:
            name = "confidence"
            scores = scores.softmax(1)
        confidences, predictions = scores.max(1)
        if not self._are_logits:
            confidences = confidences - scores.gather(1, labels[:, None].long())[:, 0]
        wrong = (labels != predictions).nonzero().flatten()
        order = confidences[wrong].argsort(descending=True, stable=True)
        worst = wrong[order[:MAX_ERRORS]]
        mistakes: list[Mistake] = []
        for index in worst.tolist():
            mistake: Mistake = {
                "index": index,
                "label": int(labels[index]),
                "prediction": int(predictions[index]),
            }
            mistake[name] = float(confidences[index])
            mistakes.append(mistake)
        return mistakes


def _picture_of(data: Any, index: int) -> Picture:
    pixels = data.test_example(index)
    return {
        "shape": list(pixels.shape),
        "data": b64encode(pixels.tobytes()).decode(),
    }


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
    if not are_scores_of_classes(scores, labels):
        return None
    return scores, labels
