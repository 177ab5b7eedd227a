"""Ensembles: the scores of several trained nets, averaged with weights that are equal, or searched on validation.

Averaging is of probabilities (softmax) or of the scores themselves. Weights are searched by greedy
selection with replacement (Caruana, Niculescu-Mizil, Crew and Ksikes, 2004: "Ensemble selection
from libraries of models").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torchmetrics.functional.classification import multiclass_f1_score

from dlsearch.core.errors import ConfigError
from dlsearch.tracking.journal import Journal
from dlsearch.training.evaluation.classification import join_predictions
from dlsearch.training.fit import build_task, open_test_set
from dlsearch.training.loading import WeightsMismatchError
from dlsearch.training.restoring import Expected, Restored, restore
from dlsearch.training.run import Run
from dlsearch.training.test_guard import Seal

if TYPE_CHECKING:
    from omegaconf import DictConfig

BY = ("probabilities", "logits")
#: Rounds of the greedy selection: a weight is a multiple of one through at most so many.
ROUNDS = 50


@dataclass
class Trained:
    """A trained net.

    Args:
        name: What it is called in messages.
        cfg: What was trained.
        checkpoint: Its weights.
        expected: What its training said at its end.
    """

    name: str
    cfg: DictConfig
    checkpoint: Path
    expected: Expected


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
    ) -> tuple[Tensor, Tensor]:
        """Scores (N, K) and classes (N,) of ``val`` or of ``test``, in order, on the CPU.

        Args:
            each: A member, or the single net.
            restored: It, with its weights and data.
            split: Of which examples.

        Raises:
            ConfigError: The outputs are no scores of classes.
        """
        source = restored.loaders
        loader = source.val_dataloader() if split == "val" else source.test_dataloader()
        parts: Any = restored.evaluate(restored.trainer().predict, dataloaders=loader)
        predictions = join_predictions(parts)
        if predictions is None:
            raise ConfigError(
                "task", f"{each.name} gives no scores of classes", "an ensemble averages these"
            )
        scores, labels = predictions
        return scores.double(), labels

    def combine(self, outputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """The weighted mean of scores, (N, K); of probabilities its logarithm."""
        share = torch.tensor(weights, dtype=torch.float64)
        share = share / share.sum()
        stacked = torch.stack(list(outputs))  # (members, N, K)
        if self.by == "logits":
            return (share[:, None, None] * stacked).sum(0)
        return torch.logsumexp(stacked.log_softmax(2) + share.log()[:, None, None], dim=0)

    def measure(self, scores: Tensor, labels: Tensor) -> dict[str, float]:
        """``accuracy``, ``f1`` (macro) and, where scores are logits or logarithms, ``loss`` (cross-entropy)."""
        predicted = scores.argmax(1)
        found = {
            "accuracy": float((predicted == labels).double().mean()),
            "f1": float(
                multiclass_f1_score(
                    predicted,
                    labels,
                    num_classes=scores.shape[1],
                    average="macro",
                )
            ),
        }
        return {
            **found,
            **({"loss": float(F.cross_entropy(scores, labels))} if self._logged else {}),
        }

    def merit(self, scores: Tensor, labels: Tensor) -> tuple[float, ...]:
        """What the search of weights maximises: the objective, then the loss."""
        loss = -float(F.cross_entropy(scores, labels)) if self._logged else 0.0
        if self.objective == "loss":
            return (loss,)
        if self.objective == "f1":
            return self.measure(scores, labels)["f1"], loss
        return float((scores.argmax(1) == labels).double().mean()), loss

    def search(self, outputs: Sequence[Tensor], labels: Tensor) -> list[float]:
        """Weights of the members, by greedy selection with replacement; they sum to 1.

        Args:
            outputs: Of each member, (N, K), on validation.
            labels: (N,).
        """
        counts = [0] * len(outputs)
        best = None
        kept = None
        for _ in range(ROUNDS):
            tried = []
            for i in range(len(outputs)):
                counts[i] += 1
                chosen = [n for n, count in enumerate(counts) if count]
                mixed = self.combine([outputs[n] for n in chosen], [counts[n] for n in chosen])
                tried.append(self.merit(mixed, labels))
                counts[i] -= 1
            top = max(range(len(tried)), key=lambda i: (tried[i], -i))
            counts[top] += 1
            if best is None or tried[top] > best:
                best = tried[top]
                kept = list(counts)
        assert kept is not None
        return [count / sum(kept) for count in kept]

    def run(
        self,
        single: Trained,
        folder: Path,
        unseal: Callable[[dict[str, Any]], None] | None,
    ) -> dict[str, Any]:
        """Weigh on validation, then, if asked, score on the test set, which is opened once.

        Args:
            single: The net that they are compared with.
            folder: Where tries to reach for the test set are written down while it is sealed.
            unseal: Called with what was found, before the test set is opened; None leaves it
                sealed.

        Returns:
            ``members``, ``weights`` (``equal`` and ``searched``), ``chosen``, and for ``single``
            and both weightings their figures under ``validation`` and, where it was opened,
            ``test``, with ``n``.

        Raises:
            ConfigError: The members were not validated on the same examples, or their weights
                cannot be loaded.
        """
        nets = list(self.members)
        if single.name not in {each.name for each in self.members}:
            _check_predicts(single)
            nets.append(single)
        restored: dict[str, Restored] = {}
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        with Seal(folder) as seal:
            for each in nets:
                restored[each.name] = _restore_member(each, seal)
                seen[each.name] = self.outputs(each, restored[each.name], "val")
        outputs, labels = self._align_outputs(seen, "validation")
        weights = {
            "equal": [1 / len(self.members)] * len(self.members),
            "searched": self.search([outputs[each.name] for each in self.members], labels),
        }
        found: dict[str, Any] = {
            "by": self.by,
            "objective": self.objective,
            "members": [each.name for each in self.members],
            "single": single.name,
            "weights": weights,
            "validation": {
                "n": len(labels),
                "each": {each.name: self.measure(outputs[each.name], labels) for each in nets},
                **self._measure_all(outputs, labels, weights, single.name),
            },
            "chosen": self._choose(outputs, labels, weights),
        }
        if unseal is None:
            return found
        unseal(found)
        for each in nets:
            loaders = restored[each.name].loaders
            open_test_set(loaders)
            loaders.setup("test")
            seen[each.name] = self.outputs(each, restored[each.name], "test")
        outputs, labels = self._align_outputs(seen, "test")
        chosen = self._mix_scores(outputs, weights[found["chosen"]])
        found["test"] = {
            "n": len(labels),
            **self._measure_all(outputs, labels, weights, single.name),
            **_count_changes(outputs[single.name], chosen, labels),
        }
        return found

    def _choose(
        self,
        outputs: dict[str, Tensor],
        labels: Tensor,
        weights: dict[str, list[float]],
    ) -> str:
        """The weights that are better on validation; equal ones where there is no difference."""
        equal = self.merit(self._mix_scores(outputs, weights["equal"]), labels)
        searched = self.merit(self._mix_scores(outputs, weights["searched"]), labels)
        return "searched" if searched > equal else "equal"

    def _align_outputs(
        self, seen: dict[str, tuple[Tensor, Tensor]], split: str
    ) -> tuple[dict[str, Tensor], Tensor]:
        labels = seen[self.members[0].name][1]
        for name, (scores, others) in seen.items():
            if (
                not torch.equal(labels, others)
                or scores.shape != seen[self.members[0].name][0].shape
            ):
                hint = "their data.split_seed, val_size or classes differ"
                raise ConfigError(
                    "data",
                    f"{name} and {self.members[0].name} have not the same {split} examples",
                    hint,
                )
        return {name: scores for name, (scores, _) in seen.items()}, labels

    def _mix_scores(self, outputs: dict[str, Tensor], share: Sequence[float]) -> Tensor:
        used = [
            (outputs[each.name], weight)
            for each, weight in zip(self.members, share, strict=True)
            if weight
        ]
        return self.combine([scores for scores, _ in used], [weight for _, weight in used])

    def _measure_all(
        self,
        outputs: dict[str, Tensor],
        labels: Tensor,
        weights: dict[str, list[float]],
        single: str,
    ) -> dict[str, dict[str, float]]:
        mixed = {
            kind: self.measure(self._mix_scores(outputs, share), labels)
            for kind, share in weights.items()
        }
        return {"single": self.measure(outputs[single], labels), **mixed}


def _count_changes(single: Tensor, ensemble: Tensor, labels: Tensor) -> dict[str, int]:
    """Examples that the ensemble ``gained`` and ``lost`` against the single net."""
    right_alone = single.argmax(1) == labels
    right_together = ensemble.argmax(1) == labels
    return {
        "gained": int((right_together & ~right_alone).sum()),
        "lost": int((right_alone & ~right_together).sum()),
    }


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
    )
    try:
        return restore(each.cfg, run, each.checkpoint, each.expected, watch=seal.watch)
    except WeightsMismatchError as error:
        raise ConfigError(
            "NAME", f"{each.name} cannot take part: {error}", "--top leaves the last ones out"
        ) from error
