"""Modules and data as people write them, for no tool of ours; each has one habit."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


class Numbers(pl.LightningDataModule):
    """Sixty points on two half planes, sorted by class."""

    def __init__(self, batch_size=16, val_loaders=1, stream=False, val=True):
        super().__init__()
        self.batch_size, self.val_loaders, self.stream, self.val = (
            batch_size,
            val_loaders,
            stream,
            val,
        )

    def setup(self, stage):
        x = torch.linspace(-1, 1, 60).unsqueeze(1).repeat(1, 4)
        self.points = TensorDataset(x, (x[:, 0] > 0).long())

    def train_dataloader(self):
        if self.stream:
            return DataLoader(Stream(self.points), self.batch_size)
        return DataLoader(self.points, self.batch_size, shuffle=True)

    def val_dataloader(self):
        if not self.val:
            return []
        many = [DataLoader(self.points, self.batch_size) for _ in range(self.val_loaders)]
        return many[0] if len(many) == 1 else many

    def test_dataloader(self):
        return DataLoader(self.points, self.batch_size)


class Stream(IterableDataset):
    """No length."""

    def __init__(self, points):
        self.points = points

    def __iter__(self):
        yield from self.points


class Plain(pl.LightningModule):
    """What the others begin with."""

    def __init__(self, width=8, lr=0.1):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    def both(self, batch):
        x, y = batch
        out = self.net(x)
        return F.cross_entropy(out, y), (out.argmax(1) == y).float().mean()

    def training_step(self, batch, _):
        loss, _ = self.both(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, _):
        loss, acc = self.both(batch)
        self.log_dict({"val_loss": loss, "val_acc": acc})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


class PerLoader(Plain):
    def validation_step(self, batch, _, dataloader_idx=0):
        self.log("val_acc", self.both(batch)[1])


class OneAmongLoaders(Plain):
    """The goal is logged of one set alone."""

    def validation_step(self, batch, _, dataloader_idx=0):
        if dataloader_idx == 1:
            self.log("val_acc", self.both(batch)[1])


class OfSteps(Plain):
    def validation_step(self, batch, _):
        self.log("val_acc", self.both(batch)[1], on_step=True, on_epoch=False)


class OfBoth(Plain):
    def validation_step(self, batch, _):
        self.log("val_acc", self.both(batch)[1], on_step=True, on_epoch=True)


class NoValidation(Plain):
    validation_step = pl.LightningModule.validation_step


class NoValidationByEpoch(NoValidation):
    def training_step(self, batch, _):
        loss, _ = self.both(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss


class LoggerAlone(Plain):
    def validation_step(self, batch, _):
        self.logger.log_metrics({"val_acc": self.both(batch)[1].item()}, self.global_step)


class EveryThird(Plain):
    """A costly metric."""

    def on_validation_epoch_end(self):
        if self.current_epoch % 3 == 2:
            self.log("val_map", 0.5)


class EveryTwentieth(Plain):
    def on_validation_epoch_end(self):
        if self.current_epoch % 20 == 19:
            self.log("val_map", 0.5)


class NeedsTwoClasses(Plain):
    """A metric that one batch of sorted data does not give."""

    def on_validation_epoch_start(self):
        self.seen = []

    def validation_step(self, batch, _):
        super().validation_step(batch, _)
        self.seen.append(batch[1])

    def on_validation_epoch_end(self):
        classes = torch.cat(self.seen).unique()
        if len(classes) < 2:
            raise ValueError("only one class present in y_true")
        self.log("val_auc", 0.5)


class CountsSteps(Plain):
    """A schedule over all steps of the training."""

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        steps = int(self.trainer.estimated_stepping_batches)
        assert steps == 12, steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Draws(Plain):
    """Written for the loggers of others."""

    def on_validation_epoch_end(self):
        board = self.logger.experiment
        board.add_histogram("weights", self.net[0].weight, self.current_epoch)
        board.log({"table": [1, 2]})
        board["charts/loss"].append(1.0)
        self.logger.watch(self, log="all")
        with self.logger.experiment.train() as part:
            part.log_image("x", None)
        (Path(self.logger.log_dir) / "notes.txt").write_text("seen")


class WrongShape(Plain):
    def training_step(self, batch, _):
        return self.net(batch[0][:, :3]).mean()


class Halves(Plain):
    """The width is an integer."""

    def __init__(self, width=8, lr=0.1):
        super().__init__(width, lr)
        self.heads = [0] * (width // 2)


class NeedsPackage(Plain):
    def __init__(self, width=8, lr=0.1):
        super().__init__(width, lr)
        import cv2_that_is_not_there  # noqa: F401


class NeedsPackageLater(Plain):
    def on_train_start(self):
        import skimage.that_is_not_there  # noqa: F401


class KeepsFunction(Plain):
    """What no checkpoint can hold."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["act"] = lambda x: x


class LeavesOut(Plain):
    """Less in the checkpoint than in the module."""

    def on_save_checkpoint(self, checkpoint):
        del checkpoint["state_dict"]["net.2.bias"]


class ReadsTest(Plain):
    def on_fit_start(self):
        self.trainer.datamodule.test_dataloader()


class Leaves(Plain):
    def setup(self, stage):
        sys.exit(3)


class RealTensors(Plain):
    """Stochastic depth, as most vision transformers write it."""

    def __init__(self, width=8, lr=0.1):
        super().__init__(width, lr)
        self.rates = [x.item() for x in torch.linspace(0, 0.1, 3)]


class LazyLayers(Plain):
    def __init__(self, width=8, lr=0.1):
        super().__init__(width, lr)
        self.net = nn.Sequential(nn.LazyLinear(width), nn.ReLU(), nn.LazyLinear(2))


class ByHand(Plain):
    def __init__(self, width=8, lr=0.1):
        super().__init__(width, lr)
        self.automatic_optimization = False

    def training_step(self, batch, _):
        one, two = self.optimizers()
        loss, _ = self.both(batch)
        one.zero_grad()
        two.zero_grad()
        self.manual_backward(loss)
        one.step()
        two.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), self.lr) for part in (self.net[0], self.net[2])]


class Waits(Plain):
    """Never comes back."""

    def training_step(self, batch, _):
        threading.Event().wait()


class Prints(Plain):
    def on_fit_start(self):
        sys.stdout.write("a great many words\n")
