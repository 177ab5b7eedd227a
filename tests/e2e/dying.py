"""A callback for studies that are to lose a process: its own, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Dies(pl.Callback):
    """Kills the first process that reaches `epoch`, as the out-of-memory killer would.

    Args:
        epoch: From 0; those before it were checkpointed.
        mark: A file that says that it has been done.
    """

    def __init__(self, epoch: int, mark: str) -> None:
        self.epoch, self.mark = epoch, Path(mark)

    def on_train_epoch_start(self, trainer: Any, _module: Any) -> None:
        if trainer.current_epoch == self.epoch and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
