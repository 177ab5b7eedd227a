"""A task of a kind that the trunk has never seen: two nets that play against each other, by steps, with their own data.

A generator learns to draw numbers from a normal distribution (mean 3, standard deviation 0.5) from
nothing but the judgement of a discriminator (Goodfellow et al., 2014: "Generative adversarial
nets").
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

#: Batches an epoch has, of so many numbers.
BATCHES = 32
BATCH_SIZE = 64


class Game(pl.LightningModule):
    """Generator and discriminator, each with an optimizer of its own.

    Logs ``val/gap`` and ``test/gap``: the Wasserstein-1 distance between real and drawn numbers.

    Args:
        lr: Learning rate of both.
        hidden: Units of the hidden layer of both.
    """

    kind = "generation"
    progress_unit = "step"

    def __init__(self, lr: float = 0.02, hidden: int = 8) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.lr = lr
        self.generator = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.discriminator = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(self.generator.parameters(), self.lr, betas=(0.5, 0.9)),
            torch.optim.Adam(self.discriminator.parameters(), self.lr, betas=(0.5, 0.9)),
        ]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        of_generator, of_discriminator = self.optimizers()
        real = batch["real"]
        drawn = self.generator(torch.randn_like(real))
        found = torch.cat([self.discriminator(real), self.discriminator(drawn.detach())])
        truth = torch.cat([torch.ones_like(real), torch.zeros_like(real)])
        self._take_step(of_discriminator, F.binary_cross_entropy_with_logits(found, truth))
        fooled = F.softplus(-self.discriminator(drawn)).mean()
        self._take_step(of_generator, fooled)

    def _take_step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val/gap", self._gap(batch["real"]))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("test/gap", self._gap(batch["real"]))

    def _gap(self, real: Tensor) -> Tensor:
        noise = torch.linspace(-2, 2, len(real)).reshape(-1, 1)
        drawn = self.generator(noise)
        return (real.sort(0).values - drawn.sort(0).values).abs().mean()

    # -- its own data: batches are dictionaries ------------------------------------------------------------------
    def train_dataloader(self) -> DataLoader:
        return _batches_of(BATCHES * BATCH_SIZE, seed=0)

    def val_dataloader(self) -> DataLoader:
        return _batches_of(BATCH_SIZE, seed=1)

    def test_dataloader(self) -> DataLoader:
        return _batches_of(2 * BATCH_SIZE, seed=2)


def _batches_of(n: int, seed: int) -> DataLoader:
    drawn = 3 + 0.5 * torch.randn(n, 1, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(drawn), BATCH_SIZE, collate_fn=_as_mapping)


def _as_mapping(examples: list[tuple[Tensor]]) -> dict[str, Tensor]:
    return {"real": torch.stack([example for (example,) in examples])}
