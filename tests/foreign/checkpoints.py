"""What modules, data modules and callbacks put into a checkpoint, and where they make their nets."""

from __future__ import annotations

import copy
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Vocabulary:
    """A class of their own, which ends up in checkpoints."""

    def __init__(self, words):
        self.words = list(words)
        self.created = Path("somewhere")

    def __len__(self):
        return len(self.words)


class Digits(pl.LightningDataModule):
    """Keeps a scaler and a vocabulary in its state."""

    def __init__(self, batch_size=32, odd=False, shape=None):
        super().__init__()
        self.save_hyperparameters()
        self.vocabulary = None

    def setup(self, stage=None):
        x, y = load_digits(return_X_y=True)
        x, y = torch.tensor(x / 16).float(), torch.tensor(y)
        self.parts = [TensorDataset(x[a:b], y[a:b]) for a, b in ((0, 300), (300, 500), (500, 700))]
        self.num_classes = 10
        self.vocabulary = Vocabulary(f"digit {i}" for i in range(10))

    def state_dict(self):
        if not self.hparams.odd:
            return {}
        return {"vocabulary": self.vocabulary, "mean": np.float32(0.3), "seen": {3, 4}}

    def load_state_dict(self, state_dict):
        assert len(state_dict["vocabulary"]) == 10
        self.vocabulary = state_dict["vocabulary"]

    def train_dataloader(self):
        return DataLoader(self.parts[0], self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.parts[1], 100)

    def test_dataloader(self):
        return DataLoader(self.parts[2], 100)


def mlp(hidden=16):
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 10))


class Plain(pl.LightningModule):
    """What the others begin with."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__()
        self.hidden, self.lr = hidden, lr
        self.net = mlp(hidden)

    def forward(self, x):
        return self.net(x)

    def both(self, batch):
        x, y = batch
        out = self(x)
        return F.cross_entropy(out, y), (out.argmax(1) == y).float().mean()

    def training_step(self, batch, batch_idx):
        loss, _ = self.both(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, acc = self.both(batch)
        self.log_dict({"val_loss": loss, "val_acc": acc})

    def test_step(self, batch, batch_idx):
        loss, acc = self.both(batch)
        self.log_dict({"test_loss": loss, "test_acc": acc})

    def predict_step(self, batch, batch_idx):
        return self(batch[0]), batch[1]

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.lr)


# -- objects in the checkpoint -----------------------------------------------------------------------
class Hyperparameters(Plain):
    """``save_hyperparameters`` of a NumPy number, a function, a device, a module and a class."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.save_hyperparameters({
            "scale": np.float64(0.1), "activation": F.relu, "device": torch.device("cpu"), "layer": nn.ReLU(),
            "kind": Vocabulary, "where": Path("x"),
        })  # fmt: skip


class KeepsVocabulary(Plain):
    """Needs what it put into the checkpoint to be what it was: the order of its outputs."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.order = None

    def on_fit_start(self):
        if self.order is None:
            self.order = torch.randperm(10).numpy()

    def forward(self, x):
        return self.net(x)[:, torch.as_tensor(self.order)]

    def on_save_checkpoint(self, checkpoint):
        checkpoint["vocabulary"] = Vocabulary("abc")
        checkpoint["order"] = self.order

    def on_load_checkpoint(self, checkpoint):
        assert checkpoint["vocabulary"].words == ["a", "b", "c"]
        self.order = checkpoint["order"]


class History(pl.Callback):
    """A callback whose state is of classes that are no plain values."""

    def __init__(self):
        self.last = deque(maxlen=3)

    def on_train_epoch_end(self, trainer, pl_module):
        self.last.append(np.float32(trainer.current_epoch))

    def state_dict(self):
        return {"last": self.last, "vocabulary": Vocabulary("x")}

    def load_state_dict(self, state_dict):
        self.last = state_dict["last"]


# -- extra state -------------------------------------------------------------------------------------
class Scaler(nn.Module):
    """Statistics as extra state: a dictionary with an array, a number and a tensor."""

    def __init__(self):
        super().__init__()
        self.mean, self.steps, self.scale = np.zeros(64), 0, torch.ones(())

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).numpy()
            self.steps += 1
        return (x - torch.as_tensor(self.mean, dtype=x.dtype)) * self.scale

    def get_extra_state(self):
        return {"mean": self.mean, "steps": self.steps, "scale": self.scale, "shape": (64,)}

    def set_extra_state(self, state):
        self.mean, self.steps, self.scale = state["mean"], state["steps"], state["scale"]


class PlainExtraState(Plain):
    """Extra state that is plain data."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.net = nn.Sequential(Scaler(), mlp(hidden))


