"""What a user's code may say, in training: each kind of text that some database, terminal or encoding refuses."""

from __future__ import annotations

import pytorch_lightning as pl


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Numeric(Exception):
    def __str__(self):
        return 3


class Strange(pl.Callback):
    """Raises, or logs, something strange in the first epoch.

    Args:
        kind: What.
    """

    def __init__(self, kind: str = "fine") -> None:
        super().__init__()
        self.kind = kind

    def on_train_epoch_start(self, trainer, pl_module):
        if self.kind == "nul":
            raise ValueError("a NUL: \0")
        if self.kind == "surrogate":
            raise ValueError("half a pair: \ud800")
        if self.kind == "huge":
            raise ValueError("x" * 20_000_000)
        if self.kind == "mute":
            raise Mute
        if self.kind == "numeric":
            raise Numeric

    def on_train_epoch_end(self, trainer, pl_module):
        if self.kind == "names":
            pl_module.log("a NUL: \0", 1.0)
            pl_module.log("half a pair: \ud800", float("inf"))
