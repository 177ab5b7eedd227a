"""Ensembles: the scores of several trained nets, averaged.

The weights are equal, or searched on validation.

Averaging is of probabilities (softmax) or of the scores themselves. Weights are searched by greedy
selection with replacement (Caruana, Niculescu-Mizil, Crew and Ksikes, 2004: "Ensemble selection
from libraries of models").
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torchmetrics.functional.classification import multiclass_f1_score

from dlsearch.core.errors import ConfigError
from dlsearch.tracking.journal import Journal
from dlsearch.training.building import build_task
from dlsearch.training.evaluation.classification import join_predictions
from dlsearch.training.run import Run
from dlsearch.training.state.loading import WeightsMismatchError
from dlsearch.training.state.restoring import Expected, Restored, restore
from dlsearch.training.test_guard import Seal
from dlsearch.training.test_set import open_test_set

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from omegaconf import DictConfig

Weighting = Literal["equal", "searched"]

BY = ("probabilities", "logits")
#: Rounds of the greedy selection: a weight is a multiple of one through at most so many.
ROUNDS = 50


class Figures(TypedDict):
    """How good scores are.

    Args:
        accuracy: The share of the examples whose class has the highest score.
        f1: The mean over classes.
        loss: The cross-entropy, where the scores are logits or logarithms.
    """

    accuracy: float
    f1: float
    loss: NotRequired[float]


class Weights(TypedDict):
    """The weights of the members, in their order; those of either kind sum to 1."""

    equal: list[float]
    searched: list[float]


class Compared(TypedDict):
    """Figures of the single net, and of the ensemble with either weights."""

    single: Figures
    equal: Figures
    searched: Figures


class OnValidation(Compared):
    """What was found on validation.

    Args:
        n: Examples.
        each: Figures of every net, by its name.
    """

    n: int
    each: dict[str, Figures]


class Changes(TypedDict):
    """Examples that the ensemble gained and lost against the single net."""

    gained: int
    lost: int


class OnTest(Compared, Changes):
    """What was found on the test set.

    Args:
        n: Examples.
    """

    n: int


class EnsembleReport(TypedDict):
    """What an ensemble came to, as plain JSON.

    Args:
        by: What is averaged.
        objective: The metric by which weights were searched.
        members: Names.
        single: The name of the net that they are compared with.
        weights: Of the members.
        validation: Figures on validation.
        chosen: The weights that are better there.
        test: Figures on the test set, where it was opened.
    """

    by: str
    objective: str
    members: list[str]
    single: str
    weights: Weights
    validation: OnValidation
    chosen: Weighting
    test: NotRequired[OnTest]


@dataclass(frozen=True)
class Outputs:
    """What a net says of the examples of a split, in order, on the CPU.

    Args:
        scores: (N, K).
        labels: (N,), the classes.
    """

    scores: Tensor
    labels: Tensor


@dataclass(frozen=True)
class _Aligned:
    """What all nets say of the same examples.

    Args:
        scores: (N, K) of each net, by its name.
        labels: (N,).
    """

    scores: dict[str, Tensor]
    labels: Tensor


@dataclass
class Trained:
    """A trained net.

    Args:
        name: What it is called in messages.
        cfg: What was trained.
        checkpoint: Its weights.
        expected: What its training said at its end.
        resume_key: This user's, by which its own checkpoints are known.
    """

    name: str
    cfg: DictConfig
    checkpoint: Path
    expected: Expected
    resume_key: str = ""


class Ensemble:
    """Nets whose scores are averaged.

    Args:
        members: At least two.
        by: ``probabilities`` or ``logits``.
        objective: Metric by which weights are searched: ``accuracy``, ``f1`` or ``loss``.

    Raises:
        ConfigError: A member has no test, or gives no scores of classes of this kind.
    """

    def __init__(
        self,
        members: Sequence[Trained],
        by: str,
        objective: str,
    ) -> None:
        self.members = list(members)
        self.by = by
        self.objective = objective
        for each in members:
            _check_predicts(each)
        hinge = [each.name for each in members if each.cfg.task.get("loss") == "hinge"]
        if hinge and by == "probabilities":
            raise ConfigError(
                "--by",
                f"{hinge[0]} was trained with a hinge loss and gives no probabilities",
                "logits",
            )
        self._logged = not hinge

    def outputs(
        self,
        each: Trained,
        restored: Restored,
        split: str,
    ) -> Outputs:
        """What a net says of the examples of a split.

        Args:
            each: A member, or the single net.
            restored: It, with its weights and data.
            split: ``val`` or ``test``.

        Raises:
            ConfigError: The outputs are no scores of classes.
        """
        source = restored.loaders
        loader = source.val_dataloader() if split == "val" else source.test_dataloader()
        parts: Any = restored.evaluate(restored.trainer().predict, dataloaders=loader)
        predictions = join_predictions(parts)
        if predictions is None:
            raise ConfigError(
                "task",
                f"{each.name} gives no scores of classes",
                "an ensemble averages these",
            )
        scores, labels = predictions
        return Outputs(scores.double(), labels)

    def combine(self, outputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """The weighted mean of scores, (N, K); of probabilities its logarithm."""
        share = torch.tensor(weights, dtype=torch.float64)
        share = share / share.sum()
        share = share[:, None, None]
        stacked = torch.stack(list(outputs))  # (members, N, K)
        if self.by == "logits":
            return (share * stacked).sum(0)
        logarithms = stacked.log_softmax(2) + share.log()
        return torch.logsumexp(logarithms, dim=0)

    def measure(self, scores: Tensor, labels: Tensor) -> Figures:
        """How good scores (N, K) are for classes (N,)."""
        figures: Figures = {
            "accuracy": _accuracy(scores, labels),
            "f1": _f1(scores, labels),
        }
        if self._logged:
            figures["loss"] = float(F.cross_entropy(scores, labels))
        return figures

    def merit(self, scores: Tensor, labels: Tensor) -> tuple[float, ...]:
        """What the search of weights maximises: the objective, then the loss."""
        loss = -float(F.cross_entropy(scores, labels)) if self._logged else 0.0
        if self.objective == "loss":
            return (loss,)
        if self.objective == "f1":
            return _f1(scores, labels), loss
        return _accuracy(scores, labels), loss

    def search(self, outputs: Sequence[Tensor], labels: Tensor) -> list[float]:
        """Weights of the members, by greedy selection with replacement; they sum to 1.

        Args:
            outputs: Of each member, (N, K), on validation.
            labels: (N,).
        """
        counts = [0] * len(outputs)
        best: tuple[float, ...] | None = None
        kept: list[int] = []
        for _ in range(ROUNDS):
            merits: list[tuple[float, ...]] = []
            for member in range(len(outputs)):
                tried = list(counts)
                tried[member] += 1
                merits.append(self._merit_of_counts(outputs, tried, labels))
            top = merits.index(max(merits))
            counts[top] += 1
            if best is None or merits[top] > best:
                best = merits[top]
                kept = list(counts)
        total = sum(kept)
        return [count / total for count in kept]

    def _merit_of_counts(
        self,
        outputs: Sequence[Tensor],
        counts: Sequence[int],
        labels: Tensor,
    ) -> tuple[float, ...]:
        """The merit of the ensemble in which each member stands as often as `counts` says."""
        chosen = [member for member, count in enumerate(counts) if count]
        mixed = self.combine(
            [outputs[member] for member in chosen],
            [counts[member] for member in chosen],
        )
        return self.merit(mixed, labels)

    def run(
        self,
        single: Trained,
        folder: Path,
        unseal: Callable[[EnsembleReport], None] | None,
    ) -> EnsembleReport:
        """Weigh on validation, then, if asked, score on the test set, which is opened once.

        Args:
            single: The net that they are compared with.
            folder: Where tries to reach for the test set are written down while it is sealed.
            unseal: Called with what was found, before the test set is opened; None leaves it
                sealed.

        Raises:
            ConfigError: The members were not validated on the same examples, or their weights
                cannot be loaded.
        """
        nets = list(self.members)
        if single.name not in {each.name for each in self.members}:
            _check_predicts(single)
            nets.append(single)
        restored: dict[str, Restored] = {}
        seen: dict[str, Outputs] = {}
        with Seal(folder) as seal:
            for each in nets:
                restored[each.name] = _restore_member(each, seal)
                seen[each.name] = self.outputs(each, restored[each.name], "val")
        validation = self._align_outputs(seen, "validation")
        weights = self._weigh_members(validation)
        report: EnsembleReport = {
            "by": self.by,
            "objective": self.objective,
            "members": [each.name for each in self.members],
            "single": single.name,
            "weights": weights,
            "validation": {
                "n": len(validation.labels),
                "each": self._measure_each(nets, validation),
                **self._compare(validation, weights, single.name),
            },
            "chosen": self._choose(validation, weights),
        }
        if unseal is None:
            return report
        unseal(report)
        for each in nets:
            loaders = restored[each.name].loaders
            open_test_set(loaders)
            loaders.setup("test")
            seen[each.name] = self.outputs(each, restored[each.name], "test")
        test = self._align_outputs(seen, "test")
        chosen = self._mix_scores(test, weights[report["chosen"]])
        report["test"] = {
            "n": len(test.labels),
            **self._compare(test, weights, single.name),
            **_count_changes(test.scores[single.name], chosen, test.labels),
        }
        return report

    def _weigh_members(self, validation: _Aligned) -> Weights:
        scores = [validation.scores[each.name] for each in self.members]
        count = len(self.members)
        return {
            "equal": [1 / count] * count,
            "searched": self.search(scores, validation.labels),
        }

    def _choose(self, validation: _Aligned, weights: Weights) -> Weighting:
        """The weights that are better on validation; equal ones where there is no difference."""
        equal = self._mix_scores(validation, weights["equal"])
        searched = self._mix_scores(validation, weights["searched"])
        merit_of_equal = self.merit(equal, validation.labels)
        merit_of_searched = self.merit(searched, validation.labels)
        return "searched" if merit_of_searched > merit_of_equal else "equal"

    def _align_outputs(self, seen: dict[str, Outputs], split: str) -> _Aligned:
        """Outputs by net, of examples that are the same.

        Raises:
            ConfigError: They are not.
        """
        first = self.members[0].name
        labels = seen[first].labels
        shape = seen[first].scores.shape
        for name, outputs in seen.items():
            if torch.equal(labels, outputs.labels) and outputs.scores.shape == shape:
                continue
            raise ConfigError(
                "data",
                f"{name} and {first} have not the same {split} examples",
                "their data.split_seed, val_size or classes differ",
            )
        scores = {name: outputs.scores for name, outputs in seen.items()}
        return _Aligned(scores, labels)

    def _mix_scores(self, outputs: _Aligned, weights: Sequence[float]) -> Tensor:
        """The scores of the ensemble; a member of weight 0 takes no part."""
        used: list[Tensor] = []
        share: list[float] = []
        for each, weight in zip(self.members, weights, strict=True):
            if weight:
                used.append(outputs.scores[each.name])
                share.append(weight)
        return self.combine(used, share)

    def _measure_each(
        self,
        nets: Sequence[Trained],
        outputs: _Aligned,
    ) -> dict[str, Figures]:
        figures: dict[str, Figures] = {}
        for net in nets:
            figures[net.name] = self.measure(outputs.scores[net.name], outputs.labels)
        return figures

    def _compare(self, outputs: _Aligned, weights: Weights, single: str) -> Compared:
        labels = outputs.labels
        equal = self._mix_scores(outputs, weights["equal"])
        searched = self._mix_scores(outputs, weights["searched"])
        return {
            "single": self.measure(outputs.scores[single], labels),
            "equal": self.measure(equal, labels),
            "searched": self.measure(searched, labels),
        }


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    is_right = scores.argmax(1) == labels
    return float(is_right.double().mean())


def _f1(scores: Tensor, labels: Tensor) -> float:
    """The mean over classes."""
    found = multiclass_f1_score(
        scores.argmax(1),
        labels,
        num_classes=scores.shape[1],
        average="macro",
    )
    return float(found)


def _count_changes(single: Tensor, ensemble: Tensor, labels: Tensor) -> Changes:
    right_alone = single.argmax(1) == labels
    right_together = ensemble.argmax(1) == labels
    gained = right_together & ~right_alone
    lost = right_alone & ~right_together
    return {"gained": int(gained.sum()), "lost": int(lost.sum())}


def _check_predicts(each: Trained) -> None:
    """Refuse a module that gives no predictions.

    Raises:
        ConfigError: It is one.
    """
    task = build_task(each.cfg)
    if not is_overridden("predict_step", task, pl.LightningModule):
        hint = "define one that returns scores (B, K) and classes (B,)"
        raise ConfigError(
            "task",
            f"{type(task).__name__} has no predict_step, so that there is nothing to average",
            hint,
        )


def _restore_member(each: Trained, seal: Seal) -> Restored:
    run = Run(
        each.checkpoint.parent.parent,
        Journal(Path(os.devnull)),
        [each.expected.monitor],
        ["minimize"],
        resume_key=each.resume_key,
    )
    try:
        return restore(
            each.cfg,
            run,
            each.checkpoint,
            each.expected,
            watch=seal.watch,
        )
    except WeightsMismatchError as error:
        raise ConfigError(
            "NAME",
            f"{each.name} cannot take part: {error}",
            "--top leaves the last ones out",
        ) from error
