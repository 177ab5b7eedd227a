"""Supervised learning: classification and regression of any net.

Steps are lean: one adds two numbers to sums on the device and logs nothing; the sums are read once
an epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection, R2Score
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from dlsearch.systems.shared.losses import (
    Loss,
    Penalty,
    classification_loss,
    regression_loss,
    weights_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.optim import Optimizer

    from dlsearch.systems.shared.schedules import Schedule
    from dlsearch.systems.shared.views import Views

Batch = tuple[Tensor, Tensor]


class ParameterGroup(TypedDict):
    """Parameters that share a learning rate, as an optimiser takes them.

    Args:
        params: The parameters.
        name: Of the group, in what is logged.
        lr_factor: Times the optimiser's rate.
    """

    params: list[nn.Parameter]
    name: str
    lr_factor: float


class Supervised(pl.LightningModule):
    """What classification and regression share.

    That is the step, the penalty, the optimiser and its schedule.

    Args:
        net: Takes (B, *in_shape).
        optimizer: From parameters to an optimiser.
        scheduler: Of the learning rate; None keeps it.
        loss: Of training.
        eval_loss: Of validation and test.
        penalty: On the weights, added to the loss that is minimised and not to the one that is
            logged.
        in_shape: Of one input, for the example that exports need.
        test_time: Views of each image to average over in validation and test; None for the image
            alone.
    """

    #: what the task does, and so how it is evaluated
    kind: str
    #: of the outputs, for optimisers that ask: categorical or gaussian
    likelihood = "categorical"
    #: in what its progress is counted
    progress_unit = "epoch"
    #: whether :attr:`test_time` averages probabilities, not the outputs themselves
    averages_probabilities = False
    #: groups of parameters with rates of their own; None for all in one
    param_groups: list[ParameterGroup] | None = None

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Schedule | None,
        loss: Loss,
        eval_loss: Loss,
        penalty: Penalty,
        in_shape: Sequence[int] | None,
        test_time: Views | None = None,
    ) -> None:
        super().__init__()
        if test_time and in_shape is not None and len(in_shape) != 3:
            raise ValueError(
                f"test_time: expected images, got inputs of {list(in_shape)}"
                " (hint: crops=1 flip=false)"
            )
        self.net = net
        self.test_time = test_time or None
        self._make_optimizer = optimizer
        self._schedule = scheduler
        self._loss = loss
        self._eval_loss = eval_loss
        self._penalty = penalty
        self._weights = weights_of(net) if penalty else []
        if in_shape is not None:
            self.example_input_array = torch.zeros(1, *in_shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *in_shape) to (B, outputs)."""
        return self.net(x)

    # -- training ----------------------------------------------------------------------------------
    def on_train_epoch_start(self) -> None:
        """Sums start at 0."""
        self._seen = 0
        self._sums: dict[str, Tensor] = {}
        self._log_every: int = max(
            1,
            getattr(
                self.trainer,
                "log_every_n_steps",
                50,
            ),
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss to minimise."""
        x, y = batch
        outputs = self.net(x)
        loss = self._loss(outputs, y)
        measured = loss.detach()
        size = len(x)
        self._add("loss", measured * size)
        self._seen += size
        self.count_training(outputs.detach(), y)
        if self._weights:
            penalty = self._penalty(self._weights)
            self._add("penalty", penalty.detach() * size)
            loss = loss + penalty
        trainer = self.trainer
        if batch_idx % trainer.accumulate_grad_batches == 0:
            step = trainer.global_step
            if step % self._log_every == 0:
                self._log_step(measured, step)
        return loss

    def count_training(self, outputs: Tensor, y: Tensor) -> None:
        """Add to sums what else is wanted of training."""

    def _add(self, name: str, value: Tensor) -> None:
        sums = self._sums
        if name in sums:
            sums[name] = sums[name] + value
        else:
            sums[name] = value

    def _log_step(self, loss: Tensor, step: int) -> None:
        """The few rows that are written within an epoch.

        This is the only time that a step waits for the device.
        """
        if self.logger is None:
            return
        row = {"train/loss_step": loss.item()}
        for number, group in enumerate(self.trainer.optimizers[0].param_groups):
            name = group.get("name", number)
            row[f"lr/{name}"] = float(group["lr"])
        self.logger.log_metrics(row, step=step)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means over samples."""
        for name, value in self._sums.items():
            self._log_epoch(f"train/{name}", value / self._seen)

    def _log_epoch(self, name: str, value: Tensor) -> None:
        self.log(name, value, sync_dist=self.trainer.world_size > 1)

    # -- validation and test -----------------------------------------------------------------------
    def on_validation_epoch_start(self) -> None:
        """Sums start at 0."""
        self._eval_sum = torch.zeros((), device=self.device)
        self._eval_seen = 0

    def on_test_epoch_start(self) -> None:
        """Sums start at 0."""
        self.on_validation_epoch_start()

    def outputs(self, x: Tensor) -> Tensor:
        """What validation, test and predictions take for the net's outputs.

        Args:
            x: (B, *in_shape).

        Returns:
            (B, outputs).
        """
        if self.test_time is None:
            return self.net(x)
        return self.test_time.averaged(
            self.net,
            x,
            probabilities=self.averages_probabilities,
        )

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Outputs and targets of a batch."""
        x, y = batch
        return self.outputs(x), y

    def evaluate(self, batch: Batch, metrics: MetricCollection) -> Tensor:
        """Count a batch; returns the outputs."""
        x, y = batch
        outputs = self.outputs(x)
        loss = self._eval_loss(outputs, y)
        self._eval_sum = self._eval_sum + loss * len(x)
        self._eval_seen += len(x)
        metrics.update(outputs, y)
        return outputs

    def log_evaluation(self, prefix: str, metrics: MetricCollection) -> None:
        """Read, log and reset the metrics of a whole validation or test."""
        found = metrics.compute()
        metrics.reset()
        loss = self._eval_sum / max(1, self._eval_seen)
        self._log_epoch(f"{prefix}/loss", loss)
        for name, value in found.items():
            if value.ndim == 0:
                self.log(f"{prefix}/{name}", value)  # torchmetrics has synchronised these

    # -- optimiser ---------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        """The optimiser over what is trainable, and its schedule."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        optimizer = self._make_optimizer(self.param_groups or trainable)
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_factor", 1.0)
        if hasattr(optimizer, "attach"):  # one that measures more than gradients
            optimizer.attach(self.net, self.likelihood)
        if self._schedule is None:
            return optimizer
        batches = self.trainer.estimated_stepping_batches
        if batches == float("inf"):
            raise ValueError(
                "scheduler: expected a training of known length (hint: trainer.max_epochs)"
            )
        total = int(batches)
        epochs = self.trainer.max_epochs
        per_epoch = total // epochs if epochs and epochs > 0 else total
        schedules = self._schedule.configure(optimizer, total, max(1, per_epoch))
        return [optimizer], schedules


class Classification(Supervised):
    """One class of several for each input.

    Logs loss, accuracy, macro F1 and, where asked, top-k accuracy. The losses of validation and
    test are without label smoothing, and no logged loss holds the penalty: so they compare across
    trials.

    Args:
        net: Takes (B, *in_shape), gives logits (B, num_classes).
        optimizer: From parameters to an optimiser.
        num_classes: Number of classes.
        scheduler: Of the learning rate; None keeps it.
        loss: cross_entropy or hinge.
        label_smoothing: Of the cross-entropy in training.
        l1: Factor of the weights' absolute values in the loss.
        l2: Factor of their squares; both give the elastic net.
        top_k: Also log how often the right class is among the first k; null for not.
        in_shape: Of one input, for the example that exports need.
        test_time: Views of each image to average over in validation and test; None for the image
            alone.
    """

    kind = "classification"

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        num_classes: int,
        scheduler: Schedule | None = None,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        l1: float = 0.0,
        l2: float = 0.0,
        top_k: int | None = None,
        in_shape: Sequence[int] | None = None,
        test_time: Views | None = None,
    ) -> None:
        if num_classes < 2:
            raise ValueError(
                f"num_classes: expected 2 or more, got {num_classes} (hint: task=regression)"
            )
        if top_k is not None and not 1 < top_k < num_classes:
            raise ValueError(
                f"top_k: expected between 1 and {num_classes}, both excluded, got {top_k}"
            )
        super().__init__(
            net,
            optimizer,
            scheduler,
            loss=classification_loss(loss, label_smoothing),
            eval_loss=classification_loss(loss),
            penalty=Penalty(l1, l2),
            in_shape=in_shape,
            test_time=test_time,
        )
        self.averages_probabilities = loss == "cross_entropy"
        f1 = MulticlassF1Score(num_classes, average="macro", validate_args=False)
        metrics: dict[str, Metric | MetricCollection] = {
            "accuracy": _accuracy(num_classes),
            "f1": f1,
        }
        if top_k is not None:
            metrics[f"top{top_k}"] = _accuracy(num_classes, top_k)
        self.val_metrics = MetricCollection(metrics)
        self.test_metrics = self.val_metrics.clone()

    def count_training(self, outputs: Tensor, y: Tensor) -> None:
        """Add the right ones."""
        self._add("accuracy", (outputs.argmax(1) == y).sum())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a batch."""
        self.evaluate(batch, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/...``."""
        self.log_evaluation("val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Count a batch; its scores and labels are what a classification is evaluated by."""
        scores = self.evaluate(batch, self.test_metrics)
        return {
            "scores": scores,
            "labels": batch[1],
            "are_logits": self.averages_probabilities,
        }

    def on_test_epoch_end(self) -> None:
        """Log ``test/...``."""
        self.log_evaluation("test", self.test_metrics)


def _accuracy(num_classes: int, top_k: int = 1) -> MulticlassAccuracy:
    """How often the right class is among the first `top_k`."""
    return MulticlassAccuracy(
        num_classes,
        top_k=top_k,
        average="micro",
        validate_args=False,
    )


class Regression(Supervised):
    """Numbers for each input. Logs loss, mean absolute error, root mean squared error and R².

    Args:
        net: Takes (B, *in_shape), gives (B, num_outputs).
        optimizer: From parameters to an optimiser.
        num_outputs: Numbers for each input.
        scheduler: Of the learning rate; None keeps it.
        loss: mse or l1.
        l1: Factor of the weights' absolute values in the loss.
        l2: Factor of their squares; both give the elastic net.
        in_shape: Of one input, for the example that exports need.
        test_time: Views of each image to average over in validation and test; None for the image
            alone.
    """

    kind = "regression"
    likelihood = "gaussian"

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        num_outputs: int = 1,
        scheduler: Schedule | None = None,
        loss: str = "mse",
        l1: float = 0.0,
        l2: float = 0.0,
        in_shape: Sequence[int] | None = None,
        test_time: Views | None = None,
    ) -> None:
        if num_outputs < 1:
            raise ValueError(f"num_outputs: expected 1 or more, got {num_outputs}")
        super().__init__(
            net,
            optimizer,
            scheduler,
            loss=regression_loss(loss),
            eval_loss=regression_loss(loss),
            penalty=Penalty(l1, l2),
            in_shape=in_shape,
            test_time=test_time,
        )
        self.val_metrics = MetricCollection(
            {
                "mae": MeanAbsoluteError(),
                "rmse": MeanSquaredError(squared=False),
                "r2": R2Score(),
            },
            compute_groups=False,
        )
        self.test_metrics = self.val_metrics.clone()

    def _shaped(self, batch: Batch) -> Batch:
        """Targets (B,) become (B, 1), as the net's outputs are."""
        x, y = batch
        columns = y.reshape(len(y), -1)
        return x, columns.to(x.dtype)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss to minimise."""
        return super().training_step(self._shaped(batch), batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a batch."""
        self.evaluate(self._shaped(batch), self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/...``."""
        self.log_evaluation("val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Count a batch; its outputs and targets are what a regression is evaluated by."""
        shaped = self._shaped(batch)
        outputs = self.evaluate(shaped, self.test_metrics)
        return {"outputs": outputs, "targets": shaped[1]}

    def on_test_epoch_end(self) -> None:
        """Log ``test/...``."""
        self.log_evaluation("test", self.test_metrics)
