"""Modules whose nets are made after their constructors, and modules whose checkpoints are not what was trained."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import threadpoolctl
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_net(hidden: int) -> nn.Module:
    """A small perceptron for the digits."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 10)
    )


class Early(pl.LightningModule):
    """A net that the constructor makes; what the others begin with."""

    def __init__(self, hidden: int = 32, lr: float = 0.01) -> None:
        super().__init__()
        self.hidden, self.lr = hidden, lr
        self.net: Any = make_net(hidden)

    def both(self, batch: Any) -> tuple[Tensor, Tensor]:
        x, y = batch
        out = self.net(x)
        return F.cross_entropy(out, y), (out.argmax(1) == y).float().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.both(batch)[0]
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss, accuracy = self.both(batch)
        self.log_dict({"val_loss": loss, "val_acc": accuracy})

    def test_step(self, batch: Any, batch_idx: int) -> None:
        loss, accuracy = self.both(batch)
        self.log_dict({"test_loss": loss, "test_acc": accuracy})

    def predict_step(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor]:
        return self.net(batch[0]), batch[1]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.lr)


class Late(Early):
    """No net after the constructor, but a place for one, so that torch expects none of its weights."""

    def __init__(self, hidden: int = 32, lr: float = 0.01) -> None:
        super().__init__(hidden, lr)
        self.net = None


class InSetup(Late):
    """Made in every stage anew, as many do."""

    def setup(self, stage: str) -> None:
        self.net = make_net(self.hidden)


class InSetupForFit(Late):
    """Made for fitting alone."""

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.net = make_net(self.hidden)


class InConfigureModel(Late):
    """Made where Lightning asks for large nets to be made."""

    def configure_model(self) -> None:
        if self.net is None:
            self.net = make_net(self.hidden)


class InOnFitStart(Early):
    """A last layer that is added when the optimizers are there already, and stays as it is drawn."""

    def on_fit_start(self) -> None:
        self.net.append(nn.Linear(10, 10))


class FromData(Late):
    """Made when the data module knows the number of classes."""

    def setup(self, stage: str) -> None:
        if self.net is None:
            self.net = make_net(self.hidden * self.trainer.datamodule.num_classes // 10)


class Wrapped(Early):
    """Wrapped for fitting, so that the names of the weights in its checkpoints are others."""

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.net = nn.ModuleDict({"inner": self.net})

    def both(self, batch: Any) -> tuple[Tensor, Tensor]:
        x, y = batch
        out = (self.net["inner"] if isinstance(self.net, nn.ModuleDict) else self.net)(x)
        return F.cross_entropy(out, y), (out.argmax(1) == y).float().mean()


class Missing(Early):
    """Leaves a weight out of its checkpoints."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        del checkpoint["state_dict"]["net.1.bias"]


class Unexpected(Late):
    """Puts a weight into its checkpoints that no hook makes a place for."""

    def setup(self, stage: str) -> None:
        self.head: Any = None
        if self.net is None:
            self.net = make_net(self.hidden)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"]["head.weight"] = torch.zeros(1)


class Changed(Early):
    """Keeps other weights than those that were validated."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"]["net.4.weight"] = torch.zeros(10, self.hidden)


class Noisy(Early):
    """A validation that draws: no two passes over the same weights give the same figure."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss, accuracy = self.both(batch)
        self.log_dict({"val_loss": loss, "val_acc": accuracy + 0.05 * torch.rand(())})


class TrainedOnly(Early):
    """The goal is a loss of training, which validation does not log."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, accuracy = self.both(batch)
        self.log("val_acc", accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.both(batch)[0])


class Annealed(Early):
    """A loss whose parts are weighted by the epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss, accuracy = self.both(batch)
        self.log_dict({"val_loss": loss, "val_acc": accuracy + 0.001 * self.current_epoch})


class Pools(pl.Callback):
    """Writes down the thread pools of the process that trains, beside its checkpoints' folder."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pools = [
            {key: pool[key] for key in ("user_api", "num_threads")}
            for pool in threadpoolctl.threadpool_info()
        ]
        found = {
            "pools": pools,
            "torch": torch.get_num_threads(),
            "environment": os.environ["OMP_NUM_THREADS"],
        }
        (Path(trainer.default_root_dir) / "pools.json").write_text(json.dumps(found))


class Averaging(pl.Callback):
    """A moving average of the weights, kept by the callback, which validates and tests instead of the weights."""

    def __init__(self) -> None:
        self._average: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        for name, value in pl_module.state_dict().items():
            self._average[name] = 0.9 * self._average.get(name, value) + 0.1 * value

    def _swap(self, pl_module: pl.LightningModule) -> None:
        mine = {name: value.clone() for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict(self._average)
        self._average = mine

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._average = state_dict["average"]
