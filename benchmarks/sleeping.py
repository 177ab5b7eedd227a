"""What the trials of `scale.py` run: a LightningModule of one weight that sleeps, and one sample to do it on."""

from __future__ import annotations

import time

import pytorch_lightning as pl
import torch
from scale import duration
from torch.utils.data import DataLoader, TensorDataset


class Sleeping(pl.LightningModule):
    """Sleeps in each of its epochs' one step, for as long as its seed says.

    Args:
        seed: The trial's.
        mean: Of a trial's seconds.
        epochs: That share them.
        rate: What is searched; it changes nothing.
    """

    def __init__(self, seed: int, mean: float, epochs: int, rate: float = 0.0) -> None:
        super().__init__()
        self.seconds = duration(seed, mean) / epochs
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.weight * batch[0].sum()

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        self.log("val/score", self.weight + batch[0].sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OneSample(pl.LightningDataModule):
    """A number, to train and to validate on."""

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(TensorDataset(torch.ones(1)))

    val_dataloader = train_dataloader
