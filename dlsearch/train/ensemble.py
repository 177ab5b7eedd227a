"""Ensembles: the scores of several trained nets, averaged with weights that are equal, or searched on validation.

Averaging is of probabilities (softmax) or of the scores themselves. Weights are searched by greedy selection with
replacement (Caruana, Niculescu-Mizil, Crew and Ksikes, 2004: "Ensemble selection from libraries of models").
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

from dlsearch.config.errors import ConfigError
from dlsearch.tracking.journal import Journal
from dlsearch.train.fit import build_data, build_task, build_trainer
from dlsearch.train.run import Run
from dlsearch.train.seal import Seal

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
    """

    name: str
    cfg: DictConfig
    checkpoint: Path


class Ensemble:
    """Nets whose scores are averaged.

    Args:
        members: At least two.
        by: ``probabilities`` or ``logits``.
        objective: Metric by which weights are searched: ``accuracy``, ``f1`` or ``loss``.

    Raises:
        ConfigError: A member has no test, or gives no scores of classes of this kind.
    """

    def __init__(self, members: Sequence[Trained], by: str, objective: str) -> None:
        self.members, self.by, self.objective = list(members), by, objective
        self._tasks = {each.name: _load(each) for each in members}
        hinge = [each.name for each in members if each.cfg.task.get("loss") == "hinge"]
        if hinge and by == "probabilities":
            raise ConfigError("--by", f"{hinge[0]} was trained with a hinge loss and gives no probabilities", "logits")
        self._logged = not hinge

    def outputs(self, each: Trained, split: str, data: pl.LightningDataModule) -> tuple[Tensor, Tensor]:
        """Scores (N, K) and classes (N,) of ``val`` or of ``test``, in order, on the CPU.

        Raises:
            ConfigError: The outputs are no scores of classes.
        """
        if each.name not in self._tasks:
            self._tasks[each.name] = _load(each)
        task = self._tasks[each.name]
        loader = data.val_dataloader() if split == "val" else data.test_dataloader()
        silent = Run(each.checkpoint.parent, Journal(Path(os.devnull)), ["val/loss"], ["minimize"])
        found: Any = build_trainer(each.cfg, silent, []).predict(task, dataloaders=loader)
        scores, labels = (torch.cat([part[i] for part in found]).cpu() for i in (0, 1))
        if scores.ndim != 2 or labels.ndim != 1 or labels.is_floating_point():
            raise ConfigError("task", f"{each.name} gives no scores of classes", "an ensemble averages these")
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
            "f1": float(multiclass_f1_score(predicted, labels, num_classes=scores.shape[1], average="macro")),
        }
        return {**found, **({"loss": float(F.cross_entropy(scores, labels))} if self._logged else {})}

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
        counts, best, kept = [0] * len(outputs), None, None
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
                best, kept = tried[top], list(counts)
        assert kept is not None
        return [count / sum(kept) for count in kept]

    def run(self, single: Trained, folder: Path, unseal: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
        """Weigh on validation, then, if asked, score on the test set, which is opened once.

        Args:
            single: The net that they are compared with.
            folder: Where tries to reach for the test set are written down while it is sealed.
            unseal: Called with what was found, before the test set is opened; None leaves it sealed.

        Returns:
            ``members``, ``weights`` (``equal`` and ``searched``), ``chosen``, and for ``single`` and both weightings
            their figures under ``validation`` and, where it was opened, ``test``, with ``n``.

        Raises:
            ConfigError: The members were not validated on the same examples.
        """
        everybody = [*self.members, *([] if single.name in self._tasks else [single])]
        sources = {each.name: build_data(each.cfg) for each in everybody}
        with Seal(folder) as seal:
            seen = {}
            for each in everybody:
                seal.watch(sources[each.name])
                sources[each.name].prepare_data()
                sources[each.name].setup("fit")
                seen[each.name] = self.outputs(each, "val", sources[each.name])
        outputs, labels = self._aligned(seen, "validation")
        equal = [1 / len(self.members)] * len(self.members)
        weights = {"equal": equal, "searched": self.search([outputs[each.name] for each in self.members], labels)}
        found: dict[str, Any] = {
            "by": self.by,
            "objective": self.objective,
            "members": [each.name for each in self.members],
            "single": single.name,
            "weights": weights,
            "validation": {
                "n": len(labels),
                "each": {each.name: self.measure(outputs[each.name], labels) for each in everybody},
                **self._figures(outputs, labels, weights, single.name),
            },
        }
        merits = {kind: self.merit(self._mixed(outputs, share), labels) for kind, share in weights.items()}
        found["chosen"] = "searched" if merits["searched"] > merits["equal"] else "equal"
        if unseal is None:
            return found
        unseal(found)
        seen = {}
        for each in everybody:
            data = sources[each.name]
            if hasattr(data, "unseal"):
                data.unseal()
            data.setup("test")
            seen[each.name] = self.outputs(each, "test", data)
        outputs, labels = self._aligned(seen, "test")
        right = {
            kind: scores.argmax(1) == labels
            for kind, scores in (
                ("single", outputs[single.name]),
                ("chosen", self._mixed(outputs, weights[found["chosen"]])),
            )
        }
        found["test"] = {"n": len(labels), **self._figures(outputs, labels, weights, single.name)}
        found["test"]["gained"] = int((right["chosen"] & ~right["single"]).sum())
        found["test"]["lost"] = int((right["single"] & ~right["chosen"]).sum())
        return found

    def _aligned(self, seen: dict[str, tuple[Tensor, Tensor]], split: str) -> tuple[dict[str, Tensor], Tensor]:
        labels = seen[self.members[0].name][1]
        for name, (scores, others) in seen.items():
            if not torch.equal(labels, others) or scores.shape != seen[self.members[0].name][0].shape:
                hint = "their data.split_seed, val_size or classes differ"
                raise ConfigError("data", f"{name} and {self.members[0].name} have not the same {split} examples", hint)
        return {name: scores for name, (scores, _) in seen.items()}, labels

    def _mixed(self, outputs: dict[str, Tensor], share: Sequence[float]) -> Tensor:
        used = [(outputs[each.name], weight) for each, weight in zip(self.members, share, strict=True) if weight]
        return self.combine([scores for scores, _ in used], [weight for _, weight in used])

    def _figures(
        self, outputs: dict[str, Tensor], labels: Tensor, weights: dict[str, list[float]], single: str
    ) -> dict[str, dict[str, float]]:
        mixed = {kind: self.measure(self._mixed(outputs, share), labels) for kind, share in weights.items()}
        return {"single": self.measure(outputs[single], labels), **mixed}


def _load(each: Trained) -> pl.LightningModule:
    task = build_task(each.cfg)
    if not is_overridden("predict_step", task, pl.LightningModule):
        hint = "define one that returns scores (B, K) and classes (B,)"
        raise ConfigError(
            "task", f"{type(task).__name__} has no predict_step, so that there is nothing to average", hint
        )
    task.load_state_dict(torch.load(each.checkpoint, weights_only=True, map_location="cpu")["state_dict"])
    return task