class Tokens(nn.Module):
    """Extra state of a class of its own."""

    def __init__(self):
        super().__init__()
        self.vocabulary = Vocabulary("abcd")

    def forward(self, x):
        return x * len(self.vocabulary)

    def get_extra_state(self):
        return self.vocabulary

    def set_extra_state(self, state):
        self.vocabulary = state


class OwnExtraState(Plain):
    """Extra state that no file of weights can hold."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.net = nn.Sequential(Tokens(), mlp(hidden))


# -- tensors that share, or are no plain tensors --------------------------------------------------------
class Tied(Plain):
    """An autoencoder's weight, used twice, under two names."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.embed = nn.Linear(64, 64, bias=False)
        self.back = nn.Linear(64, 64, bias=False)
        self.back.weight = self.embed.weight

    def forward(self, x):
        return self.net(x + 0.1 * self.back(torch.tanh(self.embed(x))))


class Shared(Plain):
    """Buffers that are parts of one storage, and one of each kind that files of weights may lack."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        whole = torch.arange(8.0)
        self.register_buffer("whole", whole)
        self.register_buffer("part", whole[2:5])
        self.register_buffer("turned", torch.randn(3, 4).t())
        self.register_buffer("phases", torch.randn(3, dtype=torch.complex128))
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x):
        if self.training:
            self.steps += 1
        out, _ = self.lstm(x.view(-1, 8, 8))
        return self.net(out.reshape(-1, 64) + x)


class Lazy(Plain):
    """Layers whose sizes the first batch tells."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.net = nn.Sequential(
            nn.LazyLinear(hidden), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(10)
        )


class InDouble(Plain):
    """Weights in float64."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.net = self.net.double()

    def forward(self, x):
        return self.net(x.double())


# -- nets that hooks make, wrap or resize --------------------------------------------------------------
class CompiledInSetup(Plain):
    """As the popular templates do it: the names of the weights in checkpoints are others then."""

    def setup(self, stage):
        if stage == "fit":
            self.net = torch.compile(self.net, backend="eager")


class ResizedInSetup(Plain):
    """A head as large as the data module says."""

    def setup(self, stage):
        self.net[-1] = nn.Linear(self.hidden, self.trainer.datamodule.num_classes)


class Parametrized(Plain):
    """Reparametrized in a hook, so that a weight becomes two."""

    def setup(self, stage):
        if not nn.utils.parametrize.is_parametrized(self.net[0]):
            nn.utils.parametrizations.weight_norm(self.net[0])


class InConfigureModel(Plain):
    """Where Lightning asks for large nets to be made."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.net = None

    def configure_model(self):
        if self.net is None:
            self.net = mlp(self.hidden)


# -- checkpoints that are not the module's own state ---------------------------------------------------
class LeavesFrozenOut(Plain):
    """A frozen part is not kept, as people do who fine-tune large ones."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        torch.manual_seed(0)
        self.backbone = nn.Linear(64, 64).requires_grad_(False)
        self.strict_loading = False

    def forward(self, x):
        return self.net(torch.relu(self.backbone(x)))

    def on_save_checkpoint(self, checkpoint):
        for name in list(checkpoint["state_dict"]):
            if name.startswith("backbone."):
                del checkpoint["state_dict"][name]


class Renames(Plain):
    """Keeps its weights under names of another program's."""

    def on_save_checkpoint(self, checkpoint):
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name.replace("net.", "model/"): v for name, v in state.items()}

    def on_load_checkpoint(self, checkpoint):
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name.replace("model/", "net."): v for name, v in state.items()}


class Ema(Plain):
    """A moving average that validates and tests, kept as a second net."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.average = copy.deepcopy(self.net).requires_grad_(False)

    @torch.no_grad()
    def on_train_batch_end(self, outputs, batch, batch_idx):
        for mine, theirs in zip(self.average.parameters(), self.net.parameters(), strict=True):
            mine.lerp_(theirs, 0.2)

    def forward(self, x):
        return (self.net if self.training else self.average)(x)


class Forgets(Plain):
    """A weight that is not in the checkpoint, and that nothing brings back."""

    def on_save_checkpoint(self, checkpoint):
        del checkpoint["state_dict"]["net.0.bias"]


class Swaps(Plain):
    """Weights in the checkpoint that were not those of the validation."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["state_dict"]["net.0.weight"] = torch.zeros(self.hidden, 64)


class HiddenState(Plain):
    """An output that depends on what no checkpoint has."""

    def __init__(self, hidden=16, lr=0.02):
        super().__init__(hidden, lr)
        self.temperature: Any = 0.0

    def training_step(self, batch, batch_idx):
        self.temperature += 0.1
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", self.both(batch)[1] + self.temperature)
