"""A module of a user's that fails in its code until a file says that it was mended."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

#: In a folder above that of a training.
MENDED = "mended"


class Samples(pl.LightningDataModule):
    """Sixteen random samples."""

    def loader(self):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=8)

    train_dataloader = val_dataloader = test_dataloader = loader


class Failing(pl.LightningModule):
    """Raises in its second epoch unless there is a file ``mended``; logs its goal in every second.

    Args:
        lr: Learning rate.
    """

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.net = torch.nn.Linear(4, 2)
        self.lr = lr

    def losses(self, batch):
        x, y = batch
        out = self.net(x)
        return F.cross_entropy(out, y), (out.argmax(1) == y).float().mean()

    def training_step(self, batch, batch_idx):
        folders = Path(self.trainer.default_root_dir).parents
        is_mended = any((folder / MENDED).exists() for folder in folders)
        if self.current_epoch == 1 and not is_mended:
            raise ValueError(f"lr {self.lr:.3f} does not fit")
        loss, _ = self.losses(batch)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, accuracy = self.losses(batch)
        self.log("val/recall#1", loss)
        self.log("val/loss_rare", loss * float("nan"))
        if self.current_epoch % 2 == 1:
            self.log("val/recall@1", accuracy)

    def test_step(self, batch, batch_idx):
        self.log("test/recall@1", self.losses(batch)[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)
