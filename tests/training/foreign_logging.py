"""Modules that log in the ways of the field, written for no tool of ours: two batches an epoch."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchmetrics
from torch.utils.data import DataLoader, TensorDataset


class Data(pl.LightningDataModule):
    """Eight random samples of four numbers, in one loader or several."""

    def __init__(self, loaders: int = 1, batch_size: int = 4):
        super().__init__()
        self.loaders = loaders
        self.batch_size = batch_size
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(8, 4, generator=generator)
        self.set = TensorDataset(x, (x.sum(1) > 0).long())

    def train_dataloader(self):
        return DataLoader(self.set, batch_size=self.batch_size)

    def val_dataloader(self):
        found = [DataLoader(self.set, batch_size=self.batch_size) for _ in range(self.loaders)]
        return found if self.loaders > 1 else found[0]


class Plain(pl.LightningModule):
    """What the others begin with."""

    def __init__(self, lr: float = 0.01):
        super().__init__()
        self.net = torch.nn.Linear(4, 2)
        self.lr = lr

    def losses(self, batch):
        x, y = batch
        out = self.net(x)
        return F.cross_entropy(out, y), (out.argmax(1) == y).float().mean()

    def training_step(self, batch, batch_idx):
        loss, _ = self.losses(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, accuracy = self.losses(batch)
        self.log_dict({"val_loss": loss, "val_acc": accuracy})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


class EveryOther(Plain):
    """The goal only in every second epoch."""

    def validation_step(self, batch, batch_idx):
        loss, accuracy = self.losses(batch)
        self.log("val_loss", loss)
        if self.current_epoch % 2 == 1:
            self.log("val_map", accuracy)


class AtEpochEnd(Plain):
    """The goal is computed over all of the validation, in every second epoch."""

    def on_validation_epoch_end(self):
        if self.current_epoch % 2 == 0:
            self.log("val_map", float(self.current_epoch))


class AtTrainEpochEnd(Plain):
    """The goal is logged when the training epoch ends, every second time."""

    def on_train_epoch_end(self):
        if self.current_epoch % 2 == 1:
            self.log("gap", float(self.current_epoch))


class AtEpochStart(Plain):
    """The goal is logged by the first hook of an epoch."""

    def on_train_epoch_start(self):
        self.log("schedule", float(self.current_epoch))


class OnStep(Plain):
    """The goal is logged for steps alone."""

    def validation_step(self, batch, batch_idx):
        _, accuracy = self.losses(batch)
        self.log("val_acc", accuracy, on_step=True, on_epoch=False)


class Both(Plain):
    """The goal is logged for steps and for epochs."""

    def validation_step(self, batch, batch_idx):
        _, accuracy = self.losses(batch)
        self.log("val_acc", accuracy, on_step=True, on_epoch=True)


class TrainOnly(Plain):
    """No validation at all."""

    validation_step = pl.LightningModule.validation_step

    def training_step(self, batch, batch_idx):
        loss, _ = self.losses(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss


class TrainOnlyNow(TrainOnly):
    """No validation; the goal is the last step's."""

    training_step = Plain.training_step


class TwoLoaders(Plain):
    """Several validation sets."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        _, accuracy = self.losses(batch)
        self.log("val_acc", accuracy)


class SecondLoaderOnly(Plain):
    """The goal comes from the second set alone."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        _, accuracy = self.losses(batch)
        if dataloader_idx == 1:
            self.log("val_far", accuracy, add_dataloader_idx=False)


class Torchmetrics(Plain):
    """The goal is a metric object, which Lightning computes and resets."""

    def __init__(self, lr: float = 0.01):
        super().__init__(lr)
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=2)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        if self.current_epoch != 1:
            self.accuracy(self.net(x), y)
            self.log("val_acc", self.accuracy)


class InPlace(torchmetrics.Metric):
    """Gives its own state away, and resets it in place."""

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, value):
        self.total += value

    def compute(self):
        return self.total

    def reset(self):
        super().reset()
        self.total.zero_()


class StateMetric(Plain):
    """The goal is a metric whose value is its own state."""

    def __init__(self, lr: float = 0.01):
        super().__init__(lr)
        self.count = InPlace()

    def validation_step(self, batch, batch_idx):
        self.count.update(torch.tensor(1.0))
        self.log("val_count", self.count)


class RareClass(Plain):
    """An auxiliary loss that has no value in some epochs."""

    def validation_step(self, batch, batch_idx):
        loss, accuracy = self.losses(batch)
        self.log("val_acc", accuracy)
        self.log("val_loss_rare", loss * float("nan") if self.current_epoch != 1 else loss)


class NanObjective(Plain):
    """The goal itself has no value in the second epoch."""

    def validation_step(self, batch, batch_idx):
        _, accuracy = self.losses(batch)
        self.log("val_acc", accuracy * (float("nan") if self.current_epoch == 1 else 1.0))


class SilentDivergence(Plain):
    """Its loss is NaN and logged nowhere; the accuracy of NaNs is a number."""

    def training_step(self, batch, batch_idx):
        loss, _ = self.losses(batch)
        return loss * float("nan") if self.current_epoch == 1 else loss


class SkippedBatch(Plain):
    """One batch has no finite loss, and is not learned from."""

    def training_step(self, batch, batch_idx):
        loss, _ = self.losses(batch)
        self.log("train_loss", loss * float("nan") if batch_idx == 0 else loss, on_epoch=True)
        return loss


class Manual(Plain):
    """Optimises by itself, and returns nothing; in the second epoch its loss is NaN."""

    def __init__(self, lr: float = 0.01, diverges: bool = False):
        super().__init__(lr)
        self.automatic_optimization = False
        self.diverges = diverges

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        loss, _ = self.losses(batch)
        if self.diverges and self.current_epoch == 1:
            loss = loss * float("nan")
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class Dictionary(Plain):
    """Returns a dictionary, and logs the goal through it and by hand."""

    def training_step(self, batch, batch_idx):
        loss, accuracy = self.losses(batch)
        return {"loss": loss, "accuracy": accuracy.detach()}

    def on_validation_epoch_end(self):
        self.trainer.callback_metrics["by_hand"] = torch.tensor(float(self.current_epoch))


class CountsSteps(Plain):
    """Counts its progress in steps; the goal is known after every third."""

    progress_unit = "step"
    validation_step = pl.LightningModule.validation_step

    def training_step(self, batch, batch_idx):
        loss, _ = self.losses(batch)
        if self.global_step % 3 == 2:
            self.log("reward", float(self.global_step))
        return loss


class CountsStepsAndValidates(EveryOther):
    """Counts its progress in steps, and logs the goal in every second validation."""

    progress_unit = "step"


class NeverTogether(Plain):
    """Two goals, of which each epoch has one."""

    def validation_step(self, batch, batch_idx):
        _, accuracy = self.losses(batch)
        self.log("even" if self.current_epoch % 2 == 0 else "odd", accuracy)
